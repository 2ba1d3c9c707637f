"""The rows of `queries`, and the accounts, entries and transactions that clients get of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ...schemas.accounts import Account, AccountState, Entry, Transaction, features_of
from ...schemas.commands import reversed_transaction
from ...schemas.identifiers import ACCOUNT_PREFIX, Position, entry_id, transaction_id
from ...schemas.kinds import SIDE_NAMES, SPANNING, Kind, shortfall_of_entry
from ...schemas.results import moment_of
from ...schemas.statuses import Status


class AccountRow(NamedTuple):
    """An account with its latest balance. Amounts are digits, times microseconds since 1970 in UTC."""

    account_id: str
    customer_id: str
    name: str
    unit_label: str
    status: int
    balance: str
    overdraft_limit: str
    metadata: str | None
    created_us: int
    updated_us: int
    #: When its latest entry was made, or it was opened.
    moved_us: int
    low_balance: str | None
    #: What its open holds set aside.
    held: str
    #: What no credit may take the balance above.
    max_balance: str | None

    @property
    def state(self) -> AccountState:
        """What is on it, as the ledger would decide by it."""
        features = features_of(int(self.held), None)
        return AccountState(self.status, int(self.balance), int(self.overdraft_limit), features=features)

    @property
    def status_name(self) -> str:
        """The status as callers read it."""
        return Status(self.status).name.lower()

    def decoded_metadata(self) -> dict[str, str] | None:
        """Return what was attached when it was opened."""
        return msgspec.json.decode(self.metadata) if self.metadata else None


class EntryRow(NamedTuple):
    """An entry, as columns of the journal. Amounts are digits, times microseconds since 1970 in UTC."""

    account_id: str
    seq: int
    kind: int
    side: int
    amount: str
    balance_after: str
    reference: str | None
    #: None on a further entry of a transaction, if it was not read by itself.
    idempotency_key: str | None
    reversal_of: int | None
    created_at_us: int
    transaction_account: Any
    transaction_seq: int | None
    content: str | None

    @property
    def position(self) -> Position:
        """Where the entry stands."""
        return Position(self.account_id, self.seq)

    @property
    def id(self) -> str:
        """The entry's id."""
        return entry_id(self.account_id, self.seq)

    @property
    def transaction_id(self) -> str:
        """The id of the transaction that it is of."""
        if self.transaction_seq is None:
            return transaction_id(self.account_id, self.seq)
        return transaction_id(ACCOUNT_PREFIX + self.transaction_account.hex, self.transaction_seq)

    @property
    def original_id(self) -> str | None:
        """Of the first entry of a reversal: the transaction it undoes."""
        return transaction_id(self.account_id, self.reversal_of) if self.reversal_of else None

    def metadata(self) -> dict[str, str] | None:
        """Return what was attached to the transaction whose first entry this is; of an opening it is the account's."""
        return None if self.kind == Kind.OPEN_ACCOUNT else self._decoded_content().get("metadata")

    def shortfall(self) -> int | None:
        """Return how much less than asked for it took; None where it was not to take less."""
        return shortfall_of_entry(self.kind, int(self.amount), self._decoded_content()) if self.content else None

    def positions(self) -> list[Position]:
        """Return where all entries of the transaction are whose first entry this is."""
        entries = self._decoded_content().get("entries") if self.kind in SPANNING else None
        return [Position(entry["account_id"], entry["seq"]) for entry in entries] if entries else [self.position]

    def _decoded_content(self) -> dict[str, Any]:
        return msgspec.json.decode(self.content) if self.content else {}


class TransactionRows(NamedTuple):
    """A transaction: its first entry, and all of them."""

    first: EntryRow
    entries: Sequence[EntryRow]


def account_row(row: Sequence[Any]) -> AccountRow:
    """Return what Postgres gave for an account."""
    return AccountRow(ACCOUNT_PREFIX + row[0].hex, *row[1:])


def entry_row(row: Sequence[Any]) -> EntryRow:
    """Return what Postgres gave for an entry."""
    return EntryRow(ACCOUNT_PREFIX + row[0].hex, *row[1:])


def account_of(row: AccountRow, store_id: str) -> Account:
    """Return the account of this store."""
    state = row.state
    return Account.model_validate(
        {
            "id": row.account_id,
            "store_id": store_id,
            "customer_id": row.customer_id,
            "name": row.name,
            "unit_label": row.unit_label,
            "status": row.status_name,
            "balance": state.balance,
            "held": state.held,
            "available": state.available,
            "overdraft_limit": state.overdraft_limit,
            "created_at": moment_of(row.created_us),
            "updated_at": moment_of(row.updated_us),
            "metadata": row.decoded_metadata(),
            "low_balance": None if row.low_balance is None else int(row.low_balance),
            "max_balance": None if row.max_balance is None else int(row.max_balance),
        }
    )


def entry_of(row: EntryRow, idempotency_key: str | None = None) -> Entry:
    """Return the entry, of a transaction that has this key if the row does not have it."""
    key = row.idempotency_key or idempotency_key or ""
    return Entry.model_validate(
        {
            "id": row.id,
            "transaction_id": row.transaction_id,
            "account_id": row.account_id,
            "side": SIDE_NAMES[row.side],
            "amount": int(row.amount),
            "balance_after": int(row.balance_after),
            "reference": row.reference or "",
            "idempotency_key": key,
            "reversal_of": reversed_transaction(key) if row.kind == Kind.REVERSE else None,
            "created_at": moment_of(row.created_at_us),
        }
    )


def transaction_of(rows: TransactionRows, store_id: str) -> Transaction:
    """Return the transaction of this store."""
    first = rows.first
    return Transaction(
        id=first.transaction_id,
        store_id=store_id,
        reference=first.reference or "",
        idempotency_key=first.idempotency_key or "",
        reversal_of=first.original_id,
        entries=tuple(entry_of(entry, first.idempotency_key) for entry in rows.entries),
        metadata=first.metadata(),
        created_at=moment_of(first.created_at_us),
        shortfall=first.shortfall(),
    )
