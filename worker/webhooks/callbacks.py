"""The event that is sent to the `callback_url` of a command: what became of it. Pure."""

from __future__ import annotations

from typing import Any

from ...schemas.events import COMMAND_APPLIED, COMMAND_DEAD_LETTERED, COMMAND_REJECTED, callback_event_id
from ...schemas.journal import JournalRow, Refusal
from ...schemas.results import Result, moment_of, result_of_refusal, result_of_row
from .event_bodies import Event, envelope, iso_moment


def callback_event(
    store_id: int,
    account_id: str,
    idempotency_key: str,
    url: str,
    decided: JournalRow | Refusal,
    *,
    sequence: int | None,
    written_at_us: int,
) -> Event:
    """Return the event with which this URL learns what became of its command."""
    if isinstance(decided, JournalRow):
        result, at_us, decided_at = result_of_row(decided), decided.created_at_us, iso_moment(decided.created_at_us)
        identifier = callback_event_id(store_id, account_id, idempotency_key, url)
    else:
        result, at_us, decided_at = result_of_refusal(decided, account_id, idempotency_key), written_at_us, None
        # The same command can become a dead letter, be replayed and then be applied: that is more than one event.
        identifier = callback_event_id(store_id, account_id, f"{idempotency_key}\0{decided.code}", url)
    event_type = {
        "applied": COMMAND_APPLIED,
        "dead_lettered": COMMAND_DEAD_LETTERED,
    }.get(result.status, COMMAND_REJECTED)
    # The key as it was sent: a reversal that was made has another.
    content = {**_object_of_result(result), "idempotency_key": idempotency_key, "decided_at": decided_at}
    body = envelope(identifier, event_type, at_us, sequence, content)
    return Event(store_id, identifier, event_type, moment_of(at_us), body)


def _object_of_result(result: Result) -> dict[str, Any]:
    return {
        "object": "command",
        "status": result.status,
        "account_id": result.account_id,
        "idempotency_key": result.idempotency_key,
        "kind": result.kind,
        "transaction_id": result.transaction_id,
        "side": result.side,
        "amount": None if result.amount is None else str(result.amount),
        "balance": None if result.balance is None else str(result.balance),
        **({} if result.shortfall is None else {"shortfall": str(result.shortfall)}),
        "reference": result.reference,
        "reversal_of": result.reversal_of,
        "hold_id": result.hold_id,
        "error": result.error.model_dump() if result.error else None,
    }
