"""How long the API's reads take on one account with a long history."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg

from ..cli.output import progress_bar
from ..schemas.identifiers import ACCOUNT_PREFIX, entry_id, transaction_id
from ..schemas.settings import Settings
from .api_process import OK, ApiProcess
from .http_wire import Connection
from .ledger_check import check_ledger
from .load import AMOUNT
from .plan import BenchmarkFailed
from .scenarios import debited
from .worker_processes import WorkerProcesses

#: Requests of each kind that count, and those before them: the API's connections get warm.
REQUESTS = 50
WARM_UP_REQUESTS = 5
PAGE_ITEMS = 100
#: Entries written by one statement.
ENTRIES_PER_STATEMENT = 100_000
#: One entry in so many has a reference of its own; all others share one, which is the harder case.
RARE_EVERY = 1_000
#: What is between two entries.
APART = timedelta(microseconds=1)
BUSY_REFERENCE = "usage"

#: So many more debits on the account, as valid history: numbered, balanced and in time. So near to each other that the
#: longest is not after now, which `verify` does not let pass.
_WRITE_HISTORY = """
insert into journal
    (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key, reference)
select latest.store_id, 3, -1, latest.seq + step, latest.created_at + step * %(apart)s,
       latest.account_id, %(amount)s, latest.balance_after - step * %(amount)s,
       'history_' || (latest.seq + step),
       case (latest.seq + step) %% %(rare_every)s when 0 then 'rare_' || (latest.seq + step) else %(reference)s end
from (
    select * from journal where account_id = %(account)s::uuid and seq > 0 order by seq desc limit 1
) as latest
cross join generate_series(1, %(steps)s) as step
order by step
"""
_SPAN = "select min(created_at), max(created_at), max(seq) from journal where account_id = %s::uuid and seq > 0"


@dataclass(frozen=True, slots=True)
class ReadTimes:
    """Times of requests in milliseconds, by kind of request, on an account with so many entries."""

    entries: int
    milliseconds: dict[str, tuple[float, ...]]

    def median(self, kind: str) -> float:
        """Return the median of a kind."""
        return statistics.median(self.milliseconds[kind])


class _History(NamedTuple):
    """What may be asked for."""

    account_id: str
    opened_at: datetime
    moved_at: datetime
    entries: int

    def entry(self) -> str:
        """Return any of its entries, not too near its ends for a full page."""
        return entry_id(self.account_id, self._seq())

    def transaction(self) -> str:
        """Return any transaction of the busy reference."""
        seq = self._seq()
        return transaction_id(self.account_id, seq - (seq % RARE_EVERY == 0))

    def rare_reference(self) -> str:
        """Return a reference that one entry has; where the history is too short for it, none."""
        return f"rare_{RARE_EVERY * random.randint(1, max(1, self.entries // RARE_EVERY))}"

    def moment(self) -> str:
        """Return any moment between its first and its last entry."""
        moment = self.opened_at + random.random() * (self.moved_at - self.opened_at)
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"

    def _seq(self) -> int:
        return random.randint(min(PAGE_ITEMS, self.entries // 2) + 2, max(3, self.entries - PAGE_ITEMS))


def measure_reads(settings: Settings, accounts: Sequence[str], entries: int, workers: int) -> ReadTimes:
    """Read an account of so many entries over HTTP, one request after the other, and check the ledger.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    history = _write_history(settings, accounts[0], entries)
    paths = _paths(history)
    with (
        WorkerProcesses(settings, workers),
        ApiProcess(settings) as api,
        closing(Connection(api.address)) as connection,
        progress_bar("  reading", "requests") as progress,
    ):
        times: dict[str, tuple[float, ...]] = {}
        for done, (kind, path) in enumerate(paths.items(), start=1):
            requests = (api.address.get(path()) for _ in range(WARM_UP_REQUESTS + REQUESTS))
            times[kind] = tuple(_times(connection, requests))[WARM_UP_REQUESTS:]
            progress(done * REQUESTS, len(paths) * REQUESTS)
    expected = debited(accounts[:1], entries)
    check_ledger(settings, accounts, expected)
    return ReadTimes(history.entries, times)


def _times(connection: Connection, requests: Iterator[bytes]) -> Iterator[float]:
    for request in requests:
        answer = connection.ask(request)
        milliseconds = (connection.answered_at - connection.sent_at) * 1_000
        if answer.status != OK:
            raise BenchmarkFailed(f"a read was answered with {answer.status}: {answer.body[:500]!r}")
        yield milliseconds


def _paths(history: _History) -> dict[str, Callable[[], str]]:
    """Return for each kind of read what gives the path of a request, anywhere in the history."""
    account = f"/v1/customer-credits/accounts/{history.account_id}"
    entries = f"{account}/entries?limit={PAGE_ITEMS}"
    listing = f"/v1/customer-credits/transactions?limit={PAGE_ITEMS}&reference="
    return {
        "balance": lambda: f"{account}/balance",
        "balance_at": lambda: f"{account}/balance?at={history.moment()}",
        "entries_newest": lambda: entries,
        "entries_starting_after": lambda: f"{entries}&starting_after={history.entry()}",
        "entries_ending_before": lambda: f"{entries}&ending_before={history.entry()}",
        "reference_rare": lambda: f"{listing}{history.rare_reference()}",
        "reference_newest": lambda: f"{listing}{BUSY_REFERENCE}",
        "reference_starting_after": lambda: f"{listing}{BUSY_REFERENCE}&starting_after={history.transaction()}",
        "reference_ending_before": lambda: f"{listing}{BUSY_REFERENCE}&ending_before={history.transaction()}",
    }


def _write_history(settings: Settings, account_id: str, entries: int) -> _History:
    account = account_id.removeprefix(ACCOUNT_PREFIX)
    with (
        psycopg.connect(settings.require_database_url(), autocommit=True) as connection,
        progress_bar("  writing history", "entries") as progress,
    ):
        for done in range(0, entries, ENTRIES_PER_STATEMENT):
            steps = min(ENTRIES_PER_STATEMENT, entries - done)
            values = {"account": account, "amount": AMOUNT, "steps": steps, "apart": APART}
            connection.execute(_WRITE_HISTORY, {**values, "rare_every": RARE_EVERY, "reference": BUSY_REFERENCE})
            progress(done + steps, entries)
        # A ledger that has grown over months has been vacuumed and analysed along the way.
        connection.execute("vacuum (analyze) journal")
        span = connection.execute(_SPAN, [account]).fetchone()
    if span is None or span[2] != entries + 1:
        raise BenchmarkFailed(f"the account has {span and span[2]} entries instead of {entries + 1}")
    return _History(account_id, *span)
