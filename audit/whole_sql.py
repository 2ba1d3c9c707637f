"""The statements of `whole`, each over one range of accounts. They only read.

Every statement that finds discrepancies returns rows of
(check, store_id, account_id, seq or null, expected or null, found or null), and none on sound books.
"""

from __future__ import annotations

from ..schemas.accounts import AVAILABLE_AFTER
from ..schemas.kinds import ASKED as ASKED_FIELD
from ..schemas.kinds import SPANNING, STATUS_CHANGES, Kind
from ..schemas.statuses import Status, listed
from .holds_sql import HELD, HOLDS, OF_HOLDS, STATES

_OPEN_ACCOUNT, _REVERSE, _POST = int(Kind.OPEN_ACCOUNT), int(Kind.REVERSE), int(Kind.POST)
_FREEZE, _UNFREEZE, _CLOSE = int(Kind.FREEZE), int(Kind.UNFREEZE), int(Kind.CLOSE)
#: The kinds whose credits a maximum balance bounds: not what opens an account, nor what gives back.
_MAX_JUDGED = listed((Kind.CREDIT, Kind.POST))
_SPANNING, _CHANGES = listed(SPANNING), listed(STATUS_CHANGES)
#: Whether a row has set a limit.
_LIMIT_SET = f"kind = {Kind.SET_LIMIT:d} and rejection is null"
#: Whether it has set this one.
_CREDIT_LIMIT_SET, _MAX_BALANCE_SET, _LOW_BALANCE_SET = (
    f"{_LIMIT_SET} and content ->> 'limit' = '{limit}'" for limit in ("credit_limit", "max_balance", "low_balance")
)
_DEBIT = int(Kind.DEBIT)
#: What a debit asked for that takes what is there.
_ASKED = f"(content ->> '{ASKED_FIELD}')::numeric"
#: After these nothing moves on an account.
_STOPPING = listed(kind for kind in STATUS_CHANGES if kind.record.status_after is not Status.ACTIVE)


def _side_of(kind: Kind) -> str:
    """Return the SQL for the side of a kind's entries: the only one that there is, or whatever the row says."""
    return "side" if len(kind.entry_sides) > 1 else str(*kind.entry_sides)


#: The side that an entry must have by its kind; null of a kind that makes none.
_ENTRY_SIDE = f"case kind {' '.join(f'when {kind:d} then {_side_of(kind)}' for kind in Kind if kind.entry_sides)} end"
#: The status in which each change leaves the account; a new one is active.
_STATUS_AFTER = " ".join(f"when {kind:d} then {kind.record.status_after:d}" for kind in sorted(STATUS_CHANGES))

#: Rows of the whole journal, for the progress.
COUNT_ROWS = "select count(*) from journal"

STORES = "select store_id, public_id from stores order by store_id"

#: The account in whose rows the next range ends. A range is whole accounts, so one account may make it long.
NEXT_BOUND = """
select store_id, account_id from journal
where (store_id, account_id) > (%(after_store)s, %(after_account)s)
order by store_id, account_id, seq
offset %(rows)s limit 1
"""

_IN_RANGE = """
(store_id, account_id) > (%(after_store)s, %(after_account)s)
and (store_id, account_id) <= (%(last_store)s, %(last_account)s)
"""

#: Per store: entries, other decisions, reversals, changes of state, parts of transactions, limits that were set and
#: rows that have to do with holds; what all entries moved, and the sum of the current balances.
TOTALS = f"""
with account as (
    select store_id, account_id, count(*) filter (where seq > 0) as entries,
        count(*) filter (where seq < 0) as decisions, count(*) filter (where kind = {_REVERSE}) as reversals,
        count(*) filter (where kind in {_CHANGES}) as changes,
        count(*) filter (where seq > 0 and kind in {_SPANNING}) as parts,
        count(*) filter (where {_LIMIT_SET}) as limits,
        count(*) filter (where {OF_HOLDS}) as holding,
        sum(side * amount) filter (where seq > 0) as moved, max(seq) as latest
    from journal where {_IN_RANGE}
    group by store_id, account_id
)
select account.store_id, sum(entries)::bigint, sum(decisions)::bigint, sum(reversals)::bigint, sum(changes)::bigint,
    sum(parts)::bigint, sum(limits)::bigint, sum(holding)::bigint, coalesce(sum(moved), 0)::text,
    coalesce(sum(balance_after), 0)::text
from account
left join journal on journal.store_id = account.store_id and journal.account_id = account.account_id
    and journal.seq = account.latest and account.latest > 0
group by account.store_id
"""  # noqa: S608  the range is a constant with placeholders

COUNT_ACCOUNTS = f"select count(*) from accounts where {_IN_RANGE}"  # noqa: S608

#: What a refusal says was needed and there: of a transaction, which may fail at an entry of another account or at a
#: later one of this, or of the row itself.
OBSTACLE = f"""
        coalesce((content -> 'obstacle' ->> 'needed')::numeric, amount) as needed,
        coalesce((content -> 'obstacle' ->> 'available')::numeric, {AVAILABLE_AFTER}) as available
"""

#: What is wrong with rows of `expected`, which are journal rows beside what they should be.
JUDGEMENT = f""", judged as (
    select *,
        seq is distinct from coalesce(expected_seq, case when entry then 1 else -1 end) as bad_sequence,
        entry and balance_after is distinct from expected_balance as bad_balance,
        balance_after < -coalesce(overdraft_limit, 0) as bad_limit,
        created_at < not_before as bad_time,
        entry and (side is distinct from {_ENTRY_SIDE} or side = 0 or rejection is not null) as bad_kind,
        rejection = 'insufficient_balance' and needed <= available as bad_refusal,
        kind = {_DEBIT} and content ? '{ASKED_FIELD}' and case
            when entry then amount > {_ASKED} or amount < {_ASKED} and available <> 0
            else rejection = 'insufficient_balance' and available > 0
        end as bad_partial,
        kind = {_CLOSE} and (rejection is null and balance_after < 0
            or rejection = 'account_overdrawn' and balance_after >= 0) as bad_closing
    from expected
)
select finding.check_name, store_id, account_id, seq, finding.expected, finding.found
from judged cross join lateral (values
    (case when entry then 'entry_sequence' else 'decision_sequence' end, bad_sequence,
        coalesce(expected_seq, case when entry then 1 else -1 end)::text, seq::text),
    ('running_balance', bad_balance, expected_balance::text, balance_after::text),
    ('overdraft_limit', bad_limit, 'at least ' || -coalesce(overdraft_limit, 0), balance_after::text),
    ('chronology', bad_time, 'not before ' || not_before, created_at::text),
    ('entry_kind', bad_kind, 'a movement of its kind, applied',
        concat('kind ', kind, ', side ', side, ', rejection ', coalesce(rejection, 'none'))),
    ('refusal', bad_refusal, 'less than ' || needed || ' available', available::text),
    ('partial_debit', bad_partial, 'up to ' || {_ASKED} || ' of what was available',
        concat(case when entry then amount else 0 end, ', and ', available, ' left')),
    ('closing', bad_closing, case when rejection is null then 'at least 0' else 'below 0' end, balance_after::text)
) as finding (check_name, broken, expected, found)
where (bad_sequence or bad_balance or bad_limit or bad_time or bad_kind or bad_refusal or bad_partial or bad_closing)
    and finding.broken
"""  # noqa: S608

#: Every row against the one before it. Entries count up from 1; decisions count down from -1, so that the one before a
#: decision follows it in the order of seq.
ROWS = f"""
with walked as (
    select *, lag(seq) over account as lower_seq, lag(balance_after) over account as lower_balance,
        lag(created_at) over account as lower_at, lead(seq) over account as upper_seq,
        lead(created_at) over account as upper_at
    from journal where {_IN_RANGE}
    window account as (partition by store_id, account_id order by seq)
), expected as (
    select *, seq > 0 as entry,
        case when seq > 0 then greatest(lower_seq, 0) + 1 else least(upper_seq, 0) - 1 end as expected_seq,
        case when lower_seq > 0 then lower_balance else 0 end + side * amount as expected_balance,
        case when seq > 0 and lower_seq > 0 then lower_at when seq < 0 and upper_seq < 0 then upper_at end
            as not_before,
        {OBSTACLE}
    from walked
){JUDGEMENT}
"""  # noqa: S608

#: What is wrong with rows of `decided`, which are journal rows that moved nothing and say how many entries their
#: account had by then: they name the balance after the last of these, and stand in time between it and the next.
SEQUENCES = """, placed as (
    select decided.*, coalesce(before.balance_after, 0) as expected_balance, before.created_at as not_before,
        after.created_at as not_after, earlier.entries_before as fewest_entries
    from decided
    left join lateral (
        select balance_after, created_at from journal
        where journal.store_id = decided.store_id and journal.account_id = decided.account_id
            and journal.seq = decided.entries_before and journal.seq > 0
        limit 1
    ) as before on true
    left join lateral (
        select created_at from journal
        where journal.store_id = decided.store_id and journal.account_id = decided.account_id
            and journal.seq = decided.entries_before + 1
        limit 1
    ) as after on true
    left join lateral (
        select entries_before from journal
        where journal.store_id = decided.store_id and journal.account_id = decided.account_id
            and journal.seq = decided.seq + 1 and journal.seq < 0
        limit 1
    ) as earlier on true
)
select finding.check_name, store_id, account_id, seq, finding.expected, finding.found
from placed cross join lateral (values
    ('decided_balance', balance_after <> expected_balance,
        concat(expected_balance, ', as after entry ', entries_before), balance_after::text),
    ('decision_place', created_at < not_before or created_at > not_after or entries_before < fewest_entries,
        concat('after entry ', greatest(entries_before, fewest_entries), ' and before the next: ',
            coalesce(not_before::text, 'any time'), ' to ', coalesce(not_after::text, 'now')),
        concat('after entry ', entries_before, ', at ', created_at))
) as finding (check_name, broken, expected, found)
where finding.broken
"""

DECISIONS = f"""
with decided as (
    select * from journal where {_IN_RANGE} and seq < 0 and entries_before is not null
){SEQUENCES}
"""  # noqa: S608

#: A decision that does not say how many entries its account had names a balance that the account has had. A window, not
#: an anti-join: the planner takes a range of accounts for one row and would compare every row with every other.
DECIDED_BALANCES = f"""
with decided as (
    select distinct store_id, account_id from journal where {_IN_RANGE} and seq < 0 and entries_before is null
), walked as (
    select store_id, account_id, seq, entries_before, balance_after,
        count(*) filter (where seq > 0) over balance as entries
    from journal join decided using (store_id, account_id)
    window balance as (partition by store_id, account_id, balance_after)
)
select 'decided_balance', store_id, account_id, seq, 'a balance the account has had', balance_after::text
from walked where seq < 0 and entries_before is null and balance_after <> 0 and entries = 0
"""  # noqa: S608

#: What is wrong with rows of `reversal`: journal rows beside what all reversals of the same entry have undone of it.
UNDOING = f"""
select finding.check_name, reversal.store_id, reversal.account_id, reversal.seq, finding.expected, finding.found
from reversal
left join lateral (
    select seq, kind, side, amount from journal
    where journal.store_id = reversal.store_id and journal.account_id = reversal.account_id
        and journal.seq = reversal.reversal_of
    limit 1
) as original on true
cross join lateral (values
    ('reversal_original', (original.seq between 1 and reversal.seq - 1) is not true, 'an earlier entry of the account',
        coalesce('seq ' || reversal.reversal_of, 'none')),
    ('reversal_amount', original.side <> -reversal.side or reversal.amount > original.amount
            or case when asked is null then undone < original.amount else asked <> reversal.amount end,
        concat(-original.side, ' x ', coalesce(asked, original.amount - undone + reversal.amount)),
        concat(reversal.side, ' x ', reversal.amount)),
    ('reversal_of_reversal', original.kind = {_REVERSE}, 'an entry that is no reversal',
        'seq ' || reversal.reversal_of),
    ('reversal_repeated', undone > original.amount and reversal.amount <= original.amount,
        'at most ' || original.amount || ' of seq ' || reversal.reversal_of, undone::text)
) as finding (check_name, broken, expected, found)
where finding.broken
"""  # noqa: S608

#: What a reversal was asked to undo; null of a whole one, which undoes what is left.
ASKED = """(content ->> 'amount')::numeric as asked"""

#: A reversal undoes an entry of its account that came earlier and is no reversal. All of one add up to at most it, and
#: to no less if there is a whole one.
REVERSALS = f"""
with reversal as (
    select *, {ASKED}, sum(amount) over (partition by store_id, account_id, reversal_of) as undone
    from journal where {_IN_RANGE} and kind = {_REVERSE} and seq > 0
){UNDOING}
"""  # noqa: S608

#: What is wrong with rows of `part`, which are journal rows of transactions. Lookups, not joins: the planner takes a
#: range of accounts for much of the journal, and would read all of it for every range.
PARTS = f""", first as (
    select *, case when jsonb_typeof(content -> 'entries') = 'array' then content -> 'entries' end as listed
    from part where transaction_seq is null
), entry as (
    select first.store_id, first.account_id, first.seq, first.reference as wanted, list.fields, list.position, found.*
    from first
    cross join lateral jsonb_array_elements(first.listed) with ordinality as list (fields, position)
    left join lateral (
        select side, amount, reference, case list.position when 1 then account_id = first.account_id and seq = first.seq
            else transaction_account = first.account_id and transaction_seq = first.seq end as belongs
        from journal
        where journal.store_id = first.store_id and journal.seq > 0
            and journal.account_id = case when list.fields ->> 'account_id' ~ '^cca_[0-9a-f]{{32}}$'
                then substr(list.fields ->> 'account_id', 5)::uuid end
            and journal.seq = case when list.fields ->> 'seq' ~ '^[1-9][0-9]{{0,17}}$'
                then (list.fields ->> 'seq')::bigint end
        limit 1
    ) as found on true
), whole as (
    select first.*, original.transaction_seq is not null as from_the_middle,
        coalesce(jsonb_array_length(original.content -> 'entries'), 1) as undone
    from first cross join lateral (
        select transaction_seq, content from journal
        where journal.store_id = first.store_id and journal.account_id = first.account_id
            and journal.seq = first.reversal_of
        limit 1
    ) as original
    where first.kind = {_REVERSE}
)
select 'listed_entry', store_id, account_id, seq, concat('entry ', position, ' as listed: ', fields),
    coalesce(side || ' x ' || amount, 'none')
from entry
where (belongs and side = case fields ->> 'side' when 'credit' then 1 when 'debit' then -1 end
    and amount::text = fields ->> 'amount') is not true
union all
select 'listed_entry', store_id, account_id, seq, 'a list of entries', 'none' from first
where kind = {_POST} and listed is null
union all
select 'transaction_sum', store_id, account_id, seq, '0', sum(side * amount)::text from entry
group by store_id, account_id, seq having sum(side * amount) <> 0
union all
select 'transaction_reference', store_id, account_id, seq, wanted, reference from entry
where belongs and reference is distinct from wanted
union all
select 'reversal_whole', store_id, account_id, seq, undone || ' entries, from the first',
    concat(coalesce(jsonb_array_length(listed), 1), case when from_the_middle then ', not from the first' end)
from whole where from_the_middle or undone <> coalesce(jsonb_array_length(listed), 1)
union all
select 'further_entry', part.store_id, part.account_id, part.seq, 'an entry that its transaction lists',
    case when first_entry.listed is null then 'no such transaction' else 'not listed' end
from part left join lateral (
    select journal.content -> 'entries' as listed from journal
    where journal.store_id = part.store_id and journal.account_id = part.transaction_account
        and journal.seq = part.transaction_seq and journal.transaction_seq is null
    limit 1
) as first_entry on true
where part.transaction_seq is not null and (first_entry.listed @> jsonb_build_array(jsonb_build_object(
    'account_id', 'cca_' || replace(part.account_id::text, '-', ''), 'seq', part.seq))) is not true
"""  # noqa: S608

#: A transaction of several entries lists them on its first; each of them exists, and names the first.
TRANSACTIONS = f"""
with part as (
    select * from journal where {_IN_RANGE} and kind in {_SPANNING} and seq > 0
){PARTS}
"""  # noqa: S608

#: Every account was opened once, as its command said, and is in the state that its changes of state led to.
ACCOUNTS = f"""
with history as (
    select store_id, account_id, count(*) filter (where kind = {_OPEN_ACCOUNT} and rejection is null) as openings,
        max(seq) as latest_entry, min(seq) filter (where kind = {_OPEN_ACCOUNT} and rejection is null) as opening,
        min(seq) filter (where kind in {_CHANGES} and rejection is null) as latest_change,
        min(coalesce(overdraft_limit, 0)) filter (where seq > 0) as lowest_limit,
        max(coalesce(overdraft_limit, 0)) filter (where seq > 0) as highest_limit,
        coalesce(bool_or({_CREDIT_LIMIT_SET}), false) as credit_limit_set,
        coalesce(bool_or({_MAX_BALANCE_SET}), false) as max_balance_set
    from journal where {_IN_RANGE}
    group by store_id, account_id
), ranged as (
    select * from accounts where {_IN_RANGE}
), joined as (
    select coalesce(history.store_id, ranged.store_id) as store_id,
        coalesce(history.account_id, ranged.account_id) as account_id,
        ranged.account_id is not null as known, coalesce(openings, 0) as openings, opening, latest_entry, status,
        ranged.overdraft_limit, lowest_limit, highest_limit, customer_id, name, name_key, unit_label, metadata,
        ranged.created_at as account_created_at, ranged.max_balance, coalesce(credit_limit_set, false) as limit_moved,
        coalesce(max_balance_set, false) as max_balance_set,
        change.kind as latest_change,
        case change.kind {_STATUS_AFTER} else {Status.ACTIVE:d} end as expected_status
    from history
    full join ranged on ranged.store_id = history.store_id and ranged.account_id = history.account_id
    left join journal as change on change.store_id = history.store_id and change.account_id = history.account_id
        and change.seq = history.latest_change
)
select finding.check_name, joined.store_id, joined.account_id, finding.seq, finding.expected, finding.found
from joined
left join journal as opened on opened.store_id = joined.store_id and opened.account_id = joined.account_id
    and opened.seq = joined.opening
cross join lateral (values
    ('account_exists', not known and (latest_entry > 0 or openings > 0 or latest_change is not null),
        null, 'an account', 'entries without an account'),
    ('account_opening', known and openings <> 1, null, '1 opening', openings::text),
    ('account_opening', opening > 1, opening, 'the first entry', 'seq ' || opening),
    ('account_content', known and (
            (content ->> 'customer_id', content ->> 'name', content ->> 'unit_label')
                is distinct from (customer_id, name, unit_label)
            or (not limit_moved and content ->> 'overdraft_limit' is distinct from joined.overdraft_limit::text)
            or content ->> 'initial_balance' is distinct from case when opening > 0 then amount::text else '0' end
            or coalesce(nullif(content -> 'metadata', 'null'), '{{}}') <> coalesce(metadata, '{{}}')
            or account_created_at > opened.created_at
            -- Where both ways of folding case agree; what must be unique is folded by Python.
            or (name collate "C" ~ '^[ -~]*$' and name_key <> lower(btrim(name, ' ') collate "C"))
        ) and openings = 1, opening, 'what the opening asked for', 'something else'),
    ('overdraft_limit', known and not limit_moved
            and (lowest_limit <> joined.overdraft_limit or highest_limit <> joined.overdraft_limit),
        null, joined.overdraft_limit::text, concat(lowest_limit, ' to ', highest_limit)),
    ('account_limits', max_balance is not null and not max_balance_set, null, 'no maximum balance', max_balance::text),
    ('account_status', status <> expected_status, null, expected_status::text, status::text)
) as finding (check_name, broken, seq, expected, found)
where finding.broken
"""  # noqa: S608

#: Freeze an active account, unfreeze a frozen one, close either, and nothing after that.
STATE_CHANGES = f"""
with change as (
    select *, lag(kind) over (partition by store_id, account_id order by seq desc) as kind_before
    from journal where {_IN_RANGE} and kind in {_CHANGES} and rejection is null
)
select 'state_change', store_id, account_id, seq, 'a change that the state before it allows',
    concat('kind ', kind, ' after ', coalesce(kind_before::text, 'opening'))
from change
where case kind when {_FREEZE} then kind_before <> {_UNFREEZE}
    when {_UNFREEZE} then kind_before is distinct from {_FREEZE}
    else kind_before = {_CLOSE} end
"""  # noqa: S608

#: Nothing moves on an account that is frozen or closed. The latest change has the lowest seq, hence the minimum. Where
#: every change says how many entries came before it, these stand in that order.
STOPPED_MOVEMENTS = f"""
with changed as (
    select store_id, account_id from journal
    where {_IN_RANGE} and kind in {_CHANGES} and rejection is null
    group by store_id, account_id having count(*) = count(entries_before)
), walked as (
    select store_id, account_id, seq,
        min(array[seq, kind]) filter (where kind in {_CHANGES} and rejection is null) over earlier as change
    from journal join changed using (store_id, account_id)
    window earlier as (partition by store_id, account_id order by coalesce(entries_before, seq), seq < 0
        range unbounded preceding)
)
select 'stopped_movement', store_id, account_id, seq, 'no entry while frozen or closed', 'after seq ' || change[1]
from walked where seq > 0 and change[2] in {_STOPPING}
"""  # noqa: S608

#: The same where only times show it. A change of state in the same microsecond proves nothing.
STOPPED_BY_TIME = f"""
with changed as (
    select store_id, account_id from journal
    where {_IN_RANGE} and kind in {_CHANGES} and rejection is null
    group by store_id, account_id having count(*) <> count(entries_before)
), walked as (
    select store_id, account_id, seq,
        min(array[seq, kind]) filter (where kind in {_CHANGES} and rejection is null) over earlier as change,
        count(*) filter (where kind in {_CHANGES} and rejection is null) over same as changes_now
    from journal join changed using (store_id, account_id)
    window earlier as (partition by store_id, account_id order by created_at range unbounded preceding),
        same as (partition by store_id, account_id order by created_at range current row)
)
select 'stopped_movement', store_id, account_id, seq, 'no entry while frozen or closed', 'after seq ' || change[1]
from walked where seq > 0 and changes_now = 0 and change[2] in {_STOPPING}
"""  # noqa: S608

#: What was set by a row that sets limits, or by an opening, in which the credit limit has another name.
_SET_TO = "coalesce({0}.content ->> 'amount', {0}.content ->> 'overdraft_limit', '0')::numeric"

#: Of accounts whose limits were set: each row beside the limits in force when it was decided. Decisions say how many
#: entries came before them, and the latest of several has the lowest seq; the first credit limit is the opening's.
LIMITS = f"""
with changed as (
    select store_id, account_id from journal where {_IN_RANGE} and {_LIMIT_SET} group by store_id, account_id
), walked as (
    select journal.*,
        min(seq) filter (where {_CREDIT_LIMIT_SET} or kind = {_OPEN_ACCOUNT} and rejection is null) over earlier
            as credit_set,
        min(seq) filter (where {_MAX_BALANCE_SET}) over earlier as max_set
    from journal join changed using (store_id, account_id)
    window earlier as (partition by store_id, account_id order by coalesce(entries_before, seq), seq < 0, -seq
        rows unbounded preceding)
), limited as (
    select walked.*, credit.amount as credit_limit, maximum.amount as max_balance
    from walked
    left join lateral (
        select {_SET_TO.format("journal")} as amount from journal
        where journal.store_id = walked.store_id and journal.account_id = walked.account_id
            and journal.seq = walked.credit_set
        limit 1
    ) as credit on true
    left join lateral (
        select (journal.content ->> 'amount')::numeric as amount from journal
        where journal.store_id = walked.store_id and journal.account_id = walked.account_id
            and journal.seq = walked.max_set
        limit 1
    ) as maximum on true
)
select finding.check_name, store_id, account_id, seq, finding.expected, finding.found
from limited cross join lateral (values
    ('overdraft_limit', coalesce(overdraft_limit, 0) <> credit_limit, credit_limit::text,
        coalesce(overdraft_limit, 0)::text),
    ('max_balance', seq > 0 and side > 0 and kind in {_MAX_JUDGED} and balance_after > max_balance,
        'at most ' || max_balance, balance_after::text),
    ('limit_refusal', rejection = 'max_balance_exceeded' and kind = {Kind.CREDIT:d}
            and (max_balance is null or balance_after + amount <= max_balance),
        'more than there is room for', amount::text),
    ('limit_refusal', rejection = 'credit_limit_in_use'
            and coalesce((content ->> 'amount')::numeric, 0) >= coalesce(held_after, 0) - balance_after,
        'less than ' || coalesce(held_after, 0) - balance_after, coalesce(content ->> 'amount', '0'))
) as finding (check_name, broken, expected, found)
where finding.broken
"""  # noqa: S608

#: An account has the limits that were set last. The threshold of `balance.low` may have been set since by a process of
#: the release before, in no order with the commands; then it says since when.
LIMITS_SET = f"""
with latest as (
    select store_id, account_id, min(seq) filter (where {_CREDIT_LIMIT_SET}) as credit_set,
        min(seq) filter (where {_MAX_BALANCE_SET}) as max_set, min(seq) filter (where {_LOW_BALANCE_SET}) as low_set
    from journal where {_IN_RANGE} and {_LIMIT_SET}
    group by store_id, account_id
), limited as (
    select latest.*, accounts.overdraft_limit, accounts.max_balance, accounts.low_balance,
        {_SET_TO.format("credit")} as expected_credit, (maximum.content ->> 'amount')::numeric as expected_max,
        (low.content ->> 'amount')::numeric as expected_low, low_balance_since <= low.created_at as low_set_by_command
    from latest join accounts using (store_id, account_id)
    left join journal as credit on credit.store_id = latest.store_id and credit.account_id = latest.account_id
        and credit.seq = credit_set
    left join journal as maximum on maximum.store_id = latest.store_id and maximum.account_id = latest.account_id
        and maximum.seq = max_set
    left join journal as low on low.store_id = latest.store_id and low.account_id = latest.account_id
        and low.seq = low_set
)
select 'account_limits', store_id, account_id, finding.seq, finding.expected, finding.found
from limited cross join lateral (values
    (credit_set, overdraft_limit <> expected_credit, 'credit_limit ' || expected_credit, overdraft_limit::text),
    (max_set, max_balance is distinct from expected_max, 'max_balance ' || coalesce(expected_max::text, 'none'),
        max_balance::text),
    (low_set, low_set_by_command and low_balance is distinct from expected_low,
        'low_balance ' || coalesce(expected_low::text, 'none'), low_balance::text)
) as finding (seq, broken, expected, found)
where finding.seq is not null and finding.broken
"""  # noqa: S608

#: What was decided later than now: Postgres's clock was ahead. A second is no matter. Now is when this statement came:
#: after whatever it sees was decided, as long as an earlier statement has taken the snapshot. The transaction may have
#: begun long before that. Not `clock_timestamp()`, for which the index on created_at cannot be used.
FUTURE = """
select 'future', store_id, account_id, seq, 'not after ' || statement_timestamp(), created_at::text
from journal where created_at > statement_timestamp() + interval '1 second'
"""

#: Every statement that returns discrepancies, by the rows that it needs to find any: all, or those of one sort.
CHECKS: dict[str, tuple[str, ...]] = {
    "all": (ROWS, ACCOUNTS, HOLDS),
    "holds": (HELD, STATES),
    "decisions": (DECISIONS, DECIDED_BALANCES),
    "reversals": (REVERSALS,),
    "parts": (TRANSACTIONS,),
    "changes": (STATE_CHANGES, STOPPED_MOVEMENTS, STOPPED_BY_TIME),
    "limits": (LIMITS, LIMITS_SET),
}
