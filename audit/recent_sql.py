"""The statements of `recent`: what `whole_sql` says of all rows, of those of a period and their neighbours.

Each costs what the period's rows cost, however long the journal is: the period is found by the index on created_at, and
every neighbour by the primary key. Hence lookups, not joins, of which the planner might read the whole journal.
"""

from __future__ import annotations

from ..schemas.commands import REVERSAL_KEY_PREFIX
from ..schemas.kinds import SPANNING, Kind
from ..schemas.statuses import listed
from .whole_sql import ASKED, JUDGEMENT, OBSTACLE, PARTS, SEQUENCES, UNDOING

_IN_PERIOD = "created_at >= %(since)s and created_at < %(until)s"

#: Entries and other decisions of the period.
COUNT_ROWS = f"""
select count(*) filter (where seq > 0), count(*) filter (where seq < 0) from journal where {_IN_PERIOD}
"""  # noqa: S608  the period is a constant with placeholders

#: Every row against the one before it, whose seq is nearer to zero.
ROWS = f"""
with fresh as (
    select * from journal where {_IN_PERIOD}
), walked as (
    select fresh.*, before.seq as before_seq, before.balance_after as before_balance, before.created_at as not_before
    from fresh left join lateral (
        select seq, balance_after, created_at from journal
        where journal.store_id = fresh.store_id and journal.account_id = fresh.account_id
            and journal.seq = fresh.seq - sign(fresh.seq)::bigint and abs(fresh.seq) > 1
        limit 1
    ) as before on true
), expected as (
    select *, seq > 0 as entry,
        case when abs(seq) > 1 and before_seq is null then sign(seq)::bigint else seq end as expected_seq,
        coalesce(before_balance, 0) + side * amount as expected_balance,
        {OBSTACLE}
    from walked
){JUDGEMENT}
"""  # noqa: S608

DECISIONS = f"""
with decided as (
    select * from journal where {_IN_PERIOD} and seq < 0 and entries_before is not null
){SEQUENCES}
"""  # noqa: S608

#: What else was reversed of a transaction is found by the keys of its reversals, once for all that are of the period.
#: The further entries of one have none, and are only reversed as a whole: that they are not reversed twice is for the
#: whole verification to prove.
REVERSALS = f"""
with fresh as (
    select *, {ASKED},
        '{REVERSAL_KEY_PREFIX}cct_' || replace(account_id::text, '-', '') || to_hex(reversal_of) as whole_key
    from journal where {_IN_PERIOD} and kind = {Kind.REVERSE:d} and seq > 0
), summed as (
    select store_id, whole_key, (
        select coalesce(sum(one.amount), 0) from journal as one
        where one.store_id = asked_of.store_id and one.idempotency_key = asked_of.whole_key and one.seq > 0
    ) + (
        select coalesce(sum(part.amount), 0) from journal as part
        where part.store_id = asked_of.store_id and part.idempotency_key > asked_of.whole_key || ':'
            and part.idempotency_key < asked_of.whole_key || ';' and part.seq > 0
    ) as amount
    from (select distinct store_id, whole_key from fresh where idempotency_key is not null) as asked_of
), reversal as (
    select fresh.*, case when idempotency_key is null then fresh.amount else greatest(fresh.amount, summed.amount)
        end as undone
    from fresh left join summed using (store_id, whole_key)
){UNDOING}
"""  # noqa: S608

TRANSACTIONS = f"""
with part as (
    select * from journal where {_IN_PERIOD} and kind in {listed(SPANNING)} and seq > 0
){PARTS}
"""  # noqa: S608

#: An account has moved, and is there.
ACCOUNTS = f"""
select 'account_exists', fresh.store_id, fresh.account_id, null::bigint, 'an account', 'entries without an account'
from (select distinct store_id, account_id from journal where {_IN_PERIOD} and seq > 0) as fresh
left join lateral (
    select account_id from accounts
    where accounts.store_id = fresh.store_id and accounts.account_id = fresh.account_id
    limit 1
) as account on true
where account.account_id is null
"""  # noqa: S608

CHECKS = (ROWS, DECISIONS, REVERSALS, TRANSACTIONS, ACCOUNTS)
