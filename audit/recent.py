"""Proves the rows of a period against their neighbours, at a cost that does not grow with the ledger; writes nothing.

What only the whole of an account can show is left to `whole`: that it was opened once, that its state is what
its history led to, that the books balance, that no entry is reversed twice.

All of a period is judged as it stood at one moment, in one repeatable-read transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from pydantic import BaseModel

from . import recent_sql as sql
from .findings import CHECKS, CheckReport, Findings, Judged
from .whole_sql import FUTURE, STORES

#: What the rows of a period and their neighbours can show.
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
        "partial_debit",
        "closing",
        "decided_balance",
        "decision_place",
        "reversal_original",
        "reversal_amount",
        "reversal_of_reversal",
        "reversal_repeated",
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


def verify_period(
    connection: psycopg.Connection[Any], since: datetime, until: datetime, *, with_future: bool = True
) -> PeriodReport:
    """Prove the rows that were made from `since` on and before `until`, all of which must be committed.

    Rows in the future are in no period that is over: they are read as well, but for `with_future`. The connection
    must be in no transaction.
    """
    findings = Findings(RECENT_CHECKS)
    period = {"since": since, "until": until}
    with _one_snapshot(connection):
        # Compiling costs more than these statements.
        connection.execute("set local jit = off")
        entries, decisions = connection.execute(sql.COUNT_ROWS, period).fetchone() or (0, 0)
        # The future first: it may be past when the others are through.
        statements = [FUTURE] if with_future else []
        if entries or decisions:
            statements += sql.CHECKS
        if statements:
            findings.stores = dict(connection.execute(STORES).fetchall())
        for statement in statements:
            for finding in connection.cursor().stream(statement, period):
                findings.add(*finding)
    return PeriodReport(entries=entries, decisions=decisions, checks=findings.checks)


@contextmanager
def _one_snapshot(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Begin a transaction that only reads, and in which nothing moves; the connection is as before afterwards."""
    before = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction():
            yield
    finally:
        # A connection that is lost cannot be set, and is of no use any more.
        if connection.info.transaction_status == TransactionStatus.IDLE:
            connection.isolation_level, connection.read_only = before
