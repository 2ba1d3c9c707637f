"""A store's webhooks, for the asyncio client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from ....schemas.networks import network_rules
from ....schemas.settings import Settings
from ....schemas.webhook_secrets import secret_keys
from ....schemas.webhooks import (
    Delivery,
    DeliveryStatus,
    DeliveryWithBody,
    EndpointStatus,
    NewWebhook,
    Webhook,
    WebhookChange,
)
from ...ledger.statement import Statement
from ...operations import webhooks as operations

if TYPE_CHECKING:
    from .session import AsyncSession

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class AsyncWebhooks:
    """The endpoints that hear of what happens in the store, what was sent to them, and the store's callbacks.

    Every method raises `Unavailable` when Postgres cannot be reached, and `WebhookNotFound` for an id that is none of
    the store's. What changes something raises `OutcomeUnknown` where it may be done, or done in part.
    """

    def __init__(self, settings: Settings, session: Callable[[], AsyncSession], store: str | None = None) -> None:
        self._store = store or settings.store
        self._networks = network_rules(settings)
        self._keys = secret_keys(settings)
        self._session = session

    async def create(self, *, url: str, events: Iterable[str] = (), name: str | None = None) -> Webhook:
        """Make an endpoint and return it with its secret, this once. No events named: it gets every one.

        It is sent what happens after the return.

        Raises:
            InvalidCommand: a field breaks its rule, or nothing may be sent to this URL.
            WebhookLimitReached: the store has as many as it may have.
        """
        wanted = operations.checked(NewWebhook, url=url, name=name, events=operations.events_given(events))
        return await self.make(wanted)

    async def make(self, wanted: NewWebhook) -> Webhook:
        """Make an endpoint; as `create`."""
        return await self._run(operations.create(self._store, wanted, self._networks, self._keys))

    async def list(self) -> list[Webhook]:
        """Return every endpoint, oldest first; there are at most 100."""
        return await self._run(operations.list_all(self._store))

    async def get(self, webhook_id: str) -> Webhook:
        """Return the endpoint."""
        return await self._run(operations.get(self._store, webhook_id))

    async def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Iterable[str] | None = None,
        name: str | None = None,
        status: EndpointStatus | None = None,
    ) -> Webhook:
        """Change what is given and return the endpoint; an empty name takes the name away.

        Enabling forgets why it was disabled, and sends what has been waiting.

        Raises:
            InvalidCommand: a field breaks its rule, or nothing may be sent to this URL.
        """
        return await self.change(webhook_id, operations.change_of(url=url, events=events, name=name, status=status))

    async def change(self, webhook_id: str, change: WebhookChange) -> Webhook:
        """Change what is given and return the endpoint; as `update`."""
        webhook = await self._run(operations.update(self._store, webhook_id, change, self._networks))
        await self._wake()
        return webhook

    async def delete(self, webhook_id: str) -> Webhook:
        """Delete the endpoint and return what it was. What it has not got is not sent any more."""
        webhook = await self._run(operations.delete(self._store, webhook_id))
        with operations.begun("the endpoint is deleted, but some of what it has not got may stand as pending"):
            while await self._run(operations.give_up(self._store, webhook_id)):
                pass
        return webhook

    async def rotate_secret(self, webhook_id: str) -> Webhook:
        """Replace the secret and return the endpoint with the new one, this once. For a day both of them sign."""
        return await self._run(operations.rotate_secret(self._store, webhook_id, self._keys))

    async def send_test(self, webhook_id: str) -> str:
        """Send an event `webhook.test` to the endpoint and return its id, by which `delivery` shows what came of it.

        Raises:
            WebhookDisabled: nothing is sent to the endpoint.
        """
        event_id = await self._run(operations.send_test(self._store, webhook_id))
        await self._wake()
        return event_id

    async def deliveries(
        self, webhook_id: str | None, *, status: DeliveryStatus | None = None, limit: int | None = None
    ) -> AsyncIterator[Delivery]:
        """Yield what was sent to the endpoint, or by callbacks where it is None; newest first, read in pages."""
        position, wanted = None, limit
        if webhook_id is not None:
            await self.get(webhook_id)
        while wanted is None or wanted > 0:
            count = operations.PAGE_DELIVERIES if wanted is None else min(wanted, operations.PAGE_DELIVERIES)
            page = await self.page(webhook_id, status=status, after=position, count=count)
            for delivery in page:
                yield delivery
            if len(page) < count:
                return
            position = operations.cursor_of(page[-1])
            wanted = None if wanted is None else wanted - count

    async def page(
        self,
        webhook_id: str | None,
        *,
        status: DeliveryStatus | None,
        after: operations.DeliveryCursor | None,
        count: int,
    ) -> Sequence[Delivery]:
        """Return some deliveries of an endpoint, or of callbacks where it is None, newest first, from a position on."""
        return await self._run(
            operations.list_deliveries(self._store, webhook_id, status=status, after=after, count=count)
        )

    async def delivery(self, webhook_id: str | None, event_id: str) -> DeliveryWithBody:
        """Return one delivery of an endpoint, or by a callback where it is None, with what is sent."""
        return await self._run(operations.get_delivery(self._store, webhook_id, event_id))

    async def resend(self, webhook_id: str | None, event_id: str) -> Delivery:
        """Send one event again at once, under its id, with all of its attempts; also one that was delivered.

        Raises:
            WebhookDisabled: nothing is sent to the endpoint.
        """
        if webhook_id is not None:
            operations.require_enabled(await self.get(webhook_id))
        delivery = await self._run(operations.resend(self._store, webhook_id, event_id))
        await self._wake()
        return delivery

    async def resend_failed(self, webhook_id: str, *, since: datetime, at_most: int | None = None) -> int:
        """Send every event again that has failed, of those from this moment on, and return how many there are.

        Oldest first, some thousand in each transaction, and none beyond `at_most` is begun.

        Raises:
            WebhookDisabled: nothing is sent to the endpoint.
        """
        operations.require_enabled(await self.get(webhook_id))
        position: operations.DeliveryCursor | None = operations.cursor_before(since)
        count = 0
        while position is not None and (at_most is None or count < at_most):
            with operations.begun(f"{count} are sent again, and maybe not all" if count else None):
                part = await self._run(operations.resend_failed(self._store, webhook_id, position))
            count, position = count + part.resent, part.last
        await self._wake()
        return count

    async def rotate_callback_secret(self) -> str:
        """Make the secret that the store's callbacks are signed with and return it, this once.

        The one before it, if there was one, signs beside it for a day.
        """
        return await self._run(operations.rotate_callback_secret(self._store, self._keys))

    async def _run(self, statement: Statement[_T]) -> _T:
        return await self._session().reader.run(statement)

    async def _wake(self) -> None:
        from ..redis_exchange import ExchangeFailed, wake_calls

        session = self._session()
        try:
            await session.wire.exchange_once(wake_calls(session.keys))
        except ExchangeFailed as error:
            # Only a hint: who delivers asks by itself every second.
            log.info("nobody was woken to deliver: %s", error)
