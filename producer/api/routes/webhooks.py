"""The operations on webhooks: endpoints, what was sent to them, and the secret of callbacks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from ....schemas.webhooks import DeliveryStatus, NewWebhook, WebhookChange
from ...operations import webhooks as operations
from ..deps import RequestWebhooks
from ..models.webhooks import (
    EVENT_EXAMPLE,
    LIMITS,
    WEBHOOK_EXAMPLE,
    CreateWebhook,
    DeliveryBody,
    DeliveryDetail,
    DeliveryList,
    ResendFailed,
    Resent,
    SecretBody,
    TestEvent,
    UpdateWebhook,
    WebhookBody,
    WebhookList,
)
from ..openapi.responses import changing, reading
from ..paging import DEFAULT_PAGE_ITEMS
from ..reads import parse_moment
from ..webhook_paging import PageLimit, PageNumber, PageSize, StartingAfter, page_of_deliveries
from ..writes import body_answer

#: Most failed deliveries that one request sends again.
MAX_RESENT = 20_000

router: APIRouter = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"])


WebhookPath = Annotated[str, Path(alias="id", description="Id of the endpoint.", examples=[WEBHOOK_EXAMPLE])]
EventPath = Annotated[str, Path(alias="event_id", description="Id of the event.", examples=[EVENT_EXAMPLE])]
OfStatus = Annotated[DeliveryStatus | None, Query(description="Only deliveries of this status.")]


@router.post(
    "",
    operation_id="createWebhook",
    summary="Create an endpoint",
    description=f"Have events POSTed to a URL. The answer has the secret, this once. {LIMITS}",
    responses=changing(WebhookBody, "webhook_limit_reached"),
)
async def create_webhook(body: CreateWebhook, webhooks: RequestWebhooks) -> Response:
    """Make an endpoint; what happens after the answer is sent to it."""
    wanted = operations.checked(NewWebhook, url=body.url, name=body.name, events=tuple(body.events))
    return body_answer(WebhookBody.of(await webhooks.make(wanted)))


@router.get("", operation_id="listWebhooks", summary="List endpoints", responses=reading(WebhookList))
async def list_webhooks(
    webhooks: RequestWebhooks, page_number: PageNumber = 1, page_size: PageSize = DEFAULT_PAGE_ITEMS
) -> Response:
    """List the store's endpoints, oldest first."""
    return body_answer(WebhookList.page(await webhooks.list(), page_number, page_size))


@router.get(
    "/callbacks/deliveries",
    operation_id="listCallbackDeliveries",
    summary="List the deliveries of callbacks",
    responses=reading(DeliveryList),
)
async def list_callback_deliveries(
    webhooks: RequestWebhooks,
    status: OfStatus = None,
    limit: PageLimit = DEFAULT_PAGE_ITEMS,
    starting_after: StartingAfter = None,
) -> Response:
    """List what was sent to the URLs that came with commands, newest first."""
    return body_answer(await page_of_deliveries(webhooks, None, status, limit, starting_after))


@router.get(
    "/callbacks/deliveries/{event_id}",
    operation_id="getCallbackDelivery",
    summary="Show the delivery of a callback",
    responses=reading(DeliveryDetail, "not_found"),
)
async def get_callback_delivery(event_id: EventPath, webhooks: RequestWebhooks) -> Response:
    """Show what was sent to the URL that came with a command, and how it went."""
    return body_answer(DeliveryDetail.with_body(await webhooks.delivery(None, event_id)))


@router.post(
    "/callbacks/deliveries/{event_id}/resend",
    operation_id="resendCallbackDelivery",
    summary="Send a callback again",
    responses=changing(DeliveryBody, "not_found"),
)
async def resend_callback(event_id: EventPath, webhooks: RequestWebhooks) -> Response:
    """Send a callback again at once, with all of its attempts; also one that was delivered."""
    return body_answer(DeliveryBody.of(await webhooks.resend(None, event_id)))


@router.post(
    "/callbacks/rotate-secret",
    operation_id="rotateCallbackSecret",
    summary="Make the secret of callbacks, or replace it",
    responses=changing(SecretBody),
)
async def rotate_callback_secret(webhooks: RequestWebhooks) -> Response:
    """Make the secret that the store's callbacks are signed with. The one before it signs beside it for a day."""
    return body_answer(SecretBody(secret=await webhooks.rotate_callback_secret()))


@router.get(
    "/{id}",
    operation_id="getWebhook",
    summary="Show an endpoint",
    responses=reading(WebhookBody, "not_found"),
)
async def get_webhook(webhook_id: WebhookPath, webhooks: RequestWebhooks) -> Response:
    """Show an endpoint, without its secret."""
    return body_answer(WebhookBody.of(await webhooks.get(webhook_id)))


@router.patch(
    "/{id}",
    operation_id="updateWebhook",
    summary="Change an endpoint",
    responses=changing(WebhookBody, "not_found"),
)
async def update_webhook(webhook_id: WebhookPath, body: UpdateWebhook, webhooks: RequestWebhooks) -> Response:
    """Change what is given of an endpoint. What happens after the answer is sent as it says."""
    given = body.model_dump(exclude_unset=True)
    return body_answer(WebhookBody.of(await webhooks.change(webhook_id, operations.checked(WebhookChange, **given))))


@router.delete(
    "/{id}",
    operation_id="deleteWebhook",
    summary="Delete an endpoint",
    responses=changing(WebhookBody, "not_found"),
)
async def delete_webhook(webhook_id: WebhookPath, webhooks: RequestWebhooks) -> Response:
    """Delete an endpoint for good. What it has not got is not sent any more."""
    return body_answer(WebhookBody.of(await webhooks.delete(webhook_id)))


@router.post(
    "/{id}/rotate-secret",
    operation_id="rotateWebhookSecret",
    summary="Replace an endpoint's secret",
    responses=changing(WebhookBody, "not_found"),
)
async def rotate_webhook_secret(webhook_id: WebhookPath, webhooks: RequestWebhooks) -> Response:
    """Replace the secret and show the new one, this once. For a day both of them sign."""
    return body_answer(WebhookBody.of(await webhooks.rotate_secret(webhook_id)))


@router.post(
    "/{id}/test",
    operation_id="testWebhook",
    summary="Send a test event",
    responses=changing(TestEvent, "not_found", "webhook_disabled"),
)
async def test_webhook(webhook_id: WebhookPath, webhooks: RequestWebhooks) -> Response:
    """Send an event `webhook.test` to the endpoint, whatever events it wants. Its delivery shows what came of it."""
    return body_answer(TestEvent(event_id=await webhooks.send_test(webhook_id)))


@router.get(
    "/{id}/deliveries",
    operation_id="listWebhookDeliveries",
    summary="List an endpoint's deliveries",
    responses=reading(DeliveryList, "not_found"),
)
async def list_deliveries(
    webhook_id: WebhookPath,
    webhooks: RequestWebhooks,
    status: OfStatus = None,
    limit: PageLimit = DEFAULT_PAGE_ITEMS,
    starting_after: StartingAfter = None,
) -> Response:
    """List what was sent to the endpoint, newest first."""
    await webhooks.get(webhook_id)
    return body_answer(await page_of_deliveries(webhooks, webhook_id, status, limit, starting_after))


@router.get(
    "/{id}/deliveries/{event_id}",
    operation_id="getWebhookDelivery",
    summary="Show a delivery",
    responses=reading(DeliveryDetail, "not_found"),
)
async def get_delivery(webhook_id: WebhookPath, event_id: EventPath, webhooks: RequestWebhooks) -> Response:
    """Show what is sent, and how the latest attempt went."""
    await webhooks.get(webhook_id)
    return body_answer(DeliveryDetail.with_body(await webhooks.delivery(webhook_id, event_id)))


@router.post(
    "/{id}/deliveries/{event_id}/resend",
    operation_id="resendWebhookDelivery",
    summary="Send an event again",
    responses=changing(DeliveryBody, "not_found", "webhook_disabled"),
)
async def resend_delivery(webhook_id: WebhookPath, event_id: EventPath, webhooks: RequestWebhooks) -> Response:
    """Send an event again at once, under its id, with all of its attempts; also one that was delivered."""
    return body_answer(DeliveryBody.of(await webhooks.resend(webhook_id, event_id)))


@router.post(
    "/{id}/resend",
    operation_id="resendFailedWebhookDeliveries",
    summary="Send what failed again",
    responses=changing(Resent, "not_found", "webhook_disabled"),
)
async def resend_failed(webhook_id: WebhookPath, body: ResendFailed, webhooks: RequestWebhooks) -> Response:
    """Send every event again that has failed, of those since a moment; oldest first."""
    since = parse_moment(body.since, "since")
    count = await webhooks.resend_failed(webhook_id, since=since, at_most=MAX_RESENT)
    return body_answer(Resent(count=count, has_more=count >= MAX_RESENT))
