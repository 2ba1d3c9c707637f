"""Every statement of the fan-out and of the deliveries, named. Times are Postgres's own: clocks of hosts may differ.

`now()` and not `clock_timestamp()`, which changes within a statement and so cannot be looked up in an index; each
statement of the deliveries is a transaction of its own.

Long arrays are sent in binary (`%(…)b`): as text, each element is searched for what must be escaped, which took a fifth
of a sender's time.
"""

from __future__ import annotations

from ...schemas.journal_columns import select_list
from ...schemas.statuses import StoredDeliveryStatus, StoredEndpointKind, StoredEndpointStatus

_ENABLED, _DISABLED = int(StoredEndpointStatus.ENABLED), int(StoredEndpointStatus.DISABLED)
_PENDING, _FAILED = int(StoredDeliveryStatus.PENDING), int(StoredDeliveryStatus.FAILED)
_ENDPOINT, _CALLBACKS = int(StoredEndpointKind.ENDPOINT), int(StoredEndpointKind.CALLBACKS)

#: Whether there is anything to fan out.
ANY_OUTBOX = "select exists (select from outbox)"

#: One fan-out at a time, in the order in which the rows were written. Held until the transaction ends; a process that
#: is stopped within it must not hold up the others.
LOCK_FAN_OUT = """
select pg_try_advisory_xact_lock(hashtext('creditlane fan-out')),
       set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('statement_timeout', '60s', true)
"""

#: The oldest rows of the outbox of each store, those of all stores in turn: first each one's oldest, of which those
#: with the fewest items come first if wanted, so that a store with few does not wait for one with many. Each store's
#: are found by one descent of the key.
READ_OUTBOX = """
with recursive waiting (store_id) as (
    (select store_id from outbox order by store_id limit 1)
    union all
    select (select store_id from outbox where store_id > waiting.store_id order by store_id limit 1)
    from waiting where waiting.store_id is not null
)
select found.store_id, found.outbox_id, found.items
from waiting cross join lateral (
    select store_id, outbox_id, cardinality(accounts) + coalesce(jsonb_array_length(callbacks), 0) as items,
           row_number() over (order by outbox_id) as turn
    from outbox where outbox.store_id = waiting.store_id order by outbox_id limit %(limit)s
) as found
order by found.turn, case when %(fewest_first)s then found.items else 0 end, found.outbox_id
limit %(limit)s
"""

#: A row of the journal. The key of a further entry is on the first one of its transaction.
_JOURNAL = select_list(
    idempotency_key="""
coalesce(journal.idempotency_key, (
    select first.idempotency_key from journal as first
    where first.store_id = journal.store_id and first.account_id = journal.transaction_account
      and first.seq = journal.transaction_seq
))"""
)

#: The items of rows of the outbox: the row, the journal row that it points at, and its account. Each is the first that
#: is not before its key, which only the primary key can find: where Postgres last counted when a store had few rows, it
#: would take any other index, and read all of the store's rows for each that is wanted.
READ_ITEMS = f"""
select outbox.store_id, outbox.outbox_id, item.sequence, stores.public_id,
       accounts.customer_id, accounts.name, accounts.unit_label,
       (extract(epoch from accounts.created_at) * 1000000)::bigint,
       case when accounts.low_balance_since < journal.created_at then accounts.low_balance::text end,
       {_JOURNAL}
from unnest(%(stores)s::integer[], %(ids)s::bigint[]) as wanted (store_id, outbox_id)
join outbox using (store_id, outbox_id)
join stores on stores.store_id = outbox.store_id
cross join lateral unnest(outbox.accounts, outbox.seqs, outbox.sequences) with ordinality
    as item (account_id, seq, sequence, position)
cross join lateral (
    select * from journal as decided
    where (decided.store_id, decided.account_id, decided.seq) >= (outbox.store_id, item.account_id, item.seq)
    order by decided.store_id, decided.account_id, decided.seq limit 1
) as journal
left join lateral (
    select * from accounts as moved
    where (moved.store_id, moved.account_id) >= (outbox.store_id, item.account_id)
    order by moved.store_id, moved.account_id limit 1
) as accounts on accounts.store_id = outbox.store_id and accounts.account_id = item.account_id
where journal.store_id = outbox.store_id and journal.account_id = item.account_id and journal.seq = item.seq
order by outbox.outbox_id, item.position
"""  # noqa: S608  # the fragment is the constant above

#: How many decisions the account had with the row. Each decision that moved nothing names the entries before it, so
#: those that came before an entry are found by halving; they are numbered -1, -2, -3 …. Before 0006 they did not:
#: there the time decides, and one in the same batch as the entry counts as before it.
_SEQUENCE = """
case when journal.seq < 0 and journal.entries_before is not null then journal.entries_before - journal.seq
when journal.seq > 0 then journal.seq + (
    with recursive halving (low, high) as (
        select 0::bigint, -coalesce(min(decision.seq), 0)
        from journal as decision
        where decision.store_id = journal.store_id and decision.account_id = journal.account_id and decision.seq < 0
        union all
        select case when middle.is_before then middle.number else halving.low end,
               case when middle.is_before then halving.high else middle.number - 1 end
        from halving cross join lateral (
            select -decision.seq as number,
                   coalesce(decision.entries_before < journal.seq, decision.created_at <= journal.created_at)
                       as is_before
            from journal as decision
            where decision.store_id = journal.store_id and decision.account_id = journal.account_id
              and decision.seq = -((halving.low + halving.high + 1) / 2)
        ) as middle
        where halving.low < halving.high
    )
    select low from halving where low = high
) end
"""

#: Results that are to be sent to a URL; the journal's columns are null where there is no row. The batch that decided
#: the row knew its number in the account's history; one that found it decided before did not.
READ_CALLBACKS = f"""
select outbox.store_id, (extract(epoch from outbox.created_at) * 1000000)::bigint,
       callback.url, callback.idempotency_key, callback.account_id, coalesce(callback.sequence, {_SEQUENCE}),
       callback.refusal::text,
       {_JOURNAL}
from unnest(%(stores)s::integer[], %(ids)s::bigint[]) as wanted (store_id, outbox_id)
join outbox using (store_id, outbox_id)
cross join lateral jsonb_to_recordset(outbox.callbacks)
    as callback (url text, idempotency_key text, account_id text, seq bigint, sequence bigint, refusal jsonb)
left join lateral (
    select * from journal as decided
    where (decided.store_id, decided.account_id, decided.seq)
        >= (outbox.store_id, substr(callback.account_id, 5)::uuid, callback.seq)
    order by decided.store_id, decided.account_id, decided.seq limit 1
) as journal on journal.store_id = outbox.store_id
    and journal.account_id = substr(callback.account_id, 5)::uuid and journal.seq = callback.seq
where outbox.callbacks is not null
order by outbox.outbox_id
"""  # noqa: S608  # the fragment is the constant above

#: The events that somebody wants, for each row of the outbox: of endpoints that were there when it was written.
READ_WANTED = f"""
select outbox.store_id, outbox.outbox_id, endpoints.events
from unnest(%(stores)s::integer[], %(ids)s::bigint[]) as wanted (store_id, outbox_id)
join outbox using (store_id, outbox_id)
join webhook_endpoints as endpoints on endpoints.store_id = outbox.store_id
    and endpoints.kind = {_ENDPOINT} and endpoints.status = {_ENABLED} and endpoints.created_at <= outbox.created_at
"""  # noqa: S608

#: What happened; an event that is there was made before.
INSERT_EVENTS = """
insert into events (store_id, event_id, event_type, created_at, body)
select * from unnest(%(stores)s::integer[], %(events)b::uuid[], %(types)b::text[], %(moments)b::timestamptz[],
                     %(bodies)b::text[])
on conflict do nothing
"""

#: One delivery for each endpoint that wants the event. Sorted so that what one endpoint gets lies together.
INSERT_DELIVERIES = f"""
insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at)
select made.store_id, endpoints.endpoint_id, made.event_id, {_PENDING}, now(), now()
from unnest(%(stores)s::integer[], %(events)b::uuid[], %(types)b::text[], %(ids)s::bigint[]) with ordinality
    as made (store_id, event_id, event_type, outbox_id, position)
join outbox on outbox.store_id = made.store_id and outbox.outbox_id = made.outbox_id
join webhook_endpoints as endpoints on endpoints.store_id = made.store_id
    and endpoints.kind = {_ENDPOINT} and endpoints.status = {_ENABLED} and endpoints.created_at <= outbox.created_at
    and (endpoints.events = '{{}}' or made.event_type = any(endpoints.events))
order by endpoints.endpoint_id, made.position
on conflict do nothing
"""  # noqa: S608

#: A secret for the callbacks of stores that have none.
MAKE_CALLBACK_SECRETS = """
insert into callback_secrets (store_id, secret)
select * from unnest(%(stores)s::integer[], %(secrets)s::text[])
on conflict do nothing
"""

#: Which of these origins a store has, and how many in all.
READ_ORIGINS = f"""
select store_id, url, 0 from webhook_endpoints
where kind = {_CALLBACKS} and (store_id, url) in (select * from unnest(%(stores)s::integer[], %(origins)b::text[]))
union all
select store_id, null, count(*) from webhook_endpoints
where kind = {_CALLBACKS} and store_id = any(%(stores)s::integer[]) group by store_id
"""  # noqa: S608

#: One endpoint for each origin that callbacks go to. One that was given up gets another chance.
MAKE_ORIGINS = f"""
insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret)
select wanted.store_id, gen_random_uuid(), {_CALLBACKS}, {_ENABLED}, wanted.origin, callback_secrets.secret
from unnest(%(stores)s::integer[], %(origins)b::text[]) as wanted (store_id, origin)
join callback_secrets using (store_id)
order by wanted.store_id, wanted.origin
on conflict (store_id, url) where kind = {_CALLBACKS}
do update set status = {_ENABLED}, disabled_reason = null, failing_since = null, updated_at = now()
where webhook_endpoints.status <> {_ENABLED}
"""  # noqa: S608

INSERT_CALLBACKS = f"""
insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at, url)
select made.store_id, endpoints.endpoint_id, made.event_id, {_PENDING}, now(), now(), made.url
from unnest(%(stores)s::integer[], %(events)b::uuid[], %(origins)b::text[], %(urls)b::text[]) with ordinality
    as made (store_id, event_id, origin, url, position)
join webhook_endpoints as endpoints
    on endpoints.store_id = made.store_id and endpoints.url = made.origin and endpoints.kind = {_CALLBACKS}
order by endpoints.endpoint_id, made.position
on conflict do nothing
"""  # noqa: S608

DELETE_OUTBOX = """
delete from outbox using unnest(%(stores)s::integer[], %(ids)s::bigint[]) as done (store_id, outbox_id)
where outbox.store_id = done.store_id and outbox.outbox_id = done.outbox_id
"""

#: What is signed with: an endpoint's own secrets, or of callbacks their store's.
_SECRETS = f"""
case endpoints.kind when {_CALLBACKS} then coalesce(secrets.secret, endpoints.secret) else endpoints.secret end,
case endpoints.kind
    when {_CALLBACKS} then case when secrets.previous_secret_until > now() then secrets.previous_secret end
    else case when endpoints.previous_secret_until > now() then endpoints.previous_secret end
end
"""

#: Takes endpoints that have something due, in turn from each store: of a store those first that work, and of them
#: those that have waited longest. Whoever has none held has all the room; the last lock finds again what was found.
TAKE_ENDPOINTS = f"""
with due as (
    select endpoints.store_id, endpoints.endpoint_id, endpoints.failing_since is not null as failing,
           coalesce(endpoints.sender_until, endpoints.created_at) as since
    from webhook_endpoints as endpoints
    where endpoints.status = {_ENABLED} and (%(also_failing)s or endpoints.failing_since is null)
      and (endpoints.paused_until is null or endpoints.paused_until <= now())
      and (endpoints.sender is null or endpoints.sender_until <= now())
      and exists (
          select from deliveries
          where deliveries.store_id = endpoints.store_id and deliveries.endpoint_id = endpoints.endpoint_id
            and deliveries.status = {_PENDING} and deliveries.next_attempt_at <= now()
      )
), turns as (
    select due.*, row_number() over (partition by store_id order by failing, since) as turn,
           row_number() over (partition by store_id, failing order by since) as turn_of_kind
    from due
), chosen as (
    select turns.store_id, turns.endpoint_id
    from turns left join unnest(%(stores)s::integer[], %(rooms)s::integer[], %(failing_rooms)s::integer[])
        as held (store_id, room, failing_room) using (store_id)
    where turn <= coalesce(held.room, %(room)s)
      and (not failing or turn_of_kind <= coalesce(held.failing_room, %(failing_room)s))
    order by turn, failing, since
    limit %(limit)s
), locked as (
    select endpoints.store_id, endpoints.endpoint_id
    from chosen join webhook_endpoints as endpoints using (store_id, endpoint_id)
    where endpoints.status = {_ENABLED} and (endpoints.sender is null or endpoints.sender_until <= now())
    for update of endpoints skip locked
)
update webhook_endpoints as endpoints
set sender = %(sender)s, sender_until = now() + make_interval(secs => %(seconds)s)
from locked
left join callback_secrets as secrets on secrets.store_id = locked.store_id
where endpoints.store_id = locked.store_id and endpoints.endpoint_id = locked.endpoint_id
returning endpoints.store_id, endpoints.endpoint_id, endpoints.kind,
    endpoints.kind = {_CALLBACKS} and position('://' in endpoints.url) = 0,
    extract(epoch from now() - endpoints.failing_since)::float8, {_SECRETS}
"""  # noqa: S608  # the fragment is the constant above

#: Keeps endpoints for longer; gives back those that are still ours to send to.
RENEW_ENDPOINTS = f"""
update webhook_endpoints as endpoints
set sender_until = now() + make_interval(secs => %(seconds)s)
from unnest(%(stores)s::integer[], %(endpoints)b::uuid[]) as held (store_id, endpoint_id)
where endpoints.store_id = held.store_id and endpoints.endpoint_id = held.endpoint_id
  and endpoints.sender = %(sender)s and endpoints.status = {_ENABLED}
returning endpoints.store_id, endpoints.endpoint_id
"""  # noqa: S608

RELEASE_ENDPOINTS = """
update webhook_endpoints as endpoints set sender = null, sender_until = now()
from unnest(%(stores)s::integer[], %(endpoints)b::uuid[]) as held (store_id, endpoint_id)
where endpoints.store_id = held.store_id and endpoints.endpoint_id = held.endpoint_id
  and endpoints.sender = %(sender)s
"""

#: The next deliveries of each endpoint, oldest first, beyond those that are at hand already. URL and secrets are those
#: of now: whoever has changed them, or disabled the endpoint, sees it in what happens next. One descent for each body:
#: a join might read all events through.
READ_DUE = f"""
select wanted.store_id, wanted.endpoint_id, {_SECRETS},
       due.event_id, due.attempts, coalesce(due.url, endpoints.url), events.body
from unnest(%(stores)s::integer[], %(endpoints)b::uuid[], %(limits)s::integer[], %(held)s::text[])
    as wanted (store_id, endpoint_id, room, held)
join webhook_endpoints as endpoints
    on endpoints.store_id = wanted.store_id and endpoints.endpoint_id = wanted.endpoint_id
    and endpoints.status = {_ENABLED} and endpoints.sender = %(sender)s
left join callback_secrets as secrets on secrets.store_id = wanted.store_id
cross join lateral (
    select deliveries.event_id, deliveries.attempts, deliveries.url from deliveries
    where deliveries.store_id = wanted.store_id and deliveries.endpoint_id = wanted.endpoint_id
      and deliveries.status = {_PENDING} and deliveries.next_attempt_at <= now()
      and deliveries.event_id <> all(wanted.held::uuid[])
    order by deliveries.next_attempt_at
    limit wanted.room
) as due
left join lateral (
    select body from events where events.store_id = wanted.store_id and events.event_id = due.event_id limit 1
) as events on true
"""  # noqa: S608  # the fragment is the constant above

#: How attempts went. A delivery that somebody else has brought further meanwhile is left as it is. Whether it is
#: pending is asked in a way that does not lead to the index of the pending ones, to be walked through for each.
WRITE_ATTEMPTS = f"""
update deliveries
set status = made.status, attempts = deliveries.attempts + 1, last_attempt_at = now(),
    next_attempt_at = case when made.status = {_PENDING} then now() + make_interval(secs => made.delay) end,
    response_status = made.response_status, latency_ms = made.latency_ms, response_body = made.response_body,
    error = made.error
from unnest(%(stores)s::integer[], %(endpoints)b::uuid[], %(events)b::uuid[], %(attempts)s::smallint[],
            %(statuses)s::smallint[], %(delays)s::float8[], %(response_statuses)s::smallint[],
            %(latencies)s::integer[], %(bodies)b::text[], %(errors)b::text[])
     as made (store_id, endpoint_id, event_id, attempts, status, delay, response_status, latency_ms, response_body,
              error)
where deliveries.store_id = made.store_id and deliveries.endpoint_id = made.endpoint_id
  and deliveries.event_id = made.event_id and deliveries.next_attempt_at is not null
  and deliveries.attempts = made.attempts
"""  # noqa: S608

#: How endpoints fare: since when they fail, until when they are left alone, and which of them are given up.
WRITE_HEALTH = f"""
update webhook_endpoints as endpoints
set failing_since = case when seen.failing then coalesce(endpoints.failing_since, now()) end,
    paused_until = case when seen.pause > 0 then now() + make_interval(secs => seen.pause) end,
    status = case when seen.reason is not null or seen.too_long then {_DISABLED} else endpoints.status end,
    disabled_reason = case
        when seen.reason is not null then seen.reason
        when seen.too_long then %(too_long_reason)s
        else endpoints.disabled_reason
    end,
    updated_at = case when seen.reason is not null or seen.too_long then now() else endpoints.updated_at end
from (
    select health.*, known.failing_since is not null and health.failing
        and known.failing_since <= now() - make_interval(secs => %(longest)s) as too_long
    from unnest(%(stores)s::integer[], %(endpoints)b::uuid[], %(failing)s::boolean[], %(pauses)s::float8[],
                %(reasons)s::text[]) as health (store_id, endpoint_id, failing, pause, reason)
    join webhook_endpoints as known
        on known.store_id = health.store_id and known.endpoint_id = health.endpoint_id
    where known.status = {_ENABLED}
    order by known.store_id, known.endpoint_id
    for update of known
) as seen
where endpoints.store_id = seen.store_id and endpoints.endpoint_id = seen.endpoint_id
returning endpoints.store_id, endpoints.endpoint_id, endpoints.kind, endpoints.status, endpoints.disabled_reason
"""  # noqa: S608

#: Lets the ledger's workers know that somebody subscribes to less than before.
BUMP_SUBSCRIPTIONS = "update installation set subscriptions_version = subscriptions_version + 1"

#: Gives deliveries whose attempts are used up the whole schedule again.
REARM = f"""
update deliveries set status = {_PENDING}, attempts = 0, next_attempt_at = now()
where store_id = %(store)s and endpoint_id = %(endpoint)s and event_id = any(%(events)b::uuid[]) and status = {_FAILED}
"""  # noqa: S608
