"""An account, its entries and its transactions, as callers read them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

AccountStatus = Literal["active", "frozen", "closed"]


class Account(BaseModel):
    """A customer's account and what is on it, at the moment it was read."""

    model_config = ConfigDict(frozen=True)

    id: str
    store_id: str
    customer_id: str
    name: str
    unit_label: str
    status: AccountStatus
    balance: int
    #: Part of the balance that is set aside.
    held: int
    #: What a debit may take now: balance, less what is held, plus the overdraft limit.
    available: int
    overdraft_limit: int
    created_at: datetime
    updated_at: datetime
    #: What was attached when it was opened.
    metadata: dict[str, str] | None = None
    #: Falling below it is told to webhooks as `balance.low`; None: never.
    low_balance: int | None = None


class Entry(BaseModel):
    """One movement on an account."""

    model_config = ConfigDict(frozen=True)

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

    model_config = ConfigDict(frozen=True)

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


class BalanceAt(BaseModel):
    """What was on an account at a moment, which does not change any more."""

    model_config = ConfigDict(frozen=True)

    balance: int
    #: The moment, in UTC and whole milliseconds, all of that millisecond included. It is before the one that was asked
    #: for where that could still change.
    as_of: datetime
