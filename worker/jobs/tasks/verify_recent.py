"""Proves the rows that are new since it was last done, in pieces: the cost is that of the new rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog
from psycopg.types.json import Jsonb

from ....audit.findings import CheckReport
from ....audit.recent import PeriodReport, verify_period
from ....schemas.statuses import StoredProofKind
from ..database import Connection
from ..runs import Outcome, Run
from ..watermark import read_watermark

#: How much time one piece covers; one without rows is followed by one twice as long.
PIECE = timedelta(minutes=10)

#: Where the last one ended; the first begins with the ledger.
READ_MARK = f"""
select coalesce(
    (select covered_until from reconciliations where kind = {StoredProofKind.RECENT:d}
     order by finished_at desc, run_id desc limit 1),
    (select created_at from installation)
)
"""  # noqa: S608

INSERT_RECONCILIATION = """
insert into reconciliations (run_id, kind, covered_from, covered_until, rows, discrepancies, findings)
values (%(run_id)s, %(kind)s, %(since)s, %(until)s, %(rows)s, %(discrepancies)s, %(findings)s)
"""

_log = structlog.get_logger(__name__)


def perform(run: Run) -> Outcome:
    """Prove every row from the last mark to the watermark, and set the mark there."""
    since, until = _period(run)
    tally = Tally(run.progress)
    mark = datetime.fromisoformat(run.progress["mark"]) if run.progress else since
    piece = PIECE
    while mark < until:
        run.check()
        end = min(until, mark + piece)
        # What is in the future belongs to no piece, and is reported once.
        report = verify_period(run.connection, mark, end, with_future=mark == since)
        tally.add(report)
        piece = PIECE if report.rows else 2 * piece
        mark = end
        run.save({"since": since.isoformat(), "until": until.isoformat(), "mark": mark.isoformat(), **tally.numbers})
    return Outcome(
        {"rows": tally.rows, "discrepancies": tally.discrepancies, "until": until.isoformat()},
        lambda connection: reconcile(connection, run, StoredProofKind.RECENT, since, until, tally),
    )


def _period(run: Run) -> tuple[datetime, datetime]:
    """Return the period of this run; one that was taken over keeps the one it began with."""
    if run.progress:
        return datetime.fromisoformat(run.progress["since"]), datetime.fromisoformat(run.progress["until"])
    (since,) = run.connection.execute(READ_MARK).fetchone() or (None,)
    # A clock that went back takes the mark back with it: rows that are made now are before the old one.
    return since, read_watermark(run.connection)


class Tally:
    """What the pieces of a reconciliation found in all."""

    def __init__(self, progress: dict[str, Any]) -> None:
        self.rows: int = progress.get("rows", 0)
        self.discrepancies: int = progress.get("discrepancies", 0)
        #: The checks that found something, as they are kept.
        self.findings: list[dict[str, Any]] = progress.get("findings", [])

    @property
    def numbers(self) -> dict[str, Any]:
        """What `Tally` goes on from."""
        return {"rows": self.rows, "discrepancies": self.discrepancies, "findings": self.findings}

    def add(self, report: PeriodReport) -> None:
        """Add what a piece found, and log it."""
        self.rows += report.rows
        self.discrepancies += report.discrepancies
        self.findings += reported_findings(report.failed)


def reported_findings(failed: list[CheckReport]) -> list[dict[str, Any]]:
    """Return the checks that found something as they are kept, and log each as an error."""
    for check in failed:
        _log.error(
            "the books are not right",
            check=check.name,
            claim=check.claim,
            discrepancies=check.discrepancies,
            examples=[example.model_dump() for example in check.examples],
        )
    return [check.model_dump() for check in failed]


def reconcile(
    connection: Connection, run: Run, kind: StoredProofKind, since: datetime | None, until: datetime, tally: Tally
) -> None:
    """Keep what a reconciliation found."""
    connection.execute(
        INSERT_RECONCILIATION,
        {
            "run_id": run.run_id,
            "kind": int(kind),
            "since": since,
            "until": until,
            "rows": tally.rows,
            "discrepancies": tally.discrepancies,
            "findings": Jsonb(tally.findings),
        },
    )
