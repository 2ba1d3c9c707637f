"""Proves the rows of a period against their neighbours, at a cost that does not grow with the ledger; writes nothing.

What only the whole of an account can tell is left to `verification`: that it was opened once, that its state is what
its history led to, that the books balance, that no entry is reversed twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from pydantic import BaseModel

from . import recent_sql as sql
from .findings import CHECKS, CheckReport, Findings, Judged
from .verification_sql import STORES

#: What the rows of a period and their neighbours can tell.
RECENT_CHECKS = {
    name: CHECKS[name]
    for name in (
        "entry_sequence",
        "decision_sequence",
        "running_balance",
        "overdraft_limit",
        "chronology",
        "entry_kind",
        "future",
        "refusal",
        "decided_balance",
        "decision_place",
        "reversal_original",
        "reversal_amount",
        "reversal_of_reversal",
        "reversal_whole",
        "further_entry",
        "listed_entry",
        "transaction_sum",
        "transaction_reference",
        "account_exists",
    )
}


class PeriodReport(Judged, BaseModel):
    """What the proof of a period read and what it found."""

    entries: int
    #: Rows that moved no money.
    decisions: int
    checks: list[CheckReport]

    @property
    def rows(self) -> int:
        """Number of journal rows of the period."""
        return self.entries + self.decisions


def verify_period(connection: psycopg.Connection[Any], since: datetime, until: datetime) -> PeriodReport:
    """Prove the rows that were made from `since` on and before `until`, all of which must be committed."""
    findings = Findings(RECENT_CHECKS)
    period = {"since": since, "until": until}
    with connection.transaction():
        # Compiling costs more than these statements.
        connection.execute("set local jit = off")
        entries, decisions = connection.execute(sql.COUNT_ROWS, period).fetchone() or (0, 0)
        if entries or decisions:
            findings.stores = dict(connection.execute(STORES).fetchall())
            for statement in sql.CHECKS:
                for finding in connection.cursor().stream(statement, period):
                    findings.add(*finding)
    return PeriodReport(entries=entries, decisions=decisions, checks=findings.checks)
