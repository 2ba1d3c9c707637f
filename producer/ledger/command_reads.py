"""What the clients ask Postgres of commands that they have sent, and how the rows read. Only the store's own.

Accounts, entries and transactions are in `queries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ...schemas.identifiers import ACCOUNT_PREFIX, position_of
from ...schemas.journal import JournalRow
from ...schemas.journal_columns import row_of, select_list
from ...schemas.kinds import SPANNING
from ...schemas.statuses import listed

#: Journal rows of these keys, and the time that it is now. Walks the unique index (store_id, idempotency_key).
FIND_DECISIONS = f"""
select {select_list("j")}, (extract(epoch from clock_timestamp()) * 1000000)::bigint
from stores s
join journal j on j.store_id = s.store_id
where s.public_id = %(store)s and j.idempotency_key = any(%(keys)s)
"""  # noqa: S608  # the columns are constants

#: Dead letters of these keys, oldest first, also those of a store that did not exist, which are under number 0: whose
#: they are, the payload says. Walks the index (store_id, idempotency_key).
FIND_DEAD_LETTERS = """
select d.idempotency_key, d.lane_entry, d.payload, d.reason, d.replayed_at is not null
from dead_letters d
where d.store_id = any(array[0, (select s.store_id from stores s where s.public_id = %(store)s)])
  and d.idempotency_key = any(%(keys)s)
order by d.created_at
"""

#: The first entry of a transaction, if one of its entries is on the given account.
FIND_TOUCHED = f"""
select j.seq
from stores s
join journal j on j.store_id = s.store_id
where s.public_id = %(store)s and j.account_id = %(first_account)s and j.seq = %(first_seq)s
  and j.transaction_seq is null and j.kind in {listed(SPANNING)}
  and j.content -> 'entries' @> jsonb_build_array(jsonb_build_object('account_id', %(account)s::text))
"""  # noqa: S608


class DeadLetterRow(NamedTuple):
    """What a dead letter says of the command that it holds."""

    idempotency_key: str
    lane_entry: str
    payload: bytes
    reason: str
    replayed: bool


def account_uuid(account_id: str) -> UUID:
    """Return the UUID in an account id of the right form."""
    return UUID(account_id.removeprefix(ACCOUNT_PREFIX))


def journal_row(row: Sequence[Any]) -> JournalRow:
    """Return the row of a record of `FIND_DECISIONS`."""
    return row_of(row[:-1])


def postgres_time(rows: Sequence[Sequence[Any]]) -> float:
    """Return the time of Postgres, in seconds since 1970, that stands beside the rows of `FIND_DECISIONS`."""
    return float(rows[-1][-1] / 1_000_000)


def touched_values(transaction: str, account_id: str) -> dict[str, Any]:
    """Return the values of `FIND_TOUCHED` for a transaction id of the right form."""
    position = position_of(transaction)
    if position is None:
        raise ValueError("not a transaction id")
    first_account = account_uuid(position.account_id)
    return {"first_account": first_account, "first_seq": position.seq, "account": account_id}
