"""What events say of a journal row: which it makes, and the body of each. Pure.

Amounts and balances are strings of digits, moments ISO 8601 in UTC, as everywhere in the API.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ...schemas.commands import reversed_transaction
from ...schemas.events import (
    COMMAND_REJECTED,
    event_id,
    public_event_id,
)
from ...schemas.journal import JournalRow
from ...schemas.kinds import SIDE_NAMES, Kind, content_of_row, shortfall_of_row
from ...schemas.results import moment_of, moment_text, result_of_row
from .hold_events import HOLD_EVENTS, hold_object
from .low_balance import LOW_BALANCE, fallen_below, low_balance_fields

GRANTED, CONSUMED, REVERSED = "credits.granted", "credits.consumed", "credits.reversed"
LIMIT_CHANGED = "account.limit_changed"

_OBJECTS = {
    GRANTED: "customer_credits_grant",
    CONSUMED: "customer_credits_consumption",
    REVERSED: "customer_credits_reversal",
}
_encode = msgspec.json.Encoder().encode


class Event(NamedTuple):
    """One row of the table `events`."""

    store_id: int
    event_id: UUID
    event_type: str
    created_at: datetime
    body: str


class OutboxItem(NamedTuple):
    """A journal row that the outbox points at, with the account it is about."""

    row: JournalRow
    #: How many decisions its account had by then.
    sequence: int
    #: As shown, not its number.
    store: str
    #: None of an account that was never opened, and so of the further ones.
    customer_id: str | None
    name: str | None
    unit_label: str | None
    opened_at_us: int | None
    #: Below which balance the account is low, if that was set before the row and still is.
    low_balance: int | None


def iso_moment(microseconds: int) -> str:
    """Return the moment as events write it."""
    return moment_text(moment_of(microseconds))


def event_types_of(item: OutboxItem) -> Iterator[str]:
    """Yield the types of the events that this row makes."""
    row = item.row
    if row.rejection is not None:
        yield COMMAND_REJECTED
        return
    for event_type in Kind(row.kind).record.events.get(row.side, ()):
        if event_type != LOW_BALANCE or fallen_below(row, item.low_balance) is not None:
            yield event_type


def events_of(item: OutboxItem, wanted: Container[str]) -> Iterator[Event]:
    """Yield the events of this row that somebody wants."""
    row = item.row
    for event_type in event_types_of(item):
        if event_type in wanted:
            identifier = event_id(row.store_id, row.account_id, row.seq, event_type)
            body = envelope(identifier, event_type, row.created_at_us, item.sequence, _object_of(item, event_type))
            yield Event(row.store_id, identifier, event_type, moment_of(row.created_at_us), body)


def envelope(identifier: UUID, event_type: str, at_us: int, sequence: int | None, content: dict[str, Any]) -> str:
    """Return the body of an event, around what it is about."""
    return _encode(
        {
            "id": public_event_id(identifier),
            "eventType": event_type,
            "created_at": at_us // 1_000,
            "sequence": sequence,
            "object": content,
        }
    ).decode()


def _object_of(item: OutboxItem, event_type: str) -> dict[str, Any]:
    if event_type in _OBJECTS:
        return _movement(item, event_type)
    if event_type == LOW_BALANCE:
        return _low_balance(item)
    if event_type in HOLD_EVENTS:
        return _hold(item)
    if event_type == COMMAND_REJECTED:
        return _rejected_command(item)
    if event_type == LIMIT_CHANGED:
        return _limit(item)
    return {
        "id": item.row.account_id,
        "object": "customer_credits_account",
        "store_id": item.store,
        "customer_id": item.customer_id,
        "name": item.name,
        "unit_label": item.unit_label,
        "status": _status_after(item.row),
        "balance": str(item.row.balance_after),
        "created_at": iso_moment(item.opened_at_us or item.row.created_at_us),
        "occurred_at": iso_moment(item.row.created_at_us),
        "sequence": item.sequence,
    }


def _movement(item: OutboxItem, event_type: str) -> dict[str, Any]:
    row = item.row
    content = {
        "id": row.transaction_id,
        "object": _OBJECTS[event_type],
        **_account_fields(item),
        "amount_minor_units": str(row.amount),
        "balance_after_minor_units": str(row.balance_after),
        "reference": row.reference or "",
        "occurred_at": iso_moment(row.created_at_us),
        "sequence": item.sequence,
    }
    if (shortfall := shortfall_of_row(row)) is not None:
        content["shortfall_minor_units"] = str(shortfall)
    if event_type == REVERSED:
        content["side"] = SIDE_NAMES[row.side]
        # The key of a reversal names the transaction that it undoes.
        content["reversal_of"] = reversed_transaction(row.idempotency_key)
    return content


def _low_balance(item: OutboxItem) -> dict[str, Any]:
    return {
        "object": "customer_credits_balance",
        **_account_fields(item),
        **low_balance_fields(item.row, fallen_below(item.row, item.low_balance)),
        "occurred_at": iso_moment(item.row.created_at_us),
        "sequence": item.sequence,
    }


def _limit(item: OutboxItem) -> dict[str, Any]:
    content = content_of_row(item.row)
    return {
        "object": "customer_credits_limit",
        **_account_fields(item),
        "limit": content["limit"],
        "amount_minor_units": None if content["amount"] is None else str(content["amount"]),
        "balance_minor_units": str(item.row.balance_after),
        "occurred_at": iso_moment(item.row.created_at_us),
        "sequence": item.sequence,
    }


def _hold(item: OutboxItem) -> dict[str, Any]:
    return {
        **hold_object(item.row, _account_fields(item)),
        "occurred_at": iso_moment(item.row.created_at_us),
        "sequence": item.sequence,
    }


def _account_fields(item: OutboxItem) -> dict[str, Any]:
    return {
        "customer_id": item.customer_id,
        "account_id": item.row.account_id,
        "bucket_name": item.name,
        "unit_label": item.unit_label,
    }


def _rejected_command(item: OutboxItem) -> dict[str, Any]:
    row = item.row
    error = result_of_row(row).error
    return {
        "object": "command",
        "idempotency_key": row.idempotency_key,
        "kind": Kind(row.kind).word,
        "account_id": row.account_id,
        "customer_id": item.customer_id,
        "reference": row.reference,
        "amount_minor_units": None if row.amount is None else str(row.amount),
        "error": error.model_dump() if error else None,
        "occurred_at": iso_moment(row.created_at_us),
        "sequence": item.sequence,
    }


def _status_after(row: JournalRow) -> str:
    status = Kind(row.kind).record.status_after
    if status is None:
        raise ValueError(f"a {Kind(row.kind).word} leaves the account's status as it is")
    return status.name.lower()
