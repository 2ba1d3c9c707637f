"""Reads of one store, for the API: rows of Postgres become the bodies of responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from ...lanes.postgres.sessions import Row
from ...schemas.commands import REVERSAL_KEY_PREFIX
from ...schemas.identifiers import ENTRY_PREFIX, is_account_id, position_of
from ...schemas.kinds import SIDE_NAMES
from ...schemas.results import moment_of, moment_text
from ...schemas.statuses import HoldStatus
from ...schemas.time import parse_moment as moment_named
from ..ledger import holds as hold_reads
from ..ledger import reads as ledger_reads
from ..ledger.read_steps import Query, Reading, perform_async
from ..ledger.rows import AccountRow, EntryRow, TransactionRows
from .auth import Store
from .connections import Connections
from .errors import Problem
from .models.holds import HoldBody
from .models.ledger import AccountBody, BalanceBody, EntryBody, TransactionBody
from .paging import Page, Window
from .read_deadline import ReadDeadline

_T = TypeVar("_T")


class ReversalView(NamedTuple):
    """What a reversal would meet, as the books stand."""

    transaction: TransactionBody
    accounts: dict[str, AccountBody]
    #: The reversal's key is used up by an earlier attempt, applied or refused.
    is_decided: bool
    #: What partial reversals have undone.
    undone_in_parts: int

    @property
    def is_used_up(self) -> bool:
        """Whether partial reversals have undone all of it."""
        return self.undone_in_parts >= int(self.transaction.entries[0].amount)


class Reads:
    """The ledger of one store, as far as the API shows it. Raises Unavailable when Postgres cannot be read."""

    def __init__(self, connections: Connections, store: Store, read_deadline: ReadDeadline) -> None:
        self._read = connections.read
        self._known = connections.known_accounts
        self._watermark = connections.watermark
        self._store = store
        self._read_deadline = read_deadline

    @property
    def store_id(self) -> str:
        """Id of the store, as shown."""
        return self._store.public_id

    async def accounts(self, account_ids: Iterable[str]) -> dict[str, AccountBody]:
        """Return those of the accounts that the store has, by id."""
        return {row.account_id: self.body_of(row) for row in await self._account_rows(account_ids)}

    async def account(self, account_id: str) -> AccountBody | None:
        """Return the account, or None if the store has none of this id."""
        row = await self.account_row(account_id)
        return None if row is None else self.body_of(row)

    async def account_row(self, account_id: str) -> AccountRow | None:
        """Return what was read of the account, for `body_of`; None if the store has none of this id."""
        return next(iter(await self._account_rows([account_id])), None)

    def body_of(self, row: AccountRow) -> AccountBody:
        """Return the account as responses have it."""
        state = row.state
        return AccountBody(
            id=row.account_id,
            store_id=self._store.public_id,
            customer_id=row.customer_id,
            name=row.name,
            unit_label=row.unit_label,
            status=row.status_name,
            balance=row.balance,
            held=str(state.held),
            available=str(state.available),
            metadata=row.decoded_metadata(),
            created_at=moment_text(moment_of(row.created_us)),
            updated_at=moment_text(moment_of(row.updated_us)),
            low_balance=row.low_balance,
            credit_limit=row.overdraft_limit,
            max_balance=row.max_balance,
        )

    async def missing_accounts(self, account_ids: Sequence[str]) -> list[str]:
        """Return those of the ids of which the store has no account. Those that were seen before are not asked for."""
        with self._read_deadline.taken() as until:
            missing = await self._known.missing(self._store.store_id, account_ids, until)
        return [account_id for account_id in account_ids if account_id in missing]

    async def list_accounts(self, window: Window, customer_id: str | None) -> Page[AccountBody]:
        """Return a page of accounts, newest first."""
        given = dict(window.cursors())
        cursors = await self._perform(ledger_reads.account_cursors(filter(is_account_id, given.values())))
        for name, cursor in given.items():
            if cursor not in cursors:
                raise window.unknown(name)
        after, before = (cursors.get(given.get(name, "")) for name in ("starting_after", "ending_before"))
        rows = await self._perform(ledger_reads.accounts_between(customer_id, after, before, window.fetch))
        return window.page([self.body_of(row) for row in rows])

    async def balance(self, account_id: str) -> BalanceBody | None:
        """Return the current balance, or None if the store has no such account."""
        row = await self.account_row(account_id)
        if row is None:
            return None
        return BalanceBody(balance=row.balance, updated_at=moment_text(moment_of(row.moved_us)))

    async def balance_at(self, account_id: str, at: datetime) -> BalanceBody | None:
        """Return the balance after everything up to and including this moment; None if there is no such account.

        As of the latest moment that cannot change, where this one still can; `as_of` says which it is. In the future it
        is the current one, also of an account that a wrong clock has left there, which still changes as of that moment.
        """
        if await self.missing_accounts([account_id]):
            return None
        with self._read_deadline.taken() as until:
            settled = await perform_async(self._watermark.settled(at), lambda query: self._read(*query, until))
        balance, as_of = await self._perform(ledger_reads.balance_of_settled(account_id, at, settled))
        return BalanceBody(balance=balance, as_of=moment_text(as_of))

    async def list_entries(self, account_id: str, window: Window) -> Page[EntryBody]:
        """Return a page of the account's entries, newest first."""
        bounds = {"starting_after": ledger_reads.ABOVE_EVERY_SEQ, "ending_before": 0}
        cursors = list(window.cursors())
        latest = await self._perform(ledger_reads.latest_seq(account_id)) if cursors else 0
        for name, cursor in cursors:
            position = position_of(cursor) if cursor.startswith(ENTRY_PREFIX) else None
            if position is None or position.account_id != account_id or position.seq > latest:
                raise window.unknown(name)
            bounds[name] = position.seq
        above, below = bounds["ending_before"], bounds["starting_after"]
        rows = await self._perform(
            ledger_reads.entries_between(account_id, above, below, window.fetch, upwards=window.is_upwards)
        )
        return window.page([_entry_of(row) for row in rows])

    async def transaction(self, identifier: str) -> TransactionBody | None:
        """Return the transaction with all its entries, or None if the store has none of this id."""
        found = await self._perform(ledger_reads.transaction(identifier))
        return None if found is None else self._transaction_of(found)

    async def list_transactions(self, reference: str, window: Window) -> Page[TransactionBody]:
        """Return a page of the transactions of a reference, newest first."""
        cursors: dict[str, EntryRow] = {}
        for name, cursor in window.cursors():
            first = await self._perform(ledger_reads.first_entry(cursor))
            if first is None or first.reference != reference:
                raise window.unknown(name)
            cursors[name] = first
        after, before = cursors.get("starting_after"), cursors.get("ending_before")
        firsts = await self._perform(ledger_reads.first_entries_between(reference, after, before, window.fetch))
        page = window.page(firsts)
        found = await self._perform(ledger_reads.with_all_entries(page.data))
        return Page([self._transaction_of(transaction) for transaction in found], page.has_more)

    async def hold(self, identifier: str) -> HoldBody | None:
        """Return the hold, or None if the store has none of this id."""
        found = await self._perform(hold_reads.hold(identifier))
        return None if found is None else body_of_hold(found)

    async def list_holds(self, account_id: str, window: Window, status: HoldStatus | None) -> Page[HoldBody]:
        """Return a page of the account's holds, or of those of a status, newest first."""
        bounds = {"starting_after": ledger_reads.ABOVE_EVERY_SEQ, "ending_before": 0}
        for name, cursor in window.cursors():
            # One that has changed its status meanwhile goes on to be where it was.
            found = await self._perform(hold_reads.hold(cursor))
            if found is None or found.account_id != account_id:
                raise window.unknown(name)
            bounds[name] = found.seq
        above, below = bounds["ending_before"], bounds["starting_after"]
        rows = await self._perform(
            hold_reads.holds_between(account_id, status, above, below, window.fetch, upwards=window.is_upwards)
        )
        return window.page([body_of_hold(row) for row in rows])

    async def reversal_view(self, identifier: str) -> ReversalView | None:
        """Return what a reversal of the transaction would meet, or None if the store has no such transaction."""
        transaction = await self.transaction(identifier)
        if transaction is None:
            return None
        decided = await self._perform(ledger_reads.is_decided(REVERSAL_KEY_PREFIX + identifier))
        accounts = await self.accounts({entry.account_id for entry in transaction.entries})
        undone = 0 if len(transaction.entries) > 1 else await self._perform(ledger_reads.undone_in_parts(identifier))
        return ReversalView(transaction, accounts, decided, undone)

    async def _perform(self, reading: Reading[_T]) -> _T:
        async def ask(query: Query) -> list[Row]:
            with self._read_deadline.taken() as until:
                return await self._read(query.statement, {"store": self._store.store_id, **query.values}, until)

        return await perform_async(reading, ask)

    async def _account_rows(self, account_ids: Iterable[str]) -> list[AccountRow]:
        return await self._perform(ledger_reads.accounts(filter(is_account_id, account_ids)))

    def _transaction_of(self, rows: TransactionRows) -> TransactionBody:
        first = rows.first
        return TransactionBody(
            id=first.transaction_id,
            store_id=self._store.public_id,
            reference=first.reference or "",
            idempotency_key=first.idempotency_key or "",
            reversal_of=first.original_id,
            entries=[_entry_of(entry) for entry in rows.entries],
            metadata=first.metadata(),
            created_at=moment_text(moment_of(first.created_at_us)),
            shortfall=None if (shortfall := first.shortfall()) is None else str(shortfall),
        )


def _entry_of(row: EntryRow) -> EntryBody:
    return EntryBody(
        id=row.id,
        transaction_id=row.transaction_id,
        account_id=row.account_id,
        side=SIDE_NAMES[row.side],
        amount=row.amount,
        balance_after=row.balance_after,
        reference=row.reference or "",
        created_at=moment_text(moment_of(row.created_at_us)),
    )


def body_of_hold(row: hold_reads.HoldRow) -> HoldBody:
    """Return the hold as responses have it."""
    return HoldBody(
        id=row.id,
        account_id=row.account_id,
        status=row.status_name,
        amount=row.amount,
        captured=row.captured,
        remaining=row.remaining,
        reference=row.reference,
        metadata=row.metadata(),
        expires_at=moment_text(moment_of(row.expires_us)),
        created_at=moment_text(moment_of(row.created_us)),
        ended_at=None if row.ended_us is None else moment_text(moment_of(row.ended_us)),
    )


def parse_moment(text: str, param: str = "at") -> datetime:
    """Return the moment that an ISO 8601 text names, given as this parameter; without an offset it is taken as UTC.

    Raises:
        Problem: it is none.
    """
    try:
        return moment_named(text)
    except ValueError:
        message = f"{param}: must be a moment in ISO 8601, like 2026-03-01T12:30:00Z (a + in a URL is written %2B)"
        raise Problem("validation_error", message, param=param) from None
