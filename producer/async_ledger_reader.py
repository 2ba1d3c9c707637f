"""Reads the ledger in Postgres, for the asyncio client; connects at the first read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..schemas.accounts import Account, Entry
from ..schemas.errors import AccountNotFound
from ..schemas.installation import READ_INSTALLATION, Installation, check_installation
from ..schemas.results import Result
from ..schemas.settings import Settings
from ..schemas.tickets import Ticket
from . import statements
from .clocks import Clocks
from .operations import Operation, Rows
from .postgres import MAX_CONNECTIONS, read_until
from .verdict import keys_of, verdicts

if TYPE_CHECKING:
    from .async_ledger_pool import AsyncLedgerPool

_T = TypeVar("_T")


class AsyncLedgerReader:
    """The ledger of the settings' store, as far as a client reads it; `decisions` is of whatever store its tickets are.

    Any number of tasks may use it.

    Every method raises Unavailable when Postgres cannot be reached or does not answer in time, NotMigrated when it has
    no ledger, and ConfigurationError when it is none that can hold one. A read takes `timeout_seconds` at most, or
    `postgres.READ_SECONDS` where that is not given.
    """

    def __init__(self, settings: Settings, clocks: Clocks | None = None) -> None:
        self._settings = settings
        self._clocks = clocks or Clocks()
        self._pool: AsyncLedgerPool | None = None

    async def installation(self, timeout_seconds: float | None = None) -> Installation:
        """Return what is fixed for this database, checked against the settings."""
        rows = await self._read(READ_INSTALLATION, {}, read_until(timeout_seconds))
        return check_installation(rows[0] if rows else None, self._settings.partitions)

    async def decisions(self, tickets: Sequence[Ticket], timeout_seconds: float | None = None) -> list[Result | None]:
        """Return for each ticket of one store what became of its command, None where it is not decided. Set-based."""
        if not tickets:
            return []
        until = read_until(timeout_seconds)
        store, keys = tickets[0].store_id, [key for ticket in tickets for key in keys_of(ticket)]
        asked = time.monotonic()
        rows = await self._read(statements.FIND_DECISIONS, {"store": store, "keys": keys}, until)
        if rows:
            self._clocks.note_postgres(statements.time_told(rows), asked)
        known = {row.idempotency_key: row for row in map(statements.journal_row, rows)}
        missing = [key for key in keys if key not in known]
        lookup = {"store": store, "keys": missing}
        letters = await self._read(statements.FIND_DEAD_LETTERS, lookup, until) if missing else []
        return verdicts(tickets, known, map(statements.DeadLetter._make, letters))

    async def account(self, account_id: str, timeout_seconds: float | None = None) -> Account:
        """Return the account, or raise AccountNotFound."""
        values = {"account": statements.account_uuid(account_id)}
        rows = await self._read(statements.READ_ACCOUNT, values, read_until(timeout_seconds))
        if not rows:
            raise AccountNotFound(details={"account_id": account_id})
        return statements.account_of(rows[0])

    async def touches(self, transaction_id: str, account_id: str, timeout_seconds: float | None = None) -> bool:
        """Tell whether the store has this transaction, with an entry on this account."""
        values = statements.touched_values(transaction_id, account_id)
        rows = await self._read(statements.FIND_TOUCHED, values, read_until(timeout_seconds))
        return bool(rows)

    async def entries(self, account_id: str, limit: int | None) -> AsyncIterator[Entry]:
        """Yield the account's entries, newest first, a page at a time; raise AccountNotFound if there is no account."""
        before, wanted = statements.ABOVE_EVERY_SEQ, limit
        while wanted is None or wanted > 0:
            count = statements.PAGE_ENTRIES if wanted is None else min(wanted, statements.PAGE_ENTRIES)
            account = statements.account_uuid(account_id)
            rows = await self._read(statements.READ_ENTRIES, {"account": account, "before": before, "count": count})
            if not rows and before == statements.ABOVE_EVERY_SEQ:
                await self.account(account_id)
            for row in rows:
                yield statements.entry_of(row)
            if len(rows) < count:
                return
            before = rows[-1][1]
            wanted = None if wanted is None else wanted - count

    async def run(self, operation: Operation[_T]) -> _T:
        """Return the outcome of an operation, which may change what is no part of the books.

        Raises:
            OutcomeUnknown: it may be done: Postgres did not answer to the commit.
        """
        rows: Rows = []
        pool = await self._sessions()
        async with pool.transaction(read_until()) as session:
            for statement in operation.statements:
                rows = await (await session.execute(statement, operation.values)).fetchall()
        return operation.outcome(rows)

    async def close(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def _read(self, statement: str, values: dict[str, Any], until: float | None = None) -> Rows:
        given = {"store": self._settings.store, **values}
        pool = await self._sessions()
        return await pool.rows(statement, given, read_until() if until is None else until)

    async def _sessions(self) -> AsyncLedgerPool:
        from .async_ledger_pool import AsyncLedgerPool

        if self._pool is None:
            self._pool = AsyncLedgerPool(self._settings.require_database_url(), max_size=MAX_CONNECTIONS)
        # Another task may be opening it, which is waited for.
        await self._pool.open()
        return self._pool
