"""The bodies of requests and responses about webhooks. An endpoint is shown as the official client knows it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ....schemas.events import ENDPOINT_PREFIX, EVENT_PREFIX, EVENT_TYPES, MAX_URL_CHARACTERS, EventType
from ....schemas.results import moment_text
from ....schemas.urls import TargetUrl
from ....schemas.webhooks import (
    MAX_ENDPOINTS,
    ROTATION_HOURS,
    Delivery,
    DeliveryStatus,
    DeliveryWithBody,
    EndpointName,
    EndpointStatus,
    Webhook,
)
from .ledger import LEFT_OUT, Moment, RequestBody, is_absent

WEBHOOK_EXAMPLE = f"{ENDPOINT_PREFIX}8f14e45fceea167a5a36dedd4bea2543"
EVENT_EXAMPLE = f"{EVENT_PREFIX}c9f0f895fb98ab9159f51fd0297e236d"
SECRET_EXAMPLE = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD9jWVkMGKpCw="  # noqa: S105  # of nobody

Url = Annotated[
    TargetUrl,
    Field(
        description=f"Where events are POSTed to: https, at most {MAX_URL_CHARACTERS} characters. http, localhost and "
        "private addresses only if the operator allows them.",
        examples=["https://example.com/creditlane"],
    ),
]
Name = Annotated[EndpointName, Field(description="For people.", examples=["Billing"])]
EventList = Annotated[
    list[EventType],
    Field(
        max_length=len(EVENT_TYPES),
        description="Which events the endpoint gets; empty: every one.",
        examples=[["credits.granted", "credits.consumed"]],
    ),
]
Status = Annotated[EndpointStatus, Field(description="Nothing is sent to a disabled endpoint.")]
Secret = Annotated[
    str,
    Field(
        description="Verifies the signatures of deliveries. It is shown this once.",
        examples=[SECRET_EXAMPLE],
    ),
]


class CreateWebhook(RequestBody):
    """Makes an endpoint."""

    url: Url
    name: Name | None = None
    events: EventList = Field(default_factory=list)
    delivery_mode: Annotated[Literal["http"], Field(description="Events are POSTed to the URL.")] = "http"


def _without_defaults(schema: dict[str, Any]) -> None:
    """Show no defaults, which would be taken for what a field becomes that is left out: it stays as it is."""
    for field in schema["properties"].values():
        field.pop("default", None)


class UpdateWebhook(RequestBody):
    """Changes an endpoint: what is left out stays as it is."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, json_schema_extra=_without_defaults)

    url: Url = ""
    name: Annotated[Name | None, Field(description="For people; null takes it away.")] = None
    events: EventList = Field(default_factory=list)
    status: Annotated[
        EndpointStatus,
        Field(description="Enabling also forgets why it was disabled, and sends what has been waiting."),
    ] = "enabled"


class WebhookBody(BaseModel):
    """An endpoint: where the store wants to hear of what happens in it."""

    id: Annotated[str, Field(examples=[WEBHOOK_EXAMPLE])]
    object: Literal["webhook"] = "webhook"
    mode: Literal["prod"] = "prod"
    store_id: Annotated[str, Field(examples=["store_default"])]
    name: Annotated[str | None, Field(examples=["Billing"])]
    url: Annotated[str, Field(examples=["https://example.com/creditlane"])]
    delivery_mode: Literal["http"] = "http"
    status: Status
    events: Annotated[list[EventType], Field(description="Which events the endpoint gets; empty: every one.")]
    disabled_reason: Annotated[
        str | None, Field(description="Why it was disabled without being asked to: it failed for a day, or said 410.")
    ]
    failing_since: Annotated[
        Moment | None, Field(description="Since when every attempt has failed; null: the latest one did not.")
    ]
    created_at: Moment
    updated_at: Moment
    secret: Annotated[Secret | None, LEFT_OUT, Field(exclude_if=is_absent)] = None

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookBody:
        """Return the endpoint as it is shown."""
        return cls(
            id=webhook.id,
            store_id=webhook.store_id,
            name=webhook.name,
            url=webhook.url,
            status=webhook.status,
            events=list(webhook.events),
            disabled_reason=webhook.disabled_reason,
            failing_since=webhook.failing_since and moment_text(webhook.failing_since),
            created_at=moment_text(webhook.created_at),
            updated_at=moment_text(webhook.updated_at),
            secret=webhook.secret,
        )


class Pagination(BaseModel):
    """Where a page is among all of them."""

    total_records: int
    total_pages: int
    current_page: int
    next_page: int | None
    prev_page: int | None


class WebhookList(BaseModel):
    """A page of endpoints, oldest first."""

    items: list[WebhookBody]
    pagination: Pagination

    @classmethod
    def page(cls, webhooks: list[Webhook], number: int, size: int) -> WebhookList:
        """Return one page of all the endpoints."""
        pages = max(1, -(-len(webhooks) // size))
        pagination = Pagination(
            total_records=len(webhooks),
            total_pages=pages,
            current_page=number,
            next_page=number + 1 if number < pages else None,
            prev_page=number - 1 if number > 1 else None,
        )
        items = webhooks[(number - 1) * size : number * size]
        return cls(items=[WebhookBody.of(webhook) for webhook in items], pagination=pagination)


class SecretBody(BaseModel):
    """A new secret. The one before it signs beside it for a day."""

    secret: Secret


class TestEvent(BaseModel):
    """A test event that is on its way."""

    object: Literal["webhook_test"] = "webhook_test"
    event_id: Annotated[str, Field(description="Ask for its delivery by it.", examples=[EVENT_EXAMPLE])]


class DeliveryBody(BaseModel):
    """One event on its way to an endpoint, and how the latest attempt went."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: Annotated[
        str, Field(description="The header `webhook-id`: the same in every attempt.", examples=[EVENT_EXAMPLE])
    ]
    event_type: Annotated[
        str | None, Field(description="Null: the event is not kept any more.", examples=["credits.consumed"])
    ]
    status: Annotated[DeliveryStatus, Field(description="`failed`: no further attempt will be made.")]
    attempts: int
    response_status: Annotated[int | None, Field(description="Null: there was no response.", examples=[200])]
    latency_ms: Annotated[int | None, Field(examples=[35])]
    response_body: Annotated[str | None, Field(description="The beginning of it.", examples=["ok"])]
    error: Annotated[str | None, Field(description="Why there was no response.")]
    next_attempt_at: Annotated[Moment | None, Field(description="Of a pending one.")]
    last_attempt_at: Moment | None
    created_at: Moment
    url: Annotated[str | None, Field(description="Of a callback: where it goes.")]

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryBody:
        """Return the delivery as it is shown."""
        return cls(**_shown(delivery))


class DeliveryDetail(DeliveryBody):
    """A delivery and what is sent."""

    body: Annotated[
        str | None,
        Field(
            description="What is sent, byte for byte; null: it is not kept any more.",
            examples=[
                f'{{"id":"{EVENT_EXAMPLE}","eventType":"webhook.test","created_at":1706889600000,"object":{{}}}}'
            ],
        ),
    ]

    @classmethod
    def with_body(cls, delivery: DeliveryWithBody) -> DeliveryDetail:
        """Return the delivery as it is shown."""
        return cls(**_shown(delivery))


class DeliveryList(BaseModel):
    """A page of deliveries, newest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryBody]
    has_more: Annotated[bool, Field(description="Whether there are older ones.")]


class ResendFailed(RequestBody):
    """Has what failed sent again."""

    since: Annotated[
        str,
        Field(
            description="A moment in ISO 8601; UTC unless it says otherwise. Events from it on are sent again.",
            json_schema_extra={"format": "date-time"},
            examples=["2026-03-01T12:30:00Z"],
        ),
    ]


class Resent(BaseModel):
    """How many events are sent again."""

    object: Literal["webhook_resend"] = "webhook_resend"
    count: int
    has_more: Annotated[bool, Field(description="Whether there may be more: send the same request again.")]


def _shown(delivery: Delivery) -> dict[str, Any]:
    """Return the fields, with their moments as every response has them."""
    fields = delivery.model_dump()
    for name in ("next_attempt_at", "last_attempt_at", "created_at"):
        fields[name] = fields[name] and moment_text(fields[name])
    return fields


#: What the document says of the limits.
LIMITS = (
    f"A store has at most {MAX_ENDPOINTS} endpoints. After a rotation both secrets sign for {ROTATION_HOURS} hours."
)
