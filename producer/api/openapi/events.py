"""The section `webhooks` of the OpenAPI document: what receivers get, which no operation of the API answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel

from ....schemas.events import EventType
from ..models.events import (
    AccountEvent,
    AccountLimitChangedEvent,
    BalanceLowEvent,
    CommandRejectedEvent,
    CommandResultEvent,
    CreditsConsumedEvent,
    CreditsGrantedEvent,
    CreditsReversedEvent,
    EventEnvelope,
    HoldCapturedEvent,
    HoldCreatedEvent,
    HoldExtendedEvent,
    HoldReleasedEvent,
    WebhookTestEvent,
)

#: What is sent for each event that an endpoint can ask for.
_EVENTS: dict[EventType, type[EventEnvelope]] = {
    "credits.granted": CreditsGrantedEvent,
    "credits.consumed": CreditsConsumedEvent,
    "credits.reversed": CreditsReversedEvent,
    "account.created": AccountEvent,
    "account.frozen": AccountEvent,
    "account.unfrozen": AccountEvent,
    "account.closed": AccountEvent,
    "account.limit_changed": AccountLimitChangedEvent,
    "balance.low": BalanceLowEvent,
    "hold.created": HoldCreatedEvent,
    "hold.captured": HoldCapturedEvent,
    "hold.voided": HoldReleasedEvent,
    "hold.extended": HoldExtendedEvent,
    "hold.expired": HoldReleasedEvent,
    "command.rejected": CommandRejectedEvent,
}
#: What is sent beside them: tests, and results to the `callback_url` of their commands.
_OTHERS: dict[str, type[EventEnvelope]] = {"webhook.test": WebhookTestEvent, "callback": CommandResultEvent}
#: No key comes along: receivers check the signatures. Without the mark openapi-generator makes a call to the API of
#: it, which does not compile in TypeScript.
_NOT_SERVED = {"security": [], "x-internal": True}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Any 2xx: it has arrived. Every other answer is a failure, and another attempt follows."},
    410: {"description": "It is not wanted: no other attempt follows, and an endpoint is disabled."},
}

WebhookId = Annotated[
    str, Header(alias="webhook-id", description="Id of the event: one that came before is a repetition.")
]
Timestamp = Annotated[
    str, Header(alias="webhook-timestamp", description="When the attempt began, in seconds since 1970 in UTC.")
]
Signatures = Annotated[
    str,
    Header(
        alias="webhook-signature",
        description="Signatures of Standard Webhooks over id, time and body, with spaces between them.",
    ),
]
CreemSignature = Annotated[
    str,
    Header(
        alias="creem-signature", description="HMAC-SHA256 of the body in lowercase hex, keyed by the secret's text."
    ),
]


def events_sent() -> APIRouter:
    """Return the section's requests, one for each event. They are shown and never served."""
    router = APIRouter()
    for name, model in [*_EVENTS.items(), *_OTHERS.items()]:
        router.add_api_route(
            name,
            _receiver(model),
            methods=["POST"],
            operation_id="".join(["receive", *(part.title() for part in name.replace("_", ".").split("."))]),
            summary=(model.__doc__ or "").partition(".")[0],
            description=model.__doc__,
            responses=_RESPONSES,
            response_class=Response,
            tags=["Events"],
            openapi_extra=_NOT_SERVED,
        )
    return router


def _receiver(model: type[BaseModel]) -> Callable[..., None]:
    def receive(
        body: BaseModel,
        webhook_id: WebhookId,
        webhook_timestamp: Timestamp,
        webhook_signature: Signatures,
        creem_signature: CreemSignature,
    ) -> None: ...

    # The framework makes the schema of it.
    receive.__annotations__["body"] = model
    return receive
