"""What callers read of a hold. The rules are in `worker/ledger/holds.py`, the commands in `commands`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

#: The members of `statuses.HoldStatus`, as callers spell them; a test holds both equal.
HoldStatusName = Literal["open", "captured", "voided", "expired"]


class AccountHold(BaseModel):
    """A part of an account's balance that was set aside, at the moment it was read.

    One whose end has passed is `expired` and has nothing remaining, also where that is not written down yet.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    #: Empty where it is what a dry run would have made.
    id: str
    store_id: str
    account_id: str
    status: HoldStatusName
    amount: int
    #: What its captures took, which may be more than `amount` where one was allowed overage.
    captured: int
    #: What is set aside by it now.
    remaining: int
    reference: str
    #: When what is left of it is released by itself.
    expires_at: datetime
    created_at: datetime
    #: When it was used up, voided or had expired; None while it is open.
    ended_at: datetime | None = None
    metadata: dict[str, str] | None = None
