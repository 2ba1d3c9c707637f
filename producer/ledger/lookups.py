"""What callers look for in the ledger, checked before it is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ...lanes.encoding import invalid_command
from ...schemas.commands import AccountId, HoldId, Name, Text, TransactionId
from ...schemas.errors import InvalidCommand
from ...schemas.holds import HoldStatusName
from ...schemas.statuses import HoldStatus

_LookupT = TypeVar("_LookupT", bound="Lookup")


class Lookup(BaseModel):
    """What is looked for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)


class OfCustomer(Lookup):
    """The accounts of a customer, or of all."""

    customer_id: Text | None


class OfName(Lookup):
    """The customer's account of a name."""

    customer_id: Text
    name: Name


class OfReference(Lookup):
    """The transactions of a reference."""

    reference: Text


class OfTransaction(Lookup):
    """One transaction."""

    transaction_id: TransactionId


class OfHold(Lookup):
    """One hold."""

    hold_id: HoldId


class OfHolds(Lookup):
    """The holds of an account, or those of a status."""

    account_id: AccountId
    status: HoldStatusName | None

    @property
    def number(self) -> HoldStatus | None:
        """The status as it is stored."""
        return None if self.status is None else HoldStatus[self.status.upper()]


class OfKey(Lookup):
    """What was asked under an idempotency key."""

    idempotency_key: Text


def lookup(kind: type[_LookupT], **fields: object) -> _LookupT:
    """Return what is looked for.

    Raises:
        InvalidCommand: a field breaks its rule, so nothing in the ledger can be of it.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise invalid_command(error) from None


def valid_moment(at: object) -> datetime:
    """Return the moment in UTC; not every caller has its types checked.

    Raises:
        InvalidCommand: it is none, has no offset, or is beyond every calendar.
    """
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise InvalidCommand("at: must be a datetime with a time zone, as datetime.now(UTC) is", field="at")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InvalidCommand("at: must be between the years 1 and 9999 in UTC", field="at") from None
