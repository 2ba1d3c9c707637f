"""The statements of `whole` on holds, each over one range of accounts, in the form of `whole_sql`. They only read."""

from __future__ import annotations

from ..schemas.errors import AccountHasHolds
from ..schemas.identifiers import HOLD_PREFIX
from ..schemas.kinds import Kind
from ..schemas.statuses import HoldStatus, Status, listed

_HOLD, _CAPTURE, _VOID, _EXTEND, _EXPIRY = Kind.HOLD, Kind.CAPTURE, Kind.VOID, Kind.EXTEND, Kind.EXPIRY
_ON_HOLDS = listed((_CAPTURE, _VOID, _EXTEND, _EXPIRY))
#: Rows that show that an account has to do with holds.
OF_HOLDS = (
    f"(held_after is not null or kind in {listed((_HOLD, _CAPTURE, _VOID, _EXTEND, _EXPIRY))} "
    f"or rejection = '{AccountHasHolds.code}')"
)

_IN_RANGE = """
(store_id, account_id) > (%(after_store)s, %(after_account)s)
and (store_id, account_id) <= (%(last_store)s, %(last_account)s)
"""

#: By how much a row lowers what is held; null where it should say so and does not.
_RELEASED = f"""case when kind in ({_VOID:d}, {_EXPIRY:d}) then amount
    when kind <> {_CAPTURE:d} then 0
    when content ->> 'released' ~ '^[0-9]+$' then (content ->> 'released')::numeric end"""

#: What is held after each row is what was held before it, and what the row set aside or released. Rows in their order:
#: a decision after as many entries as it says.
HELD = f"""
with holder as (
    select distinct store_id, account_id from journal where {_IN_RANGE} and {OF_HOLDS}
), walked as (
    select journal.*, lag(held_after) over place as held_before
    from journal join holder using (store_id, account_id)
    window place as (partition by store_id, account_id
        order by case when seq > 0 then seq else coalesce(entries_before, 0) end, seq < 0, abs(seq))
), expected as (
    select *, coalesce(held_before, 0) + case when rejection is not null then 0 when kind = {_HOLD:d} then amount
        else -{_RELEASED} end as expected_held
    from walked
)
select finding.check_name, store_id, account_id, seq, finding.expected, finding.found
from expected cross join lateral (values
    ('held', expected_held is distinct from coalesce(held_after, 0), expected_held::text,
        coalesce(held_after, 0)::text),
    ('hold_closing', kind = {Kind.CLOSE:d} and (rejection is null and held_after > 0
            or rejection = '{AccountHasHolds.code}' and held_after is null),
        case when rejection is null then 'nothing held' else 'something held' end, coalesce(held_after, 0)::text)
) as finding (check_name, broken, expected, found)
where finding.broken
"""  # noqa: S608

#: Every decision that made a hold has it, and it is what its captures, extensions and its end have made of it. A row
#: on a hold releases something, or nothing at all would show that it came after the end.
STATES = f"""
with act as (
    select store_id, account_id, seq, kind, amount, created_at, content ->> 'hold_id' as hold_id,
        {_RELEASED} as released, content ->> 'ends_at' as ends_at
    from journal where {_IN_RANGE} and kind in {_ON_HOLDS} and rejection is null
), made as (
    select *, '{HOLD_PREFIX}' || replace(account_id::text, '-', '') || to_hex(-seq) as hold_id
    from journal where {_IN_RANGE} and kind = {_HOLD:d} and rejection is null
), summed as (
    select store_id, account_id, hold_id, sum(released) as released,
        coalesce(sum(amount) filter (where kind = {_CAPTURE:d}), 0) as captured,
        count(*) filter (where kind = {_VOID:d}) as voids, count(*) filter (where kind = {_EXPIRY:d}) as expiries,
        (array_agg(ends_at order by seq) filter (where kind = {_EXTEND:d}))[1] as ends_at
    from act group by store_id, account_id, hold_id
), expected as (
    select made.store_id, made.account_id, made.seq, made.amount, made.reference, made.created_at,
        made.amount - coalesce(summed.released, 0) as remaining, coalesce(summed.captured, 0) as captured,
        coalesce(summed.ends_at, made.content ->> 'ends_at') as ends_at, coalesce(voids, 0) as voids,
        coalesce(expiries, 0) as expiries
    from made left join summed using (store_id, account_id, hold_id)
), judged as (
    select expected.*, hold.seq as hold_seq, hold.amount as hold_amount, hold.reference as hold_reference,
        hold.created_at as hold_created_at, hold.expires_at as hold_expires_at, hold.status,
        concat_ws(' ', case when expected.remaining > 0 and voids + expiries = 0 then {HoldStatus.OPEN:d}
            when expected.remaining <> 0 or voids + expiries > 1 then null
            when voids = 1 then {HoldStatus.VOIDED:d} when expiries = 1 then {HoldStatus.EXPIRED:d}
            else {HoldStatus.CAPTURED:d} end, expected.captured, expected.remaining) as wanted_state,
        concat_ws(' ', hold.status, hold.captured, hold.remaining) as found_state
    from expected left join lateral (
        select * from holds
        where holds.store_id = expected.store_id and holds.account_id = expected.account_id
            and holds.seq = -expected.seq
        limit 1
    ) as hold on true
)
select finding.check_name, store_id, account_id, seq, finding.expected, finding.found
from judged cross join lateral (values
    ('hold_decision', (hold_seq is not null and hold_amount = amount and hold_reference = reference
            and hold_created_at = created_at) is not true, concat_ws(' ', amount, reference),
        coalesce(concat_ws(' ', hold_amount, hold_reference), 'none')),
    ('hold_state', wanted_state <> found_state, wanted_state, found_state),
    ('hold_end', hold_seq is not null and (ends_at::timestamptz = hold_expires_at) is not true, ends_at,
        hold_expires_at::text)
) as finding (check_name, broken, expected, found)
where finding.broken
union all
select 'hold_state', act.store_id, act.account_id, act.seq, 'a hold of the account, of which something is released',
    concat(coalesce(act.hold_id, 'none'), ', ', coalesce(act.released::text, 'unknown'))
from act left join made using (store_id, account_id, hold_id)
where made.seq is null or (act.kind <> {_EXTEND:d} and (act.released > 0) is not true)
"""  # noqa: S608

#: Every hold was made by a decision, and none is open on an account that is closed. Nothing to read where nobody holds.
HOLDS = f"""
with ranged as (
    select * from holds where {_IN_RANGE}
)
select 'hold_decision', ranged.store_id, ranged.account_id, -ranged.seq, 'a decision that made it', 'none'
from ranged where not exists (
    select from journal where journal.store_id = ranged.store_id and journal.account_id = ranged.account_id
        and journal.seq = -ranged.seq and journal.kind = {_HOLD:d} and journal.rejection is null
)
union all
select 'hold_closing', ranged.store_id, ranged.account_id, -ranged.seq, 'no open hold on a closed account', 'open'
from ranged join accounts using (store_id, account_id)
where ranged.status = {HoldStatus.OPEN:d} and accounts.status = {Status.CLOSED:d}
"""  # noqa: S608
