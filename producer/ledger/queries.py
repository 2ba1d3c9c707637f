"""What clients and the API ask Postgres of accounts, entries and transactions, in one store; see `rows`.

Only reads, only by ranges of indexes. Lists are read by keyset: a page starts at its cursor, however far
down that is. `%(store)s` is the store's number; `of_named_store` is for whoever knows its public id only.
"""

from __future__ import annotations

from ...schemas.journal_columns import columns_of, select_list
from ...schemas.statuses import HoldStatus, Status
from .rows import EntryRow

MICROSECONDS = "(extract(epoch from {0}) * 1000000)::bigint"
#: The store's number, looked up beside what is read and not joined: a join loses the order of the indexes, and all of
#: a list would be read and sorted for one page.
_NUMBER_OF_STORE = "(select store_id from stores where public_id = %(store)s)"


def of_named_store(statement: str) -> str:
    """Return the statement for a store that is named by its public id."""
    return statement.replace("%(store)s", _NUMBER_OF_STORE)


#: Of an open hold: its end has not passed, so that it sets something aside. One moment for all that a statement reads.
HELD_NOW = "(h.expires_at > statement_timestamp())"

#: Columns of `AccountRow`, with the balance after the latest entry: one descent of the journal's primary key.
#: What is held is what its open holds set aside: one descent of their index, which has nothing of most accounts.
_ACCOUNT = f"""
select a.account_id, a.customer_id, a.name, a.unit_label, a.status, coalesce(latest.balance_after, 0)::text,
       a.overdraft_limit::text, a.metadata::text, {MICROSECONDS.format("a.created_at")},
       {MICROSECONDS.format("a.updated_at")}, {MICROSECONDS.format("coalesce(latest.created_at, a.created_at)")},
       a.low_balance::text, held.amount::text, a.max_balance::text
from accounts a
left join lateral (
    select balance_after, created_at from journal j
    where j.store_id = a.store_id and j.account_id = a.account_id and j.seq > 0
    order by j.seq desc limit 1
) latest on true
cross join lateral (
    select coalesce(sum(h.remaining), 0) as amount from holds h
    where h.store_id = a.store_id and h.account_id = a.account_id and h.status = {HoldStatus.OPEN:d} and {HELD_NOW}
) held
"""  # noqa: S608  constants only

READ_ACCOUNTS = f"{_ACCOUNT} where a.store_id = %(store)s and a.account_id = any(%(accounts)s::uuid[])"

#: The customer's open account of this name, which is one at most: one descent of the index on open names.
FIND_OPEN_ACCOUNT = f"""
{_ACCOUNT} where a.store_id = %(store)s and a.customer_id = %(customer)s and a.name_key = %(name_key)s
    and a.status <> {Status.CLOSED:d}
"""

#: Which of these accounts of these stores there are, each one descent of the primary key.
FIND_ACCOUNTS = """
select wanted.store_id, wanted.account_id
from unnest(%(stores)s::integer[], %(accounts)s::uuid[]) as wanted (store_id, account_id)
join lateral (
    select from accounts a where a.store_id = wanted.store_id and a.account_id = wanted.account_id limit 1
) found on true
"""

#: When these accounts were opened: the position of a cursor.
FIND_ACCOUNT_CURSORS = """
select account_id, created_at from accounts
where store_id = %(store)s and account_id = any(%(accounts)s::uuid[])
"""


def list_accounts(*, of_customer: bool, after: bool, before: bool) -> str:
    """Return the statement for a page of accounts: below the cursor `after`, above the cursor `before`, or both."""
    conditions = ["a.store_id = %(store)s"]
    if of_customer:
        conditions.append("a.customer_id = %(customer)s")
    if after:
        conditions.append("(a.created_at, a.account_id) < (%(after_at)s, %(after)s::uuid)")
    if before:
        conditions.append("(a.created_at, a.account_id) > (%(before_at)s, %(before)s::uuid)")
    direction = "asc" if before and not after else "desc"
    order = f"order by a.created_at {direction}, a.account_id {direction} limit %(count)s"
    return f"{_ACCOUNT} where {' and '.join(conditions)} {order}"


_ENTRY_COLUMN_NAMES = columns_of(EntryRow._fields)
_ENTRY_COLUMNS = select_list("j", _ENTRY_COLUMN_NAMES)
#: The same for an entry by itself: with the key of its transaction, which is on the first entry of it, one more descent
#: for each further one; and without the content, which is the transaction's.
_LONE_ENTRY_COLUMNS = select_list(
    "j",
    _ENTRY_COLUMN_NAMES,
    idempotency_key="""coalesce(j.idempotency_key, (
        select f.idempotency_key from journal f
        where f.store_id = j.store_id and f.account_id = j.transaction_account and f.seq = j.transaction_seq
    ))""",
    content="null",
)

READ_ENTRY = f"""
select {_ENTRY_COLUMNS} from journal j
where j.store_id = %(store)s and j.account_id = %(account)s::uuid and j.seq = %(seq)s
"""  # noqa: S608

#: Several entries by their positions, each one descent of the primary key.
READ_ENTRIES = f"""
select {_ENTRY_COLUMNS}
from unnest(%(accounts)s::uuid[], %(seqs)s::bigint[]) as wanted (account_id, seq)
join lateral (
    select * from journal k
    where k.store_id = %(store)s and k.account_id = wanted.account_id and k.seq = wanted.seq
    limit 1
) j on true
"""  # noqa: S608

#: A page of an account's entries, newest first: a range of the primary key, read backwards.
LIST_ENTRIES_DOWN = f"""
select {_ENTRY_COLUMNS} from journal j
where j.store_id = %(store)s and j.account_id = %(account)s::uuid and j.seq > %(above)s and j.seq < %(below)s
order by j.seq desc limit %(count)s
"""  # noqa: S608

#: The same, next to its lower end: oldest first.
LIST_ENTRIES_UP = LIST_ENTRIES_DOWN.replace("order by j.seq desc", "order by j.seq asc")

#: A page downwards of entries by themselves.
LIST_LONE_ENTRIES = LIST_ENTRIES_DOWN.replace(_ENTRY_COLUMNS, _LONE_ENTRY_COLUMNS)

#: The number of the account's latest entry, null if it has none.
LATEST_SEQ = """
select max(seq) from journal where store_id = %(store)s and account_id = %(account)s::uuid and seq > 0
"""

#: The balance after the last entry before a moment. Time never goes back along the entries and they are numbered
#: without a gap, so their numbers are searched in halves: twenty descents of the primary key for a million entries.
BALANCE_BEFORE = f"""
with recursive search (low, high) as (
    select 0::bigint, coalesce(({LATEST_SEQ}), 0)
    union all
    select case when middle.created_at < %(before)s then middle.seq else search.low end,
           case when middle.created_at < %(before)s then search.high else middle.seq - 1 end
    from search
    cross join lateral (
        select j.seq, j.created_at from journal j
        where j.store_id = %(store)s and j.account_id = %(account)s::uuid and j.seq = (search.low + search.high + 1) / 2
        limit 1
    ) middle
    where search.low < search.high
)
select coalesce((
    select j.balance_after from journal j
    where j.store_id = %(store)s and j.account_id = %(account)s::uuid
        and j.seq = (select low from search where low >= high limit 1)
), 0)::text
"""  # noqa: S608


#: The latest entry of an account that a wrong clock has left ahead of now, where the moment asked for is ahead, too.
#: Times do not go back along an account: if its latest entry is not ahead, none is.
LATEST_AHEAD = """
select latest.balance_after::text, latest.created_at
from (
    select j.balance_after, j.created_at from journal j
    where j.store_id = %(store)s and j.account_id = %(account)s::uuid and j.seq > 0
    order by j.seq desc limit 1
) latest
where %(at)s > clock_timestamp() and latest.created_at > clock_timestamp()
"""


def list_transactions(*, after: bool, before: bool) -> str:
    """Return the statement for a page of the first entries of a reference's transactions."""
    conditions = ["j.store_id = %(store)s and j.reference = %(reference)s and j.seq > 0 and j.transaction_seq is null"]
    # The moment alone bounds the range of the index; the rest keeps apart what happened in one batch.
    if after:
        conditions.append("j.created_at <= %(after_at)s")
        conditions.append("(j.created_at, j.account_id, j.seq) < (%(after_at)s, %(after)s::uuid, %(after_seq)s)")
    if before:
        conditions.append("j.created_at >= %(before_at)s")
        conditions.append("(j.created_at, j.account_id, j.seq) > (%(before_at)s, %(before)s::uuid, %(before_seq)s)")
    direction = "asc" if before and not after else "desc"
    order = f"order by j.created_at {direction}, j.account_id {direction}, j.seq {direction} limit %(count)s"
    return f"select {_ENTRY_COLUMNS} from journal j where {' and '.join(conditions)} {order}"  # noqa: S608


#: Whether this key has been used, and for what: one descent of the unique index.
FIND_KEY = """
select seq, rejection from journal where store_id = %(store)s and idempotency_key = %(key)s
"""

#: What the entries amount to whose keys stand between these two: a range of the unique index.
SUM_OF_PARTS = """
select coalesce(sum(amount), 0)::text from journal
where store_id = %(store)s and idempotency_key > %(above)s and idempotency_key < %(below)s and seq > 0
"""
