"""Runs of the real kinds in this process, and a journal to run them on."""

from datetime import UTC, datetime, timedelta
from typing import Any

from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.runs import perform_run, request_run

#: Half an hour ago: settled, and within the last hour.
LATELY = datetime.now(UTC) - timedelta(minutes=30)


def run_now(connection: Connection, name: str) -> dict[str, Any]:
    """Do a job now, and return what it reported."""
    return perform_run(request_run(connection, name))


def add_entries(connection: Connection, account: int, seqs: range, at: datetime, *, store: int = 1) -> None:
    """Credit the account 1 with each seq; seq 1 opens it."""
    connection.execute(
        """
        insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key,
            reference, content)
        select %(store)s, case n when 1 then 1 else 2 end, 1, n, %(at)s, lpad(to_hex(%(account)s::int), 32, '0')::uuid,
            1, n, concat(%(account)s::int, ' ', n), 'r', case n when 1 then '{}'::jsonb end
        from generate_series(%(first)s::int, %(last)s::int) as n
        """,
        {"store": store, "at": at, "account": account, "first": seqs.start, "last": seqs.stop - 1},
    )
    connection.execute(
        """
        insert into accounts
        select %(store)s, lpad(to_hex(n), 32, '0')::uuid, 'c', 'n' || n, 'n' || n, 'u', 1, 0, %(at)s, %(at)s
        from (values (%(account)s::int)) as account (n)
        on conflict do nothing
        """,
        {"store": store, "at": at, "account": account},
    )
