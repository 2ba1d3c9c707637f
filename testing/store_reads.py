"""What callers read of a store's ledger in memory: accounts, entries, transactions, and balances of the past."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

from ..producer.ledger.holds import HoldRow, hold_of
from ..producer.ledger.rows import AccountRow, EntryRow, TransactionRows, account_of, entry_of, transaction_of
from ..schemas.accounts import NO_FEATURES, Account, BalanceAt, Entry, Transaction
from ..schemas.errors import AccountNotFound, HoldNotFound, TransactionNotFound
from ..schemas.holds import AccountHold, HoldStatusName
from ..schemas.identifiers import TRANSACTION_PREFIX, Position, hold_position_of, position_of
from ..schemas.journal import JournalRow
from ..schemas.statuses import HoldStatus
from .clock import microseconds_of
from .store_ledger import StoreLedger

#: Balances of the past are of whole milliseconds, each with all that is in it.
_RESOLUTION = timedelta(milliseconds=1)


def account(ledger: StoreLedger, account_id: str) -> Account:
    """Return the account.

    Raises:
        AccountNotFound: the store has none of this id.
    """
    opened, state = ledger.accounts.get(account_id), ledger.state(account_id)
    if opened is None:
        raise AccountNotFound(details={"account_id": account_id})
    entries, features = ledger.entries(account_id), state.features or NO_FEATURES
    row = AccountRow(
        account_id,
        opened.customer_id,
        opened.name,
        opened.unit_label,
        state.status,
        str(state.balance),
        str(state.overdraft_limit),
        opened.metadata,
        opened.created_at_us,
        opened.updated_at_us,
        entries[-1].created_at_us if entries else opened.created_at_us,
        None if features.low_balance is None else str(features.low_balance),
        str(ledger.held(account_id)),
        None if features.max_balance is None else str(features.max_balance),
    )
    return account_of(row, ledger.store_id)


def accounts(ledger: StoreLedger, customer_id: str | None) -> Iterator[Account]:
    """Yield the accounts of the customer, or of all, newest first."""
    for account_id, opened in reversed(list(ledger.accounts.items())):
        if customer_id in {None, opened.customer_id}:
            yield account(ledger, account_id)


def entries(ledger: StoreLedger, account_id: str) -> Iterator[Entry]:
    """Yield the account's entries, newest first; raises AccountNotFound."""
    account(ledger, account_id)
    for row in reversed(list(ledger.entries(account_id))):
        yield entry_of(_entry_row(row), _first_of(ledger, row).idempotency_key)


def transaction(ledger: StoreLedger, identifier: str) -> Transaction:
    """Return the transaction.

    Raises:
        TransactionNotFound: the store has none of this id.
    """
    first = first_entry(ledger, identifier)
    if first is None:
        message = "There is no such transaction in this store; check the id."
        raise TransactionNotFound(message, details={"transaction_id": identifier})
    return _transaction_of(ledger, first)


def transactions(ledger: StoreLedger, reference: str) -> Iterator[Transaction]:
    """Yield the transactions of the reference, newest first."""
    for row in reversed(list(ledger.journal)):
        if row.reference == reference and row.seq > 0 and row.transaction_seq is None:
            yield _transaction_of(ledger, row)


def hold(ledger: StoreLedger, identifier: str) -> AccountHold:
    """Return the hold as it is now.

    Raises:
        HoldNotFound: the store has none of this id.
    """
    position = hold_position_of(identifier)
    if position is None or position.seq not in ledger.holds(position.account_id):
        raise HoldNotFound(details={"hold_id": identifier})
    return _hold_of(ledger, position)


def holds(ledger: StoreLedger, account_id: str, status: HoldStatusName | None) -> Iterator[AccountHold]:
    """Yield the account's holds, or those of a status, newest first; raises AccountNotFound."""
    account(ledger, account_id)
    for number in reversed(list(ledger.holds(account_id))):
        found = _hold_of(ledger, Position(account_id, number))
        if status in {None, found.status}:
            yield found


def first_entry(ledger: StoreLedger, identifier: str) -> JournalRow | None:
    """Return the first entry of the transaction of this id; the id of a further entry is none of a transaction."""
    position = position_of(identifier) if identifier.startswith(TRANSACTION_PREFIX) else None
    row = None if position is None else ledger.entry(position)
    return row if row is not None and row.transaction_seq is None else None


def touches(ledger: StoreLedger, identifier: str, account_id: str) -> bool:
    """Return whether the store has this transaction, with an entry on this account."""
    first = first_entry(ledger, identifier)
    return first is not None and any(position.account_id == account_id for position in _entry_row(first).positions())


def balance_at(ledger: StoreLedger, account_id: str, at: datetime, now: datetime) -> BalanceAt:
    """Return the balance after everything up to and including the moment, or the present one if that is earlier.

    Raises:
        AccountNotFound: the store has no such account.
    """
    account(ledger, account_id)
    moment = min(at, now)
    as_of = moment - timedelta(microseconds=moment.microsecond % 1_000)
    before_us = microseconds_of(as_of + _RESOLUTION)
    balances = [row.balance_after for row in ledger.entries(account_id) if row.created_at_us < before_us]
    return BalanceAt(balance=balances[-1] if balances else 0, as_of=as_of)


def _hold_of(ledger: StoreLedger, position: Position) -> AccountHold:
    state, made = ledger.holds(position.account_id)[position.seq], ledger.row_of_hold(position)
    has_ended = state.status == HoldStatus.OPEN and state.expires_at_us <= microseconds_of(ledger.now())
    row = HoldRow(
        position.account_id,
        position.seq,
        HoldStatus.EXPIRED if has_ended else state.status,
        str(state.amount),
        str(state.captured),
        "0" if has_ended else str(state.remaining),
        state.reference,
        state.expires_at_us,
        state.created_at_us,
        state.expires_at_us if has_ended else state.ended_at_us,
        made.content,
    )
    return hold_of(row, ledger.store_id)


def _transaction_of(ledger: StoreLedger, first: JournalRow) -> Transaction:
    row = _entry_row(first)
    rows = [_entry_row(found) for position in row.positions() if (found := ledger.entry(position)) is not None]
    return transaction_of(TransactionRows(row, rows), ledger.store_id)


def _first_of(ledger: StoreLedger, row: JournalRow) -> JournalRow:
    """Return the first entry of the transaction that this entry is of."""
    if row.transaction_account is None or row.transaction_seq is None:
        return row
    return ledger.entry(Position(row.transaction_account, row.transaction_seq)) or row


def _entry_row(row: JournalRow) -> EntryRow:
    return EntryRow(
        account_id=row.account_id,
        seq=row.seq,
        kind=row.kind,
        side=row.side,
        amount=str(row.amount),
        balance_after=str(row.balance_after),
        reference=row.reference,
        idempotency_key=row.idempotency_key or None,
        reversal_of=row.reversal_of,
        created_at_us=row.created_at_us,
        transaction_account=None if row.transaction_account is None else UUID(row.transaction_account[4:]),
        transaction_seq=row.transaction_seq,
        content=row.content,
    )
