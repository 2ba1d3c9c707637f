"""Pages of webhooks: endpoints by number and size, deliveries from behind an event on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from ...schemas.errors import WebhookNotFound
from ...schemas.webhooks import DeliveryStatus, DeliveryWithBody
from ..operations import webhooks as operations
from .deps import RequestWebhooks
from .errors import Problem
from .models.webhooks import DeliveryBody, DeliveryList
from .paging import IN_DIGITS, MAX_PAGE_ITEMS

PageNumber = Annotated[int, Query(ge=1, le=1_000_000, description="Which page; the first is 1."), IN_DIGITS]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS, description="Most endpoints of a page."), IN_DIGITS]
PageLimit = Annotated[
    int, Query(ge=1, le=MAX_PAGE_ITEMS, description="Most items of the page.", examples=[25]), IN_DIGITS
]
StartingAfter = Annotated[
    str | None, Query(description="Id of an event of this list: the page goes on from it, towards older ones.")
]


async def page_of_deliveries(
    webhooks: RequestWebhooks, webhook_id: str | None, status: DeliveryStatus | None, limit: int, cursor: str | None
) -> DeliveryList:
    """Return a page of an endpoint's deliveries, or of those of callbacks, newest first, from behind the cursor on.

    Raises:
        Problem: the cursor is no event of this list.
    """
    after = None if cursor is None else operations.cursor_of(await _cursor(webhooks, webhook_id, cursor))
    found = await webhooks.page(webhook_id, status=status, after=after, count=limit + 1)
    return DeliveryList(data=[DeliveryBody.of(each) for each in found[:limit]], has_more=len(found) > limit)


async def _cursor(webhooks: RequestWebhooks, webhook_id: str | None, cursor: str) -> DeliveryWithBody:
    try:
        return await webhooks.delivery(webhook_id, cursor)
    except WebhookNotFound:
        message = "starting_after: must be the id of an event of this list"
        raise Problem("validation_error", message, param="starting_after") from None
