"""A store's webhooks, for the blocking client without servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NoReturn
from uuid import uuid4

from ..producer.client._sync.webhooks import Webhooks
from ..producer.operations import webhooks as operations
from ..producer.operations.webhook_targets import refuse_target
from ..schemas.errors import ConfigurationError, CreditlaneError, WebhookLimitReached
from ..schemas.events import TEST_EVENT, new_secret, public_endpoint_id, public_event_id
from ..schemas.networks import network_rules
from ..schemas.settings import Settings
from ..schemas.webhooks import (
    MAX_ENDPOINTS,
    Delivery,
    DeliveryStatus,
    DeliveryWithBody,
    NewWebhook,
    Webhook,
    WebhookChange,
)
from ..worker.webhooks.event_bodies import Event
from .clock import microseconds_of
from .fake_ledger import FakeLedger
from .store_webhooks import CALLBACKS, StoreWebhooks

#: What is said where nothing can sign.
MISSING = "webhooks are signed with `pip install 'creditlane[worker]'`"
#: What stays of a delivery's attempts when it is sent again.
_AGAIN = {"status": "pending", "attempts": 0}


class FakeWebhooks(Webhooks):
    """`Client.webhooks` in memory: endpoints are kept, and deliveries can be read with what would be sent.

    Nothing is sent by itself, so a delivery stays pending. `deliver` hands what is pending to a receiver under test.
    """

    def __init__(self, settings: Settings, ledger: Callable[[], FakeLedger]) -> None:
        self._networks = network_rules(settings)
        self._store_id = settings.store
        self._open_ledger = ledger

    def make(self, wanted: NewWebhook) -> Webhook:
        """Make an endpoint; as `create`."""
        store = self._endpoints()
        refuse_target(wanted.url, self._networks)
        if len(store.endpoints) >= MAX_ENDPOINTS:
            raise WebhookLimitReached
        now, secret = store.now(), new_secret()
        webhook = Webhook(
            id=public_endpoint_id(uuid4()),
            store_id=store.store_id,
            name=wanted.name,
            url=wanted.url,
            status="enabled",
            events=wanted.events,
            created_at=now,
            updated_at=now,
            disabled_reason=None,
            failing_since=None,
        )
        store.endpoints[webhook.id], store.secrets[webhook.id] = webhook, [secret]
        return webhook.model_copy(update={"secret": secret})

    def list(self) -> list[Webhook]:
        """Return every endpoint, oldest first, as `Webhooks.list`."""
        return [*self._endpoints().endpoints.values()]

    def get(self, webhook_id: str) -> Webhook:
        """Return the endpoint, as `Webhooks.get`."""
        return self._endpoints().endpoint(webhook_id)

    def change(self, webhook_id: str, change: WebhookChange) -> Webhook:
        """Change what is given and return the endpoint; as `update`."""
        store = self._endpoints()
        given = {field: getattr(change, field) for field in change.model_fields_set}
        if "url" in given:
            refuse_target(change.url, self._networks)
        webhook = store.endpoint(webhook_id).model_copy(update={**given, "updated_at": store.now()})
        store.endpoints[webhook_id] = webhook
        return webhook

    def delete(self, webhook_id: str) -> Webhook:
        """Delete the endpoint and return what it was, as `Webhooks.delete`."""
        store = self._endpoints()
        webhook = store.endpoint(webhook_id).model_copy(update={"status": "disabled", "updated_at": store.now()})
        del store.endpoints[webhook_id]
        for (endpoint, event_id), delivery in list(store.deliveries.items()):
            if endpoint == webhook_id and delivery.status == "pending":
                error = "the endpoint was deleted"
                store.change_delivery(webhook_id, event_id, status="failed", error=error, next_attempt_at=None)
        return webhook

    def rotate_secret(self, webhook_id: str) -> Webhook:
        """Replace the secret and return the endpoint with the new one, as `Webhooks.rotate_secret`."""
        store, secret = self._endpoints(), new_secret()
        webhook = store.endpoint(webhook_id).model_copy(update={"updated_at": store.now()})
        store.endpoints[webhook_id] = webhook
        store.secrets[webhook_id].append(secret)
        return webhook.model_copy(update={"secret": secret})

    def send_test(self, webhook_id: str) -> str:
        """Have an event `webhook.test` delivered to the endpoint and return its id, as `Webhooks.send_test`."""
        store = self._endpoints()
        operations.require_enabled(store.endpoint(webhook_id))
        now, identifier = store.now(), uuid4()
        body = {
            "id": public_event_id(identifier),
            "eventType": TEST_EVENT,
            "created_at": microseconds_of(now) // 1_000,
            "sequence": None,
            "object": {"object": "webhook_test", "webhook_id": webhook_id, "store_id": store.store_id},
        }
        store.add(webhook_id, Event(0, identifier, TEST_EVENT, now, json.dumps(body, separators=(",", ":"))), now)
        return public_event_id(identifier)

    def deliveries(
        self, webhook_id: str | None, *, status: DeliveryStatus | None = None, limit: int | None = None
    ) -> Iterator[Delivery]:
        """Yield what is sent to the endpoint, or by callbacks, newest first, as `Webhooks.deliveries`."""
        if webhook_id is not None:
            self.get(webhook_id)
        yield from self.page(webhook_id, status=status, after=None, count=limit)

    def page(
        self,
        webhook_id: str | None,
        *,
        status: DeliveryStatus | None,
        after: operations.DeliveryCursor | None,
        count: int | None,
    ) -> Sequence[Delivery]:
        """Return some deliveries, newest first, from a position on; None: all of them."""
        operations.stored_status(status)
        found = [
            _without_body(delivery)
            for (endpoint, _), delivery in self._endpoints().deliveries.items()
            if endpoint == webhook_id
            and status in {None, delivery.status}
            and (after is None or operations.cursor_of(delivery) < after)
        ]
        found.sort(key=operations.cursor_of, reverse=True)
        return found if count is None else found[: max(0, count)]

    def delivery(self, webhook_id: str | None, event_id: str) -> DeliveryWithBody:
        """Return one delivery of an endpoint, or by a callback, with what is sent, as `Webhooks.delivery`."""
        return self._endpoints().delivery(webhook_id, event_id)

    def resend(self, webhook_id: str | None, event_id: str) -> Delivery:
        """Have one event delivered again, as `Webhooks.resend`."""
        store = self._endpoints()
        if webhook_id is not None:
            operations.require_enabled(store.endpoint(webhook_id))
        return _without_body(store.change_delivery(webhook_id, event_id, **_AGAIN, next_attempt_at=store.now()))

    def resend_failed(self, webhook_id: str, *, since: datetime, at_most: int | None = None) -> int:
        """Have every event delivered again that has failed since this moment, as `Webhooks.resend_failed`."""
        store = self._endpoints()
        operations.require_enabled(store.endpoint(webhook_id))
        failed = reversed(self.page(webhook_id, status="failed", after=None, count=None))
        again = [delivery.event_id for delivery in failed if delivery.created_at >= since][:at_most]
        for event_id in again:
            store.change_delivery(webhook_id, event_id, **_AGAIN, next_attempt_at=store.now())
        return len(again)

    def rotate_callback_secret(self) -> str:
        """Make the secret that the store's callbacks are signed with and return it, this once."""
        secret = new_secret()
        self._endpoints().secrets.setdefault(CALLBACKS, []).append(secret)
        return secret

    def deliver(self, receive: Callable[[dict[str, str], bytes], int]) -> Sequence[Delivery]:
        """Hand everything that is pending to a receiver, oldest first, and return what became of each.

        The receiver gets the headers, signed as the real ones are, and the body; what it returns is taken for the
        status of its response. From 200 to 299 the event is delivered, else it has failed; there is no second attempt.
        It takes the extra `worker`, which signs.

        Raises:
            ConfigurationError: the extra is not installed.
        """
        try:
            from ..worker.webhooks.signing import Signer
        except ModuleNotFoundError:
            raise ConfigurationError(MISSING) from None

        store = self._endpoints()
        pending = [(key, delivery) for key, delivery in store.deliveries.items() if delivery.status == "pending"]
        done: list[Delivery] = []
        for (webhook_id, event_id), delivery in pending:
            secrets = store.secrets[webhook_id]
            signer, body = Signer(secrets[-1], *secrets[-2:-1]), delivery.body or ""
            # By the real time, which receivers compare it with, wherever the ledger's clock stands.
            status = receive(signer.headers(event_id, datetime.now(UTC), body), body.encode())
            changed = store.change_delivery(
                webhook_id,
                event_id,
                status="delivered" if status // 100 == 2 else "failed",  # noqa: PLR2004  the class of the status
                attempts=delivery.attempts + 1,
                response_status=status,
                next_attempt_at=None,
                last_attempt_at=store.now(),
            )
            done.append(_without_body(changed))
        return done

    def _run(self, statement: object) -> NoReturn:  # noqa: ARG002  whatever it is
        raise CreditlaneError("this method of the webhooks has no form without servers")

    def _endpoints(self) -> StoreWebhooks:
        return self._open_ledger().webhooks(self._store_id)


def _without_body(delivery: DeliveryWithBody) -> Delivery:
    return Delivery(**delivery.model_dump(exclude={"body"}))
