"""Reads the ledger in Postgres, for the asyncio client; connects at the first read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from ....schemas.accounts import Account, BalanceAt, Entry, Transaction
from ....schemas.errors import TransactionNotFound
from ....schemas.holds import AccountHold
from ....schemas.installation import READ_INSTALLATION, Installation, check_installation
from ....schemas.results import Result
from ....schemas.settings import Settings
from ....schemas.statuses import HoldStatus
from ....schemas.tickets import Ticket
from ...ledger import command_reads
from ...ledger import holds as hold_reads
from ...ledger import reads as ledger_reads
from ...ledger.queries import of_named_store
from ...ledger.read_limits import MAX_CONNECTIONS, read_until
from ...ledger.read_steps import Query, Reading, perform_async
from ...ledger.rows import account_of, entry_of, transaction_of
from ...ledger.statement import Rows, Statement
from ...ledger.watermark import Watermark
from ..clocks import Clocks
from ..resolve import keys_of, resolve_all

if TYPE_CHECKING:
    from .ledger_pool import AsyncLedgerPool

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
        self._watermark = Watermark()
        self._lock = Lock()
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
        rows = await self._read(command_reads.FIND_DECISIONS, {"store": store, "keys": keys}, until)
        if rows:
            self._clocks.note_postgres(command_reads.postgres_time(rows), asked)
        known = {row.idempotency_key: row for row in map(command_reads.journal_row, rows)}
        missing = [key for key in keys if key not in known]
        lookup = {"store": store, "keys": missing}
        letters = await self._read(command_reads.FIND_DEAD_LETTERS, lookup, until) if missing else []
        return resolve_all(tickets, known, map(command_reads.DeadLetterRow._make, letters))

    async def account(self, account_id: str, timeout_seconds: float | None = None) -> Account:
        """Return the account, or raise AccountNotFound."""
        row = await self._perform(ledger_reads.account(account_id), timeout_seconds)
        return account_of(row, self._settings.store)

    async def open_account(self, customer_id: str, name: str, timeout_seconds: float | None = None) -> Account | None:
        """Return the customer's account of this name that is not closed, or None."""
        row = await self._perform(ledger_reads.open_account(customer_id, name), timeout_seconds)
        return None if row is None else account_of(row, self._settings.store)

    async def accounts(self, customer_id: str | None, limit: int | None) -> AsyncIterator[Account]:
        """Yield the accounts of the customer, or of all, newest first, a page at a time."""
        async for row in self._pages(ledger_reads.accounts_of(customer_id), limit, ledger_reads.PAGE_ITEMS):
            yield account_of(row, self._settings.store)

    async def balance_at(self, account_id: str, at: datetime, timeout_seconds: float | None = None) -> BalanceAt:
        """Return the account's balance at the moment, or raise AccountNotFound."""
        reading = ledger_reads.balance_at(account_id, at, self._watermark)
        balance, as_of = await self._perform(reading, timeout_seconds)
        return BalanceAt(balance=balance, as_of=as_of)

    async def transaction(self, transaction_id: str, timeout_seconds: float | None = None) -> Transaction:
        """Return the transaction, or raise TransactionNotFound."""
        rows = await self._perform(ledger_reads.transaction(transaction_id), timeout_seconds)
        if rows is None:
            message = "There is no such transaction in this store; check the id."
            raise TransactionNotFound(message, details={"transaction_id": transaction_id})
        return transaction_of(rows, self._settings.store)

    async def transactions(self, reference: str, limit: int | None) -> AsyncIterator[Transaction]:
        """Yield the transactions of the reference, newest first, a page at a time."""
        page_after = ledger_reads.transactions_of(reference)
        async for rows in self._pages(page_after, limit, ledger_reads.PAGE_TRANSACTIONS):
            yield transaction_of(rows, self._settings.store)

    async def hold(self, hold_id: str, timeout_seconds: float | None = None) -> AccountHold:
        """Return the hold, or raise HoldNotFound."""
        row = await self._perform(hold_reads.known_hold(hold_id), timeout_seconds)
        return hold_reads.hold_of(row, self._settings.store)

    async def holds(self, account_id: str, status: HoldStatus | None, limit: int | None) -> AsyncIterator[AccountHold]:
        """Yield the account's holds, or those of a status, as `entries` does."""
        async for row in self._pages(hold_reads.holds_of(account_id, status), limit, ledger_reads.PAGE_ITEMS):
            yield hold_reads.hold_of(row, self._settings.store)

    async def touches(self, transaction_id: str, account_id: str, timeout_seconds: float | None = None) -> bool:
        """Tell whether the store has this transaction, with an entry on this account."""
        values = command_reads.touched_values(transaction_id, account_id)
        rows = await self._read(command_reads.FIND_TOUCHED, values, read_until(timeout_seconds))
        return bool(rows)

    async def entries(self, account_id: str, limit: int | None) -> AsyncIterator[Entry]:
        """Yield the account's entries, newest first, a page at a time; raise AccountNotFound if there is no account."""
        async for row in self._pages(ledger_reads.entries_of(account_id), limit, ledger_reads.PAGE_ITEMS):
            yield entry_of(row)

    async def run(self, statement: Statement[_T]) -> _T:
        """Return the outcome of a statement, which may change what is no part of the journal.

        Raises:
            OutcomeUnknown: it may be done: Postgres did not answer to the commit.
        """
        rows: Rows = []
        pool = await self._sessions()
        async with pool.transaction(read_until()) as session:
            for text in statement.texts:
                cursor = await session.execute(text, statement.values)
                rows = await cursor.fetchall()
        return statement.outcome(rows)

    async def close(self) -> None:
        """Close every connection."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def _perform(self, reading: Reading[_T], timeout_seconds: float | None = None) -> _T:
        until = read_until(timeout_seconds)

        async def ask(query: Query) -> Rows:
            return await self._read(of_named_store(query.statement), query.values, until)

        return await perform_async(reading, ask)

    async def _pages(self, page_after: ledger_reads.PageAfter[_T], limit: int | None, most: int) -> AsyncIterator[_T]:
        """Yield so many items, asking for no more than `most` of them at once."""
        last, wanted = None, limit
        while wanted is None or wanted > 0:
            count = most if wanted is None else min(wanted, most)
            page = await self._perform(page_after(last, count))
            for item in page.items:
                yield item
            if page.last is None:
                return
            last = page.last
            wanted = None if wanted is None else wanted - count

    async def _read(self, statement: str, values: Mapping[str, Any], until: float | None = None) -> Rows:
        given = {"store": self._settings.store, **values}
        pool = await self._sessions()
        return await pool.rows(statement, given, read_until() if until is None else until)

    async def _sessions(self) -> AsyncLedgerPool:
        from .ledger_pool import AsyncLedgerPool

        with self._lock:
            if self._pool is None:
                self._pool = AsyncLedgerPool(self._settings.require_database_url(), max_size=MAX_CONNECTIONS)
            pool = self._pool
        # Another task may be opening it, which is waited for.
        await pool.open()
        return pool
