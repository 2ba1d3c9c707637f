"""The operations on webhooks, checked and ready to be run, and how their rows read. `webhooks_sql.py` has the SQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ValidationError

from ...lanes.encoding import invalid_command
from ...schemas.errors import (
    InvalidCommand,
    OutcomeUnknown,
    Unavailable,
    WebhookDisabled,
    WebhookLimitReached,
    WebhookNotFound,
)
from ...schemas.events import (
    ENDPOINT_PREFIX,
    EVENT_PREFIX,
    TEST_EVENT,
    new_secret,
    public_endpoint_id,
    public_event_id,
    uuid_of,
)
from ...schemas.networks import NetworkRules
from ...schemas.statuses import StoredDeliveryStatus, StoredEndpointStatus
from ...schemas.webhook_secrets import SecretKeys
from ...schemas.webhooks import (
    Delivery,
    DeliveryStatus,
    DeliveryWithBody,
    EndpointStatus,
    NewWebhook,
    Webhook,
    WebhookChange,
)
from ..ledger.statement import Rows, Statement
from . import webhooks_sql as sql
from .webhook_targets import refuse_target

#: Deliveries that one statement changes.
SLICE_DELIVERIES = 2_000
#: Deliveries that one page holds where all are wanted.
PAGE_DELIVERIES = 100

_ModelT = TypeVar("_ModelT", bound=BaseModel)


class DeliveryCursor(NamedTuple):
    """Where a delivery stands among those of its endpoint."""

    at: datetime
    event: UUID


class ResentSlice(NamedTuple):
    """How many were sent again, and where to go on; None: there are no more."""

    resent: int
    last: DeliveryCursor | None


def checked(model: type[_ModelT], **fields: Any) -> _ModelT:
    """Return the model of these fields.

    Raises:
        InvalidCommand: a field breaks its rule.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        raise invalid_command(error) from None


def create(store: str, wanted: NewWebhook, networks: NetworkRules, keys: SecretKeys) -> Statement[Webhook]:
    """Make an endpoint, whose secret is kept sealed if there is a key.

    Raises:
        InvalidCommand: webhooks may not go to this URL.
    """
    refuse_target(wanted.url, networks)
    secret = new_secret()
    values = {
        "store": store,
        "endpoint": uuid4(),
        "url": wanted.url,
        "name": wanted.name,
        "events": list(wanted.events),
        "secret": keys.seal(secret),
    }

    def outcome(rows: Rows) -> Webhook:
        if not rows:
            raise _no_store(store)
        if rows[0][0] is None:
            raise WebhookLimitReached
        return _webhook(store, rows[0], secret)

    return Statement((sql.LOCK_STORE, sql.CREATE), values, outcome)


def _no_store(store: str) -> InvalidCommand:
    return InvalidCommand(f"there is no store {store}", field="store")


def list_all(store: str) -> Statement[list[Webhook]]:
    """Return every endpoint, oldest first."""
    return Statement((sql.LIST,), {"store": store}, lambda rows: [_webhook(store, row) for row in rows])


def get(store: str, webhook_id: str) -> Statement[Webhook]:
    """Return the endpoint."""
    return Statement((sql.GET,), _of(store, webhook_id), _one_webhook(store))


def update(store: str, webhook_id: str, change: WebhookChange, networks: NetworkRules) -> Statement[Webhook]:
    """Change what is given.

    Raises:
        InvalidCommand: webhooks may not go to this URL.
    """
    given = change.model_fields_set
    if "url" in given:
        refuse_target(change.url, networks)
    values = {
        **_of(store, webhook_id),
        "url": change.url if "url" in given else None,
        "names": "name" in given,
        "name": change.name,
        "events": list(change.events) if "events" in given else None,
        "status": int(StoredEndpointStatus[change.status.upper()]) if "status" in given else None,
    }
    return Statement((sql.UPDATE,), values, _one_webhook(store))


def delete(store: str, webhook_id: str) -> Statement[Webhook]:
    """Hide the endpoint for good."""
    return Statement((sql.DELETE,), _of(store, webhook_id), _one_webhook(store))


def give_up(store: str, webhook_id: str) -> Statement[bool]:
    """Let some of a deleted endpoint's pending deliveries fail; return whether there may be more."""
    values = {**_of(store, webhook_id), "count": SLICE_DELIVERIES}
    return Statement((sql.GIVE_UP,), values, lambda rows: len(rows) == SLICE_DELIVERIES)


def rotate_secret(store: str, webhook_id: str, keys: SecretKeys) -> Statement[Webhook]:
    """Replace the secret; the endpoint comes with the new one."""
    secret = new_secret()
    values = {**_of(store, webhook_id), "secret": keys.seal(secret)}
    return Statement((sql.ROTATE_SECRET,), values, _one_webhook(store, secret))


def rotate_callback_secret(store: str, keys: SecretKeys) -> Statement[str]:
    """Make or replace the secret of the store's callbacks, and return it."""
    secret = new_secret()

    def outcome(rows: Rows) -> str:
        if not rows:
            raise _no_store(store)
        return secret

    return Statement((sql.ROTATE_CALLBACK_SECRET,), {"store": store, "secret": keys.seal(secret)}, outcome)


def send_test(store: str, webhook_id: str) -> Statement[str]:
    """Put a test event on its way and return its id."""
    event = uuid4()
    target = {"object": "webhook_test", "webhook_id": webhook_id, "store_id": store}
    values = {
        **_of(store, webhook_id),
        "event": event,
        "type": TEST_EVENT,
        # In one object with the moment between them.
        "head": f'{{"id":"{public_event_id(event)}","eventType":"{TEST_EVENT}","created_at":',
        "tail": f',"sequence":null,"object":{json.dumps(target, separators=(",", ":"))}}}',
    }

    def outcome(rows: Rows) -> str:
        ((status,),) = rows or [(None,)]
        if status is None:
            raise WebhookNotFound
        if status != StoredEndpointStatus.ENABLED:
            raise WebhookDisabled
        return public_event_id(event)

    return Statement((sql.SEND_TEST,), values, outcome)


def list_deliveries(
    store: str, webhook_id: str | None, *, status: DeliveryStatus | None, after: DeliveryCursor | None, count: int
) -> Statement[list[Delivery]]:
    """Return some deliveries of the endpoint, or of all callbacks, newest first, from a cursor on.

    Raises:
        InvalidCommand: there is no such status.
    """
    number = stored_status(status)
    statement = sql.list_deliveries(of_callbacks=webhook_id is None, status=number, after=after is not None)
    values = {**_of_deliveries(store, webhook_id), "count": count}
    if after is not None:
        values |= {"after_at": after.at, "after": after.event}
    return Statement((statement,), values, lambda rows: [_delivery(row) for row in rows])


def stored_status(status: object) -> StoredDeliveryStatus | None:
    """Return the number that this status of a delivery is stored as; not every caller has its types checked.

    Raises:
        InvalidCommand: there is no such status.
    """
    if status is None:
        return None
    known = {stored.name.lower(): stored for stored in StoredDeliveryStatus}
    if not isinstance(status, str) or status not in known:
        raise InvalidCommand(f"status: must be one of {', '.join(known)}", field="status")
    return known[status]


def get_delivery(store: str, webhook_id: str | None, event_id: str) -> Statement[DeliveryWithBody]:
    """Return one delivery with what is sent."""
    statement = sql.get_delivery(of_callbacks=webhook_id is None)
    return Statement((statement,), _of_delivery(store, webhook_id, event_id), _only(_delivery_with_body))


def resend(store: str, webhook_id: str | None, event_id: str) -> Statement[Delivery]:
    """Send one event again."""
    statement = sql.RESEND_CALLBACK if webhook_id is None else sql.RESEND
    return Statement((statement,), _of_delivery(store, webhook_id, event_id), _only(_delivery))


@contextmanager
def begun(what_is_done: str | None) -> Iterator[None]:
    """Let nobody read that nothing was done, where an operation of several steps ends after some; None: after none.

    Raises:
        OutcomeUnknown: instead of Unavailable.
    """
    try:
        yield
    except Unavailable as error:
        if what_is_done is None:
            raise
        from ...lanes.postgres.errors import error_text

        raise OutcomeUnknown(f"{what_is_done}: {error_text(error)}") from error


def resend_failed(store: str, webhook_id: str, after: DeliveryCursor) -> Statement[ResentSlice]:
    """Send some of the failed ones after a cursor again, oldest first."""
    values = {**_of(store, webhook_id), "after_at": after.at, "after": after.event, "count": SLICE_DELIVERIES}

    def outcome(rows: Rows) -> ResentSlice:
        ((count, at, event),) = rows
        return ResentSlice(count, DeliveryCursor(at, event) if count == SLICE_DELIVERIES else None)

    return Statement((sql.RESEND_FAILED,), values, outcome)


def cursor_before(since: datetime) -> DeliveryCursor:
    """Return the cursor before everything from this moment on."""
    return DeliveryCursor(since, UUID(int=0))


def cursor_of(delivery: Delivery) -> DeliveryCursor:
    """Return where the delivery stands."""
    return DeliveryCursor(delivery.created_at, UUID(delivery.event_id.removeprefix(EVENT_PREFIX)))


def require_enabled(webhook: Webhook) -> None:
    """Let an endpoint pass that something can be sent to.

    Raises:
        WebhookDisabled: it is not enabled.
    """
    if webhook.status != "enabled":
        raise WebhookDisabled


def events_given(events: Iterable[str]) -> tuple[str, ...]:
    """Return the events as they were given, though a single one be given as such."""
    return (events,) if isinstance(events, str) else tuple(events)


def change_of(
    *, url: str | None, events: Iterable[str] | None, name: str | None, status: EndpointStatus | None
) -> WebhookChange:
    """Return the change of what is given; an empty name takes the name away.

    Raises:
        InvalidCommand: a field breaks its rule.
    """
    fields: dict[str, Any] = {"url": url, "status": status}
    fields["events"] = None if events is None else events_given(events)
    fields = {field: value for field, value in fields.items() if value is not None}
    if name is not None:
        fields["name"] = name or None
    return checked(WebhookChange, **fields)


def _of(store: str, webhook_id: str | None) -> dict[str, Any]:
    """Return the values that name an endpoint.

    Raises:
        WebhookNotFound: it is no such id.
    """
    return {"store": store, "endpoint": _uuid(webhook_id, ENDPOINT_PREFIX)}


def _of_deliveries(store: str, webhook_id: str | None) -> dict[str, Any]:
    """Return the values that name the deliveries to an endpoint, or by callbacks where it is None; raises as `_of`."""
    return {"store": store} if webhook_id is None else _of(store, webhook_id)


def _of_delivery(store: str, webhook_id: str | None, event_id: str) -> dict[str, Any]:
    """Return the values that name one of these deliveries; raises as `_of`."""
    return {**_of_deliveries(store, webhook_id), "event": _uuid(event_id, EVENT_PREFIX)}


def _uuid(identifier: str | None, prefix: str) -> UUID:
    # Not every caller has its types checked.
    found = uuid_of(str(identifier), prefix)
    if found is None:
        raise WebhookNotFound
    return found


def _only(read: Callable[[Sequence[Any]], _ModelT]) -> Callable[[Rows], _ModelT]:
    def outcome(rows: Rows) -> _ModelT:
        if not rows:
            raise WebhookNotFound
        return read(rows[0])

    return outcome


def _one_webhook(store: str, secret: str | None = None) -> Callable[[Rows], Webhook]:
    return _only(lambda row: _webhook(store, row, secret))


def _webhook(store: str, row: Sequence[Any], secret: str | None = None) -> Webhook:
    endpoint, name, url, status, events, created_at, updated_at, reason, failing_since = row
    return Webhook.model_construct(
        id=public_endpoint_id(endpoint),
        store_id=store,
        name=name,
        url=url,
        # A deleted one is seen for the last time, and gets nothing.
        status="enabled" if status == StoredEndpointStatus.ENABLED else "disabled",
        events=tuple(events),
        created_at=created_at.astimezone(UTC),
        updated_at=updated_at.astimezone(UTC),
        disabled_reason=reason,
        failing_since=_utc(failing_since),
        secret=secret,
    )


def _delivery(row: Sequence[Any]) -> Delivery:
    return Delivery(**_delivery_fields(row))


def _delivery_with_body(row: Sequence[Any]) -> DeliveryWithBody:
    return DeliveryWithBody(**_delivery_fields(row[:-1]), body=row[-1])


def _delivery_fields(row: Sequence[Any]) -> dict[str, Any]:
    event, event_type, status, attempts, response, latency, body, error, due_at, tried_at, created_at, url = row
    return {
        "event_id": public_event_id(event),
        "event_type": event_type,
        "status": StoredDeliveryStatus(status).name.lower(),
        "attempts": attempts,
        "response_status": response,
        "latency_ms": latency,
        "response_body": body,
        "error": error,
        "next_attempt_at": _utc(due_at),
        "last_attempt_at": _utc(tried_at),
        "created_at": created_at.astimezone(UTC),
        "url": url,
    }


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
