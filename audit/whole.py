"""Proves the books: recomputes everything that the whole ledger claims, from the rows alone, and writes nothing.

All of it happens in one repeatable-read transaction, so a ledger that is in use is judged as it stood at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from pydantic import BaseModel

from ..lanes.postgres.errors import translated
from ..lanes.postgres.sessions import IsOverdue, Limits, connect, silent_for
from ..lanes.postgres.start_check import check_ledger
from . import whole_sql as sql
from .findings import CHECKS, CheckReport, Findings, Judged

#: Rows that one range of accounts aims at: enough to make round trips cheap, little enough to sort in memory.
ROWS_PER_RANGE = 50_000
#: How long one statement may take, in seconds: counting the rows of a very large ledger takes minutes.
MAX_SILENCE_SECONDS = 1_800.0
#: What the session is called in Postgres.
SESSION_NAME = "creditlane-verify"
#: One snapshot for all of it, which takes as long as it takes.
LIMITS = Limits(read_only=True, isolation=psycopg.IsolationLevel.REPEATABLE_READ)


class VerificationReport(Judged, BaseModel):
    """What a verification read and what it found."""

    stores: int = 0
    accounts: int = 0
    #: Journal rows that moved money.
    entries: int = 0
    #: Journal rows that moved none: rejections and changes of state.
    decisions: int = 0
    checks: list[CheckReport]


#: Gets the journal rows that are proven and the journal rows there are.
Progress = Callable[[int, int], None]

AccountKey = tuple[int, UUID]
_BEFORE_ALL: AccountKey = (-(2**31), UUID(int=0))
_AFTER_ALL: AccountKey = (2**31 - 1, UUID(int=2**128 - 1))


class _Range(NamedTuple):
    """All accounts after one and up to another."""

    after: AccountKey
    last: AccountKey

    @property
    def parameters(self) -> dict[str, Any]:
        (after_store, after_account), (last_store, last_account) = self
        return {
            "after_store": after_store,
            "after_account": after_account,
            "last_store": last_store,
            "last_account": last_account,
        }


class _StoreTotals:
    """What the entries of one store moved, and what its accounts hold now."""

    moved = 0
    held = 0


def verify(
    database_url: str,
    progress: Progress | None = None,
    *,
    rows_per_range: int = ROWS_PER_RANGE,
    is_overdue: IsOverdue | None = None,
) -> VerificationReport:
    """Prove the whole ledger and report every discrepancy.

    Postgres is waited for until `is_overdue` says otherwise; left out, for `MAX_SILENCE_SECONDS` in one statement.

    Raises:
        ConfigurationError: it is none that can hold a ledger.
        NotMigrated: the database has not the schema that this code knows.
        DeniedByRole: the role may not read all of it.
        Unavailable: the database cannot be reached.
    """
    with translated("client", "owner"), connect(database_url, name=SESSION_NAME, limits=LIMITS) as connection:
        connection.is_overdue = is_overdue or silent_for(MAX_SILENCE_SECONDS)
        with connection.transaction():
            return _Verification(connection, rows_per_range).run(progress or (lambda _done, _total: None))


class _Verification:
    """One pass over the ledger, range by range, in one transaction."""

    def __init__(self, connection: psycopg.Connection[Any], rows_per_range: int) -> None:
        self._connection = connection
        self._rows_per_range = rows_per_range
        self._findings = Findings(CHECKS)
        self._report = VerificationReport(checks=self._findings.checks)
        self._totals: dict[int, _StoreTotals] = {}

    def run(self, progress: Progress) -> VerificationReport:
        check_ledger(self._connection, None)
        # Compiling costs more than these statements; sorting a range on disk costs more than its memory.
        self._connection.execute("set local jit = off")
        self._connection.execute("set local work_mem = '64MB'")
        self._findings.stores = dict(self._connection.execute(sql.STORES).fetchall())
        self._report.stores = len(self._findings.stores)
        # Before what takes long: what was in the future when the snapshot was taken may be past by the end.
        self._find(sql.FUTURE)
        total = self._scalar(sql.COUNT_ROWS)
        for accounts in self._ranges():
            self._prove(accounts)
            progress(self._report.entries + self._report.decisions, total)
        self._balance_books()
        return self._report

    def _ranges(self) -> Iterator[_Range]:
        after = _BEFORE_ALL
        while after != _AFTER_ALL:
            parameters = {**_Range(after, _AFTER_ALL).parameters, "rows": self._rows_per_range - 1}
            last = self._connection.execute(sql.NEXT_BOUND, parameters).fetchone() or _AFTER_ALL
            yield _Range(after, (last[0], last[1]))
            after = (last[0], last[1])

    def _prove(self, accounts: _Range) -> None:
        self._report.accounts += self._scalar(sql.COUNT_ACCOUNTS, accounts.parameters)
        present = self._add_up(accounts)
        for rows, statements in sql.CHECKS.items():
            for statement in statements if rows in present else ():
                self._find(statement, accounts.parameters)

    def _find(self, statement: str, parameters: dict[str, Any] | None = None) -> None:
        # Row by row: on a ledger in ruins the findings need not fit in memory.
        for finding in self._connection.cursor().stream(statement, parameters):
            self._findings.add(*finding)

    def _add_up(self, accounts: _Range) -> set[str]:
        """Add the accounts to the totals of their stores and return which sorts of rows they have."""
        present = {"all"}
        for row in self._connection.execute(sql.TOTALS, accounts.parameters):
            store_id, entries, decisions, reversals, changes, parts, limits, holding, moved, held = row
            self._report.entries += entries
            self._report.decisions += decisions
            totals = self._totals.setdefault(store_id, _StoreTotals())
            totals.moved += int(moved)
            totals.held += int(held)
            counts = {
                "decisions": decisions,
                "reversals": reversals,
                "changes": changes,
                "parts": parts,
                "limits": limits,
                "holds": holding,
            }
            present |= {name for name, count in counts.items() if count}
        return present

    def _balance_books(self) -> None:
        """Compare what moved with what is there: the system account holds the negative of the former."""
        for store_id, totals in sorted(self._totals.items()):
            if totals.moved != totals.held:
                self._findings.add("books", store_id, None, None, str(totals.moved), str(totals.held))

    def _scalar(self, statement: str, parameters: dict[str, Any] | None = None) -> int:
        row = self._connection.execute(statement, parameters).fetchone()
        return int(row[0]) if row else 0
