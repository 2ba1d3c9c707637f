"""Webhook endpoints, their deliveries and the events they carry, as callers give and read them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .commands import MAX_NAME_CHARACTERS, WITHOUT_NUL
from .events import EVENT_TYPES, EventType
from .urls import TargetUrl

#: Most endpoints of one store.
MAX_ENDPOINTS = 100
#: For how long the previous secret still signs beside the new one, in hours.
ROTATION_HOURS = 24

EndpointStatus = Literal["enabled", "disabled"]
DeliveryStatus = Literal["pending", "delivered", "failed"]


def _each_once(events: tuple[EventType, ...]) -> tuple[EventType, ...]:
    return tuple(dict.fromkeys(events))


EndpointName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS, pattern=WITHOUT_NUL)]
#: Which events an endpoint gets; none named: every one.
Events = Annotated[
    # Not strict: a list in JSON, whatever iterates in Python.
    tuple[EventType, ...],
    Field(max_length=len(EVENT_TYPES), strict=False),
    AfterValidator(_each_once),
]


class NewWebhook(BaseModel):
    """What an endpoint is made of."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: TargetUrl
    name: EndpointName | None = None
    events: Events = ()


class WebhookChange(BaseModel):
    """What is to be different about an endpoint; a field that is not given stays as it is."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    #: Only where given does a field count, so these stand for nothing.
    url: TargetUrl = ""
    #: None takes the name away.
    name: EndpointName | None = None
    events: Events = ()
    status: EndpointStatus = "enabled"


class Webhook(BaseModel):
    """An endpoint: where a store wants to hear of what happens in it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    id: str
    store_id: str
    name: str | None
    url: str
    status: EndpointStatus
    #: Empty: every event.
    events: tuple[EventType, ...]
    created_at: datetime
    updated_at: datetime
    #: Why it was disabled without being asked to.
    disabled_reason: str | None
    #: Since when every attempt to deliver has failed; None: the latest one did not.
    failing_since: datetime | None
    #: What deliveries are signed with. Only where it was just made: nothing shows it again.
    secret: str | None = Field(default=None, repr=False)


class Delivery(BaseModel):
    """One event on its way to one endpoint, and how the latest attempt went."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    #: What receivers get as `webhook-id`: the same in every attempt.
    event_id: str
    #: None: the event is not kept any more.
    event_type: str | None
    status: DeliveryStatus
    attempts: int
    #: None: there was no response.
    response_status: int | None
    latency_ms: int | None
    #: The beginning of it.
    response_body: str | None
    #: Why there was no response.
    error: str | None
    #: Of a pending one.
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    created_at: datetime
    #: Of a callback: where it goes.
    url: str | None


class DeliveryWithBody(Delivery):
    """A delivery and what is sent, byte for byte."""

    body: str | None
