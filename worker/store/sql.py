"""Every statement the worker runs, named. Sets go in as arrays; nothing is ever pasted into a text."""

from __future__ import annotations

from ...schemas.journal_columns import COPIED_ALWAYS, COPIED_RARELY, select_list
from ...schemas.statuses import HoldStatus, Status, StoredEndpointKind, StoredEndpointStatus

#: Bounds for this transaction only, so that a pooler in transaction mode is fine. Those of the role must not cut it;
#: the limit of whole transactions came with Postgres 17.
#: Waits for locks end a little before statements do: so the error says whether others or the work took too long.
#: A process that is stopped inside a transaction must not keep its leases locked against the next owner.
#: The version is read before anything is decided: whoever subscribes before a command is sent hears of it. So is the
#: release that workers must be of, which only ever grows; where Postgres was restored, it may have to grow again.
BEGIN_BATCH = """
select (select subscriptions_version from installation), (select required_release from installation),
       set_config('statement_timeout', %(timeout_ms)s, true),
       set_config('idle_in_transaction_session_timeout', %(timeout_ms)s, true),
       set_config('lock_timeout', %(lock_ms)s, true),
       case when current_setting('transaction_timeout', true) is not null
            then set_config('transaction_timeout', '0', true) end
"""

#: What is read of locked lanes: partition, epoch if the lane is the worker's (else -1), and the count `reached`;
#: and the one clock of all workers, in microseconds since 1970. Above an aggregate, so that the clock is read when all
#: the locks are held: whoever moved an account of these lanes before has committed by then, with an earlier time.
_LOCKED_LANES = """
select coalesce(array_agg(array[partition, case when worker_id = %(worker_id)s then epoch else -1 end, reached]), '{}'),
       (extract(epoch from clock_timestamp()) * 1000000)::bigint
from lanes
"""

#: The leases of a batch, locked against a change of owner, and against transactions of other lanes, until the batch is
#: committed.
LOCK_LEASES = f"""
with lanes as (
    select partition, worker_id, epoch, reached from leases
    where worker_id = %(worker_id)s and partition = any(%(partitions)s)
    order by partition
    for share
){_LOCKED_LANES}
"""  # noqa: S608  # the fragment is the constant above

#: The leases of a batch and of the other lanes that its transactions write to, which stand still until it is committed.
#: In the same order as above, so that no two batches wait for each other. The count `reached` makes the owners of the
#: other lanes forget what they remember of the accounts there; what is read is the count before.
LOCK_LANES = f"""
with lanes as (
    select partition, worker_id, epoch, reached from leases
    where partition = any(%(partitions)s)
    order by partition
    for update
), counted as (
    update leases set reached = leases.reached + 1 from lanes
    where leases.partition = lanes.partition and leases.partition = any(%(foreign)s)
){_LOCKED_LANES}
"""  # noqa: S608  # the fragment is the constant above

#: Accounts of a batch in one fixed order, so that two batches cannot wait for each other.
LOCK_ACCOUNTS = """
select 1 from accounts
join unnest(%(stores)s::integer[], %(accounts)s::uuid[]) as wanted (store_id, account_id) using (store_id, account_id)
order by store_id, account_id
for update of accounts
"""

#: Accounts as they stand. The balance is on the latest entry: one descent of the primary key for each sign of seq.
#: What is held is on the later of both: of the decision, if it was made after as many entries as there are.
LOAD_ACCOUNTS = """
select wanted.store_id, wanted.account_id, accounts.status, accounts.overdraft_limit::text,
       entry.seq, entry.balance_after::text, decision.seq,
       (extract(epoch from greatest(entry.created_at, decision.created_at)) * 1000000)::bigint,
       (case when decision.entries_before >= coalesce(entry.seq, 0) then decision.held_after else entry.held_after
        end)::text,
       accounts.max_balance::text, accounts.low_balance::text
from unnest(%(stores)s::integer[], %(accounts)s::uuid[]) as wanted (store_id, account_id)
left join accounts using (store_id, account_id)
left join lateral (
    select seq, balance_after, created_at, held_after from journal
    where journal.store_id = wanted.store_id and journal.account_id = wanted.account_id and seq > 0
    order by seq desc limit 1
) as entry on true
left join lateral (
    select seq, created_at, entries_before, held_after from journal
    where journal.store_id = wanted.store_id and journal.account_id = wanted.account_id and seq < 0
    order by seq limit 1
) as decision on true
"""

_ROW = select_list()

#: Rows that hold one of these idempotency keys already.
LOAD_KNOWN = f"""
select {_ROW} from journal
join unnest(%(stores)s::integer[], %(keys)s::text[]) as wanted (store_id, idempotency_key)
using (store_id, idempotency_key)
"""  # noqa: S608  # the fragment is the constant above

#: Entries by position: what a reversal wants to undo.
LOAD_ENTRIES = f"""
select {_ROW} from journal
join unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(seqs)s::bigint[]) as wanted (store_id, account_id, seq)
using (store_id, account_id, seq)
"""  # noqa: S608  # the fragment is the constant above

#: How much of each of these transactions is reversed: by the whole reversal, and by those of parts, whose keys lie
#: between two bounds. Two ranges of the unique index, of as many rows as there were attempts at it.
LOAD_REVERSED = """
select wanted.store_id, wanted.transaction_id, (coalesce(whole.amount, 0) + coalesce(parts.amount, 0))::text
from unnest(%(stores)s::integer[], %(transactions)s::text[], %(wholes)s::text[], %(above)s::text[], %(below)s::text[])
     as wanted (store_id, transaction_id, whole, above, below)
left join lateral (
    select sum(amount) as amount from journal
    where journal.store_id = wanted.store_id and journal.idempotency_key = wanted.whole and journal.seq > 0
) as whole on true
left join lateral (
    select sum(amount) as amount from journal
    where journal.store_id = wanted.store_id and journal.idempotency_key > wanted.above
        and journal.idempotency_key < wanted.below and journal.seq > 0
) as parts on true
"""

#: Opens accounts whose id and name are free, in one fixed order, and returns which those are.
CLAIM_ACCOUNTS = f"""
insert into accounts
    (store_id, account_id, customer_id, name, name_key, unit_label, status, overdraft_limit, created_at, updated_at,
     metadata)
select store_id, account_id, customer_id, name, name_key, unit_label, {Status.ACTIVE:d}, overdraft_limit::numeric,
       moment, moment, metadata::jsonb
from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(customers)s::text[], %(names)s::text[],
            %(name_keys)s::text[], %(unit_labels)s::text[], %(limits)s::text[], %(moments)s::timestamptz[],
            %(metadata)s::text[])
     with ordinality as wanted
     (store_id, account_id, customer_id, name, name_key, unit_label, overdraft_limit, moment, metadata, position)
order by store_id, customer_id, name_key, wanted.position
on conflict do nothing
returning store_id, account_id
"""  # noqa: S608

#: Which open account has the name that each of these wants: one descent each of the index on open names.
FIND_NAME_HOLDERS = f"""
select wanted.store_id, wanted.account_id, holder.account_id
from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(customers)s::text[], %(name_keys)s::text[])
     as wanted (store_id, account_id, customer_id, name_key)
join lateral (
    select account_id from accounts
    where accounts.store_id = wanted.store_id and accounts.customer_id = wanted.customer_id
      and accounts.name_key = wanted.name_key and accounts.status <> {Status.CLOSED:d}
    limit 1
) holder on true
"""  # noqa: S608

#: Changes of status, each from the status that was seen.
CHANGE_STATUS = """
update accounts set status = changed.status, updated_at = greatest(changed.moment, accounts.created_at)
from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(seen)s::smallint[], %(statuses)s::smallint[],
            %(moments)s::timestamptz[]) as changed (store_id, account_id, seen, status, moment)
where accounts.store_id = changed.store_id and accounts.account_id = changed.account_id
  and accounts.status = changed.seen
"""

#: How many holds are open of accounts that have any, and when the first of them ends.
COUNT_OPEN_HOLDS = f"""
select wanted.store_id, wanted.account_id, opened.count, (extract(epoch from opened.earliest) * 1000000)::bigint
from unnest(%(stores)s::integer[], %(accounts)s::uuid[]) as wanted (store_id, account_id)
cross join lateral (
    select count(*), min(expires_at + interval '0') as earliest from holds
    where holds.store_id = wanted.store_id and holds.account_id = wanted.account_id
      and holds.status = {HoldStatus.OPEN:d}
) as opened
"""  # noqa: S608

_HOLD = """holds.store_id, holds.account_id, holds.seq, holds.status, holds.amount::text, holds.captured::text,
       holds.remaining::text, holds.reference, (extract(epoch from holds.created_at) * 1000000)::bigint,
       (extract(epoch from holds.expires_at) * 1000000)::bigint,
       (extract(epoch from holds.ended_at) * 1000000)::bigint"""

#: Holds by account and number: what a capture, a void or an extension names.
LOAD_HOLDS = f"""
select {_HOLD} from holds
join unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(seqs)s::bigint[]) as wanted (store_id, account_id, seq)
using (store_id, account_id, seq)
"""  # noqa: S608  # the fragment is the constant above

#: Open holds of each account that end up to a moment. The end is compared as a sum, since by the index on ends those of
#: the whole installation would be read.
LOAD_ENDING_HOLDS = f"""
select {_HOLD} from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(horizons)s::timestamptz[])
     as wanted (store_id, account_id, horizon)
join holds on holds.store_id = wanted.store_id and holds.account_id = wanted.account_id
  and holds.status = {HoldStatus.OPEN:d} and holds.expires_at + interval '0' <= wanted.horizon
limit %(most)s::bigint
"""  # noqa: S608

#: When the first of the others ends.
READ_NEXT_ENDS = f"""
select wanted.store_id, wanted.account_id, (
    select (extract(epoch from min(expires_at + interval '0')) * 1000000)::bigint from holds
    where holds.store_id = wanted.store_id and holds.account_id = wanted.account_id
      and holds.status = {HoldStatus.OPEN:d} and holds.expires_at + interval '0' > wanted.horizon
)
from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(horizons)s::timestamptz[])
     as wanted (store_id, account_id, horizon)
"""  # noqa: S608

_HOLD_VALUES = """
from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(seqs)s::bigint[], %(statuses)s::smallint[],
            %(amounts)s::text[], %(captured)s::text[], %(remaining)s::text[], %(references)s::text[],
            %(created)s::timestamptz[], %(expires)s::timestamptz[], %(ended)s::timestamptz[])
     as decided (store_id, account_id, seq, status, amount, captured, remaining, reference, created_at, expires_at,
                 ended_at)
"""

INSERT_HOLDS = f"""
insert into holds (store_id, account_id, seq, status, amount, captured, remaining, reference, created_at, expires_at,
                   ended_at)
select store_id, account_id, seq, status, amount::numeric, captured::numeric, remaining::numeric, reference,
       created_at, expires_at, ended_at
{_HOLD_VALUES}
"""

#: Changes of holds, each of which must be open still.
CHANGE_HOLDS = f"""
update holds set status = decided.status, captured = decided.captured::numeric, remaining = decided.remaining::numeric,
    expires_at = decided.expires_at, ended_at = decided.ended_at
{_HOLD_VALUES}
where holds.store_id = decided.store_id and holds.account_id = decided.account_id and holds.seq = decided.seq
  and holds.status = {HoldStatus.OPEN:d} and holds.amount = decided.amount::numeric
"""  # noqa: S608

#: What has been set of limits, each account as it stands afterwards. What was not set of the threshold of `balance.low`
#: stays as it is: processes of the release before set it beside the lanes.
CHANGE_LIMITS = """
update accounts set overdraft_limit = changed.overdraft_limit::numeric, max_balance = changed.max_balance::numeric,
    low_balance = case when changed.sets_low then changed.low_balance::numeric else accounts.low_balance end,
    low_balance_since = case when changed.sets_low then changed.low_balance_since else accounts.low_balance_since end,
    updated_at = greatest(changed.moment, accounts.updated_at)
from unnest(%(stores)s::integer[], %(accounts)s::uuid[], %(overdraft_limits)s::text[], %(max_balances)s::text[],
            %(sets_low)s::boolean[], %(low_balances)s::text[], %(low_balances_since)s::timestamptz[],
            %(moments)s::timestamptz[])
     as changed (store_id, account_id, overdraft_limit, max_balance, sets_low, low_balance, low_balance_since, moment)
where accounts.store_id = changed.store_id and accounts.account_id = changed.account_id
"""

#: The rows of a batch, as the text that `journal_rows.copy_text` makes.
COPY_JOURNAL = f"copy journal ({', '.join([*COPIED_ALWAYS, *COPIED_RARELY])}) from stdin"

#: The same where no row has anything in the other columns: plain credits and debits that were applied.
COPY_ENTRIES = f"copy journal ({', '.join(COPIED_ALWAYS)}) from stdin"

#: What enabled endpoints subscribe to, by store; an endpoint that names no event wants all of them.
LOAD_SUBSCRIPTIONS = f"""
select store_id, bool_or(events = '{{}}'), array_agg(distinct event) filter (where event is not null)
from webhook_endpoints left join lateral unnest(events) as event on true
where kind = {StoredEndpointKind.ENDPOINT:d} and status = {StoredEndpointStatus.ENABLED:d}
  and store_id = any(%(stores)s)
group by store_id
"""  # noqa: S608

#: The outbox rows of a transaction, one a store, as the bytes that `outbox_binary.copy_bytes` makes.
COPY_OUTBOX = "copy outbox (store_id, accounts, seqs, sequences, callbacks) from stdin (format binary)"

#: A command that cannot be decided. The id is derived from the lane's entry, so a redelivery adds nothing.
INSERT_DEAD_LETTER = """
insert into dead_letters (store_id, dead_letter_id, partition, lane_entry, payload, idempotency_key, code, reason)
values (%(store)s, %(id)s, %(partition)s, %(lane_entry)s, %(payload)s, %(key)s, %(code)s, %(reason)s)
on conflict do nothing
"""

FIND_STORES = "select public_id, store_id from stores where public_id = any(%(public_ids)s)"

#: The worker's heartbeat, which lasts for as long again as a lease, and what was counted so far.
HEARTBEAT = """
insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck, release)
values (%(worker_id)s, %(host)s, %(process_id)s, clock_timestamp() + make_interval(secs => %(lease_seconds)s),
        %(numbers)s::jsonb, %(lease_seconds)s, %(stuck)s, %(release)s)
on conflict (worker_id) do update set expires_at = excluded.expires_at, numbers = excluded.numbers,
    lease_seconds = excluded.lease_seconds, stuck = excluded.stuck, release = excluded.release
"""

#: Partitions in all, those that are nobody's, and those that are mine.
READ_SHARES = """
select (select count(*) from leases), (select count(*) from leases where worker_id is null),
       (select coalesce(array_agg(array[partition, epoch] order by partition), '{}')
        from leases where worker_id = %(worker_id)s)
"""

#: The other workers: their last heartbeat, how long it lasts by the clock, and whether they own anything. One whose
#: leases are left without it has none. Those that get no lanes are none of the others: they take no share.
READ_OTHERS = """
select coalesce(workers.worker_id, owners.worker_id), (extract(epoch from workers.expires_at) * 1000000)::bigint,
       extract(epoch from workers.expires_at - clock_timestamp())::float, workers.lease_seconds,
       coalesce(workers.stuck, false), owners.worker_id is not null
from workers
full join (select distinct worker_id from leases where worker_id is not null) as owners using (worker_id)
where coalesce(workers.worker_id, owners.worker_id) <> %(worker_id)s
  and (owners.worker_id is not null or coalesce(workers.release, 0) >= (select required_release from installation))
"""

#: Whether a worker of an older release lives, or has lanes, with which it may write to any account. One that died while
#: the clock was wrong lives no longer than its lease lasts.
HAS_OLDER_WORKERS = """
select exists (
    select from workers
    where coalesce(release, 0) < %(release)s and expires_at > clock_timestamp()
      and expires_at <= clock_timestamp() + make_interval(secs => coalesce(lease_seconds, 300) + 2)
) or exists (
    select from leases left join workers using (worker_id)
    where leases.worker_id is not null and coalesce(workers.release, 0) < %(release)s
)
"""

#: Keeps older workers from lanes from now on, or from the commit on. Whoever is just taking some has them before it.
REQUIRE_RELEASE = "update installation set required_release = greatest(required_release, %(release)s)"

#: Bounds how long the transaction waits for rows that others have locked, and how long it may keep others waiting.
BOUND_LOCKS = """
select set_config('lock_timeout', %(lock_ms)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_ms)s, true)
"""

#: Those of the workers whose heartbeat is the one that was seen, or that do not get on. A heartbeat that comes now
#: waits for the end of the transaction, and one that came in between keeps its worker.
LOCK_SILENT_WORKERS = """
select workers.worker_id from workers
join unnest(%(workers)s::text[], %(signs)s::bigint[]) as seen (worker_id, sign) using (worker_id)
where workers.stuck or (extract(epoch from workers.expires_at) * 1000000)::bigint = seen.sign
order by workers.worker_id
for update of workers
"""


def _take_leases(locking: str) -> str:
    return f"""
with free as (
    select leases.partition from leases
    where leases.worker_id is null or leases.worker_id = any(%(silent)s)
    order by leases.partition limit %(wanted)s
    for update {locking}
)
update leases set worker_id = %(worker_id)s, epoch = leases.epoch + 1 from free
where leases.partition = free.partition
returning leases.partition, leases.epoch
"""  # noqa: S608  # the fragment is one of the two below


#: Takes partitions that are nobody's or a silent worker's, those first that no batch has locked just now.
TAKE_UNLOCKED_LEASES = _take_leases("skip locked")
#: Takes such partitions also where the batch of another lane has to be waited for.
TAKE_LEASES = _take_leases("")

#: Ends sessions by name. While Postgres waits for the rows of a COPY none of its timeouts works: a process that is
#: stopped there, or a host that vanished, would keep its leases locked for as long as TCP keeps the connection.
END_SESSIONS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and usename = current_user and application_name = any(%(names)s)
"""


def _release_leases(locking: str) -> str:
    return f"""
with mine as (
    select partition from leases where worker_id = %(worker_id)s and partition = any(%(partitions)s)
    order by partition
    for update {locking}
)
update leases set worker_id = null, epoch = leases.epoch + 1 from mine where leases.partition = mine.partition
returning leases.partition
"""  # noqa: S608  # the fragment is one of the two below


#: Gives those partitions back that no batch has locked just now. The epoch moves on, so that nothing read before can
#: still be committed.
RELEASE_UNLOCKED_LEASES = _release_leases("skip locked")
#: Gives partitions back also where a batch has to be waited for. Locked in the order in which batches lock them.
RELEASE_LEASES = _release_leases("")

#: A worker that leaves, and those that have been silent for a day and own nothing.
FORGET_WORKERS = """
delete from workers
where worker_id = %(worker_id)s
   or (expires_at < now() - interval '1 day' and worker_id not in (select worker_id from leases
                                                                   where worker_id is not null))
"""

#: Puts epochs of this worker's leases above the fences that stand in Redis: Postgres was restored to an earlier state.
#: Who has a lease by Postgres alone may do so, and what it read under the old epoch can no longer be committed.
#: Locked in the order in which batches lock them.
RAISE_EPOCHS = """
with mine as (
    select leases.partition, standing.fence from leases
    join unnest(%(partitions)s::smallint[], %(fences)s::bigint[]) as standing (partition, fence) using (partition)
    where leases.worker_id = %(worker_id)s
    order by leases.partition
    for update of leases
)
update leases set epoch = greatest(leases.epoch, mine.fence + 1) from mine where leases.partition = mine.partition
returning leases.partition, leases.epoch
"""
