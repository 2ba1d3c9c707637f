"""Whether the rate sinks as the ledger grows: the same drains before and after millions of entries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from ..cli.output import progress_bar
from ..schemas.settings import Settings
from .ledger_check import check_ledger
from .load import AMOUNT, debits
from .scenarios import Measurement, debited, drain

#: Entries written by one statement.
ENTRIES_PER_STATEMENT = 100_000

#: So many more debits on every account, as valid history: numbered, balanced and in time, under scattered keys.
_GROW = """
insert into journal
    (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key, reference)
select accounts.store_id, 3, -1, latest.seq + step, latest.created_at + step * interval '1 microsecond',
       accounts.account_id, %(amount)s, latest.balance_after - step * %(amount)s,
       md5(accounts.account_id::text || (latest.seq + step)), 'grown'
from accounts
cross join lateral (
    select seq, balance_after, created_at from journal
    where journal.store_id = accounts.store_id and journal.account_id = accounts.account_id and seq > 0
    order by seq desc limit 1
) as latest
cross join generate_series(1, %(steps)s) as step
order by step, accounts.account_id
"""


@dataclass(frozen=True, slots=True)
class Growth:
    """The same drains on a young and on a grown ledger."""

    entries: int
    before: Measurement
    before_scattered_keys: Measurement
    after: Measurement
    after_scattered_keys: Measurement


def measure_growth(settings: Settings, accounts: Sequence[str], commands: int, workers: int, entries: int) -> Growth:
    """Drain, let the ledger grow by so many entries, rounded up to as many for each account, and drain again.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    entries_each = math.ceil(entries / len(accounts))
    before = _drain(settings, accounts, commands, workers, "young_")
    before_scattered = _drain(settings, accounts, commands, workers, "young_", scattered_keys=True)
    _grow(settings, entries_each, len(accounts))
    after = _drain(settings, accounts, commands, workers, "grown_")
    after_scattered = _drain(settings, accounts, commands, workers, "grown_", scattered_keys=True)
    drained = debited(accounts, commands)
    check_ledger(settings, accounts, Counter({account: 4 * drained[account] + entries_each for account in accounts}))
    return Growth(entries_each * len(accounts), before, before_scattered, after, after_scattered)


def _drain(
    settings: Settings,
    accounts: Sequence[str],
    commands: int,
    workers: int,
    label: str,
    *,
    scattered_keys: bool = False,
) -> Measurement:
    load = debits(accounts, commands, label=label, scattered_keys=scattered_keys)
    return drain(settings, load, commands, workers)


def _grow(settings: Settings, entries_each: int, accounts: int) -> None:
    steps = max(1, ENTRIES_PER_STATEMENT // accounts)
    with (
        psycopg.connect(settings.require_database_url(), autocommit=True) as connection,
        progress_bar("  growing", "entries") as progress,
    ):
        for done in range(0, entries_each, steps):
            connection.execute(_GROW, {"steps": min(steps, entries_each - done), "amount": AMOUNT})
            progress(min(done + steps, entries_each) * accounts, entries_each * accounts)
        # A ledger that has grown over months has been vacuumed and analysed along the way.
        connection.execute("vacuum (analyze) journal")
