"""What an account is and holds: as the ledger decides by it, and as callers read it with entries and transactions.

What is available is said here, once for all that decide by it or show it.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

AccountStatus = Literal["active", "frozen", "closed"]

#: What is available of the account after a row of the journal, in SQL.
AVAILABLE_AFTER = "(balance_after - coalesce(held_after, 0) + coalesce(overdraft_limit, 0))"


class AccountFeatures(msgspec.Struct, frozen=True, gc=False):
    """What an account uses beside plain credits and debits. Most accounts have none of it, and pay nothing for it."""

    #: Part of the balance that is set aside by holds.
    held: int = 0
    #: What a credit may not take the balance above; None: it may be anything.
    max_balance: int | None = None
    #: Holds that are open.
    open_holds: int = 0
    #: A moment before which none of them ends, in microseconds since 1970; None where none is open.
    earliest_end_us: int | None = None
    #: Falling below it is sent as `balance.low`; None: never.
    low_balance: int | None = None


class AccountState(msgspec.Struct, frozen=True, gc=False):
    """An account as the ledger sees it between two commands."""

    #: A `Status`, or 0 of an id under which no account was opened.
    status: int
    balance: int
    overdraft_limit: int
    #: Number of entries, which is also the seq of the latest one. 0 where only the balance was read.
    entries: int = 0
    #: Number of decisions that moved nothing; the latest one's seq is its negative. 0 where only the balance was read.
    decisions: int = 0
    #: When the latest of both was decided, in microseconds since 1970. Time never goes back along an account.
    latest_at_us: int = 0
    #: None of an account that uses nothing beside plain credits and debits.
    features: AccountFeatures | None = None

    @property
    def held(self) -> int:
        """Part of the balance that is set aside."""
        return 0 if self.features is None else self.features.held

    @property
    def available(self) -> int:
        """What a debit may take now: the balance, less what is held of it, plus the overdraft limit."""
        if self.features is None:
            return self.balance + self.overdraft_limit
        return self.balance - self.features.held + self.overdraft_limit


def used_of_limit(balance: int, held: int) -> int:
    """Return how much of its credit limit an account uses of which this is the balance, and this is held."""
    return max(0, held - balance)


NO_FEATURES = AccountFeatures()


def features_of(held: int, max_balance: int | None, low_balance: int | None = None) -> AccountFeatures | None:
    """Return what an account uses; None where it uses nothing of it."""
    features = AccountFeatures(held, max_balance, low_balance=low_balance)
    return None if features == NO_FEATURES else features


class Account(BaseModel):
    """A customer's account and what is on it, at the moment it was read."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    store_id: str
    customer_id: str
    name: str
    unit_label: str
    status: AccountStatus
    balance: int
    #: Part of the balance that is set aside.
    held: int
    #: What a debit may take now, see `AccountState.available`.
    available: int
    #: How far below zero it may be taken. The commands that set it call it its credit limit.
    overdraft_limit: int
    created_at: datetime
    updated_at: datetime
    #: What was attached when it was opened.
    metadata: dict[str, str] | None = None
    #: Falling below it is sent to webhooks as `balance.low`; None: never.
    low_balance: int | None = None
    #: What no credit may take the balance above; None: it may be anything.
    max_balance: int | None = None

    @property
    def credit_limit(self) -> int:
        """How far below zero it may be taken."""
        return self.overdraft_limit


class Entry(BaseModel):
    """One movement on an account."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    transaction_id: str
    account_id: str
    side: Literal["credit", "debit"]
    amount: int
    balance_after: int
    reference: str
    idempotency_key: str
    #: Of a reversal: the transaction it undoes.
    reversal_of: str | None
    created_at: datetime


class Transaction(BaseModel):
    """What moved together, for one reason: one entry, or several that balance."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    store_id: str
    reference: str
    idempotency_key: str
    #: Of a reversal: the transaction it undoes.
    reversal_of: str | None
    #: In the order in which they were asked for.
    entries: tuple[Entry, ...]
    metadata: dict[str, str] | None = None
    created_at: datetime
    #: Of a debit with `allow_partial`: how much less than asked for it took, 0 where it took all. None of any other.
    shortfall: int | None = None


class BalanceAt(BaseModel):
    """What was on an account at a moment, which does not change any more."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    balance: int
    #: The moment, in UTC and whole milliseconds, all of that millisecond included. It is before the one that was asked
    #: for where that could still change.
    as_of: datetime
