"""What holds cost: a backlog of pairs, each a hold and the capture of all of it, over all accounts.

Every account holds first, and then captures, round after round: as calls that are going on at the same time do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg

from ..audit.whole import verify
from ..schemas.commands import Capture, Command, Hold
from ..schemas.identifiers import hold_id
from ..schemas.kinds import Kind
from ..schemas.settings import Settings
from ..schemas.statuses import HoldStatus
from .ledger_check import commands_on_lanes
from .load import AMOUNT
from .plan import BenchmarkFailed
from .scenarios import Measurement, drain

#: Holds that were made, captures of them, everything else than opened accounts and those, captured holds, other holds.
_COUNTS = f"""
select count(*) filter (where kind = {Kind.HOLD:d} and rejection is null),
       count(*) filter (where kind = {Kind.CAPTURE:d} and seq > 0 and amount = {AMOUNT} and held_after is null),
       count(*) filter (where rejection is not null
                        or kind not in ({Kind.OPEN_ACCOUNT:d}, {Kind.HOLD:d}, {Kind.CAPTURE:d})),
       (select count(*) from holds where status = {HoldStatus.CAPTURED:d} and captured = {AMOUNT}),
       (select count(*) from holds where status <> {HoldStatus.CAPTURED:d})
from journal
"""  # noqa: S608


def measure_hold_capture(settings: Settings, accounts: Sequence[str], commands: int, workers: int) -> Measurement:
    """Measure how fast a backlog of holds and their captures is drained, as `measure_drain` does that of debits.

    Each pair is two commands. The accounts have been opened and nothing else has happened on them: so it is known under
    which id each hold will be made.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    pairs = (commands + 1) // 2
    measurement = drain(settings, holds_and_captures(accounts, pairs), 2 * pairs, workers)
    _check(settings, pairs)
    return measurement


def holds_and_captures(accounts: Sequence[str], pairs: int) -> Iterator[Command]:
    """Yield the commands of so many pairs, which go round the accounts."""
    for done in range(0, pairs, len(accounts)):
        busy, number = accounts[: pairs - done], done // len(accounts) + 1
        for account in busy:
            key = f"hold_{number}_{account}"
            yield Hold(account_id=account, amount=AMOUNT, reference=f"ref_{number}", idempotency_key=key)
        for account in busy:
            yield Capture(hold_id=hold_id(account, number), idempotency_key=f"capture_{number}_{account}")


def _check(settings: Settings, pairs: int) -> None:
    with psycopg.connect(settings.require_database_url()) as connection:
        counts = connection.execute(_COUNTS).fetchone()
    expected = (pairs, pairs, 0, pairs, 0)
    if counts != expected:
        raise BenchmarkFailed(
            f"the ledger has (holds, captures, others, captured holds, other holds) {counts} instead of {expected}"
        )
    if left := commands_on_lanes(settings):
        raise BenchmarkFailed(f"{left} commands are still on the lanes")
    report = verify(settings.require_database_url())
    if report.discrepancies:
        raise BenchmarkFailed(f"verify finds {report.discrepancies} discrepancies: {report.failed[0].claim}")
