"""What is asked of Postgres about webhooks. Everything names its store; what changes subscriptions counts them on."""

from __future__ import annotations

from ...schemas.statuses import StoredDeliveryStatus, StoredEndpointKind, StoredEndpointStatus
from ...schemas.webhooks import MAX_ENDPOINTS, ROTATION_HOURS

_ENABLED, _DELETED = int(StoredEndpointStatus.ENABLED), int(StoredEndpointStatus.DELETED)
_PENDING, _FAILED = int(StoredDeliveryStatus.PENDING), int(StoredDeliveryStatus.FAILED)
_ENDPOINT_KIND, _CALLBACKS_KIND = int(StoredEndpointKind.ENDPOINT), int(StoredEndpointKind.CALLBACKS)

_STORE = "(select store_id from stores where public_id = %(store)s)"
#: One endpoint of the store that callers may see.
_THIS = f"store_id = {_STORE} and endpoint_id = %(endpoint)s and kind = {_ENDPOINT_KIND} and status <> {_DELETED}"

#: Columns of an endpoint.
_ENDPOINT = "endpoint_id, name, url, status, events, created_at, updated_at, disabled_reason, failing_since"

#: Workers compare this number before every batch: an event after the answer to a change is sent as the change wants it.
_COUNT_ON = """
counted as (
    update installation set subscriptions_version = subscriptions_version + 1 where exists (select from changed)
)
"""

#: Held while endpoints are counted, so that no two that are made at once exceed the limit. Not the store's row, which
#: takes the right to change it; the first number is any that nothing else uses.
LOCK_STORE = "select pg_advisory_xact_lock(1903, store_id) from stores where public_id = %(store)s"

#: How many endpoints there were, and the new one if there is room for it.
CREATE = f"""
with owner as (
    select store_id, (
        select count(*) from webhook_endpoints as e
        where e.store_id = stores.store_id and e.kind = {_ENDPOINT_KIND} and e.status <> {_DELETED}
    ) as taken
    from stores where public_id = %(store)s
),
changed as (
    insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, name, events, secret)
    select store_id, %(endpoint)s, {_ENDPOINT_KIND}, {_ENABLED}, %(url)s, %(name)s, %(events)s::text[], %(secret)s
    from owner where taken < {MAX_ENDPOINTS}
    returning *
),
{_COUNT_ON}
select {_ENDPOINT} from owner left join changed using (store_id)
"""  # noqa: S608  # constants only

#: Oldest first. There are never more than a store may have.
LIST = f"""
select {_ENDPOINT} from webhook_endpoints
where store_id = {_STORE} and kind = {_ENDPOINT_KIND} and status <> {_DELETED}
order by created_at, endpoint_id
"""  # noqa: S608

GET = f"select {_ENDPOINT} from webhook_endpoints where {_THIS}"  # noqa: S608

#: Whoever enables an endpoint, or moves it, wants to hear at once: what was held against it is forgotten.
UPDATE = f"""
with changed as (
    update webhook_endpoints set
        url = coalesce(%(url)s, url),
        name = case when %(names)s then %(name)s else name end,
        events = coalesce(%(events)s::text[], events),
        status = coalesce(%(status)s::smallint, status),
        disabled_reason = case when %(status)s::smallint = {_ENABLED} then null else disabled_reason end,
        failing_since = case when %(status)s::smallint = {_ENABLED} or %(url)s <> url then null else failing_since end,
        paused_until = case when %(status)s::smallint = {_ENABLED} or %(url)s <> url then null else paused_until end,
        updated_at = clock_timestamp()
    where {_THIS}
    returning *
),
{_COUNT_ON}
select {_ENDPOINT} from changed
"""  # noqa: S608

DELETE = f"""
with changed as (
    update webhook_endpoints set status = {_DELETED}, updated_at = clock_timestamp() where {_THIS} returning *
),
{_COUNT_ON}
select {_ENDPOINT} from changed
"""  # noqa: S608

#: Some of what a deleted endpoint has not got; returns a row for each.
GIVE_UP = f"""
update deliveries set status = {_FAILED}, next_attempt_at = null, error = 'the endpoint was deleted'
where (store_id, endpoint_id, event_id) in (
    select store_id, endpoint_id, event_id from deliveries
    where store_id = {_STORE} and endpoint_id = %(endpoint)s and status = {_PENDING}
    order by next_attempt_at limit %(count)s
)
returning 1
"""  # noqa: S608

_ROTATE = f"""
previous_secret_until = clock_timestamp() + interval '{ROTATION_HOURS} hours'
"""

ROTATE_SECRET = f"""
update webhook_endpoints set
    previous_secret = secret, secret = %(secret)s, updated_at = clock_timestamp(), {_ROTATE}
where {_THIS}
returning {_ENDPOINT}
"""  # noqa: S608

#: The store's secret for callbacks, made or replaced. What goes to each origin is signed with a copy of it.
ROTATE_CALLBACK_SECRET = f"""
with made as (
    insert into callback_secrets (store_id, secret) select store_id, %(secret)s from stores where public_id = %(store)s
    on conflict (store_id) do update set
        previous_secret = callback_secrets.secret, secret = excluded.secret, {_ROTATE}
    returning store_id, secret
),
origins as (
    update webhook_endpoints set previous_secret = webhook_endpoints.secret, secret = made.secret, {_ROTATE}
    from made where webhook_endpoints.store_id = made.store_id and kind = {_CALLBACKS_KIND}
)
select secret from made
"""  # noqa: S608

#: An event of nothing that happened, on its way to one endpoint. Its body comes in two parts: the time is Postgres's.
SEND_TEST = f"""
with target as (select store_id, endpoint_id, status, clock_timestamp() as at from webhook_endpoints where {_THIS}),
event as (
    insert into events (store_id, event_id, event_type, created_at, body)
    select store_id, %(event)s, %(type)s, at,
           %(head)s || (extract(epoch from at) * 1000)::bigint || %(tail)s
    from target where status = {_ENABLED}
),
delivery as (
    insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at)
    select store_id, endpoint_id, %(event)s, {_PENDING}, at, at from target where status = {_ENABLED}
)
select status from target
"""  # noqa: S608

#: Columns of a delivery, with the type of its event: one descent for each.
_DELIVERY = """
d.event_id, e.event_type, d.status, d.attempts, d.response_status, d.latency_ms, d.response_body, d.error,
d.next_attempt_at, d.last_attempt_at, d.created_at, d.url
"""
_EVENT = """
left join lateral (select event_type, body from events where store_id = d.store_id and event_id = d.event_id limit 1) e
    on true
"""

#: Of callbacks there is one endpoint an origin; which one it is does not matter to who asks.
_ORIGINS = f"select endpoint_id from webhook_endpoints where store_id = {_STORE} and kind = {_CALLBACKS_KIND}"  # noqa: S608

_OF_ENDPOINT = "endpoint_id = %(endpoint)s"
_OF_CALLBACKS = f"endpoint_id in ({_ORIGINS})"


def list_deliveries(*, of_callbacks: bool, status: StoredDeliveryStatus | None, after: bool) -> str:
    """Return the statement for a page of deliveries, newest first: those before the cursor `after`, if it is given."""
    conditions = [f"store_id = {_STORE}", "endpoint_id = w.endpoint_id" if of_callbacks else _OF_ENDPOINT]
    if status is not None:
        # In the statement and not among its values: only so is it known that the index of the failed ones fits.
        conditions.append(f"status = {status:d}")
    if after:
        conditions.append("(created_at, event_id) < (%(after_at)s, %(after)s)")
    page = (
        f"select * from deliveries where {' and '.join(conditions)} "  # noqa: S608
        "order by created_at desc, event_id desc limit %(count)s"
    )
    if of_callbacks:
        page = (
            f"select n.* from ({_ORIGINS}) w cross join lateral ({page}) n "  # noqa: S608
            "order by n.created_at desc, n.event_id desc limit %(count)s"
        )
    return f"select {_DELIVERY} from ({page}) d {_EVENT} order by d.created_at desc, d.event_id desc"  # noqa: S608


def get_delivery(*, of_callbacks: bool) -> str:
    """Return the statement for one delivery, with the body of its event as the last column."""
    owner = _OF_CALLBACKS if of_callbacks else _OF_ENDPOINT
    return (
        f"select {_DELIVERY}, e.body from deliveries d {_EVENT} "  # noqa: S608
        f"where d.store_id = {_STORE} and d.{owner} and d.event_id = %(event)s"
    )


#: Send an event again at once, whatever became of it, with all of its attempts.
_AGAIN = f"status = {_PENDING}, attempts = 0, next_attempt_at = clock_timestamp()"


RESEND = f"""
with changed as (
    update deliveries set {_AGAIN} where store_id = {_STORE} and {_OF_ENDPOINT} and event_id = %(event)s returning *
)
select {_DELIVERY} from changed d {_EVENT}
"""  # noqa: S608

#: The origin may have been given up since.
RESEND_CALLBACK = f"""
with changed as (
    update deliveries set {_AGAIN} where store_id = {_STORE} and {_OF_CALLBACKS} and event_id = %(event)s returning *
),
origins as (
    update webhook_endpoints w set status = {_ENABLED}, disabled_reason = null, failing_since = null,
        paused_until = null
    from changed where w.store_id = changed.store_id and w.endpoint_id = changed.endpoint_id
)
select {_DELIVERY} from changed d {_EVENT}
"""  # noqa: S608

#: Some of the failed ones after a cursor, oldest first, are sent again; gives how many, and the cursor of the last one.
RESEND_FAILED = f"""
with failed as (
    select store_id, endpoint_id, event_id, created_at from deliveries
    where store_id = {_STORE} and endpoint_id = %(endpoint)s and status = {_FAILED}
      and (created_at, event_id) > (%(after_at)s, %(after)s)
    order by created_at, event_id limit %(count)s
    for update
),
changed as (
    update deliveries set {_AGAIN} from failed
    where deliveries.store_id = failed.store_id and deliveries.endpoint_id = failed.endpoint_id
      and deliveries.event_id = failed.event_id
)
select count(*), (array_agg(created_at order by created_at desc, event_id desc))[1],
       (array_agg(event_id order by created_at desc, event_id desc))[1]
from failed
"""  # noqa: S608
