"""Proves the whole ledger, as `creditlane verify` does, and keeps what was found."""

from __future__ import annotations

import time

from ....audit.whole import verify
from ....schemas.statuses import StoredProofKind
from ..runs import Outcome, Run
from ..watermark import read_watermark
from .verify_recent import Tally, reconcile, reported_findings

#: How often the progress is noted, in seconds.
NOTE_SECONDS = 2.0


def perform(run: Run) -> Outcome:
    """Prove the whole ledger as it stands now."""
    until = read_watermark(run.connection)
    report = verify(
        run.settings.require_database_url(), _Progress(run).note, is_overdue=lambda _silent_seconds: run.is_lost
    )
    tally = Tally(
        {
            "rows": report.entries + report.decisions,
            "discrepancies": report.discrepancies,
            "findings": reported_findings(report.failed),
        }
    )
    return Outcome(
        {"accounts": report.accounts, "rows": tally.rows, "discrepancies": tally.discrepancies},
        lambda connection: reconcile(connection, run, StoredProofKind.WHOLE, None, until, tally),
    )


class _Progress:
    """Notes how far the proof is, now and then."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._noted = 0.0

    def note(self, done: int, total: int) -> None:
        self._run.check()
        if time.monotonic() - self._noted >= NOTE_SECONDS:
            self._run.save({"done": done, "total": total})
            self._noted = time.monotonic()
