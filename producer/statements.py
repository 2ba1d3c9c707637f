"""Everything the clients ask Postgres, and how the rows read. Only reads; only what is the store's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ..schemas.accounts import Account, Entry
from ..schemas.commands import REVERSAL_KEY_PREFIX
from ..schemas.identifiers import ACCOUNT_PREFIX, entry_id, position_of, transaction_id
from ..schemas.journal import SIDE_NAMES, JournalRow, Kind, Status
from ..schemas.results import moment_of

#: Journal rows of these keys, and the time that it is now. Walks the unique index (store_id, idempotency_key).
FIND_DECISIONS = """
select j.store_id, j.account_id, j.seq, j.kind, j.side, j.amount, j.balance_after, coalesce(j.overdraft_limit, 0),
       j.idempotency_key, j.reference, j.reversal_of, (extract(epoch from j.created_at) * 1000000)::bigint,
       j.rejection, j.content::text, (extract(epoch from clock_timestamp()) * 1000000)::bigint
from stores s
join journal j on j.store_id = s.store_id
where s.public_id = %(store)s and j.idempotency_key = any(%(keys)s)
"""

#: Dead letters of these keys, oldest first, also those of a store that did not exist, which are under number 0: whose
#: they are, the payload tells. Walks the index (store_id, idempotency_key).
FIND_DEAD_LETTERS = """
select d.idempotency_key, d.lane_entry, d.payload, d.reason, d.replayed_at is not null
from dead_letters d
where d.store_id = any(array[0, (select s.store_id from stores s where s.public_id = %(store)s)])
  and d.idempotency_key = any(%(keys)s)
order by d.created_at
"""

#: One account, with the balance after its latest entry: one descent of the primary key of journal.
READ_ACCOUNT = """
select a.account_id, s.public_id, a.customer_id, a.name, a.unit_label, a.status, coalesce(latest.balance_after, 0),
       a.overdraft_limit, (extract(epoch from a.created_at) * 1000000)::bigint,
       (extract(epoch from a.updated_at) * 1000000)::bigint, a.metadata, a.low_balance
from stores s
join accounts a on a.store_id = s.store_id
left join lateral (
    select j.balance_after
    from journal j
    where j.store_id = a.store_id and j.account_id = a.account_id and j.seq > 0
    order by j.seq desc
    limit 1
) latest on true
where s.public_id = %(store)s and a.account_id = %(account)s
"""

#: Entries of an account below a seq, newest first: a range of the primary key, read backwards. The store is looked up
#: beside it and not joined: a join loses the order of the index, and every entry would be read and sorted for one page.
#: The key of a further entry is on the first one of its transaction: one more descent for each.
READ_ENTRIES = """
select j.account_id, j.seq, j.kind, j.side, j.amount, j.balance_after, j.reference,
       coalesce(j.idempotency_key, (
           select f.idempotency_key from journal f
           where f.store_id = j.store_id and f.account_id = j.transaction_account and f.seq = j.transaction_seq
       )),
       (extract(epoch from j.created_at) * 1000000)::bigint, j.transaction_account, j.transaction_seq
from journal j
where j.store_id = (select store_id from stores where public_id = %(store)s)
  and j.account_id = %(account)s and j.seq > 0 and j.seq < %(before)s
order by j.seq desc
limit %(count)s
"""

#: The first entry of a transaction, if one of its entries is on the given account.
FIND_TOUCHED = """
select j.seq
from stores s
join journal j on j.store_id = s.store_id
where s.public_id = %(store)s and j.account_id = %(first_account)s and j.seq = %(first_seq)s
  and j.transaction_seq is null and j.kind in (4, 8)
  and j.content -> 'entries' @> jsonb_build_array(jsonb_build_object('account_id', %(account)s::text))
"""

#: Above every seq.
ABOVE_EVERY_SEQ = 2**63 - 1
#: Entries that one page holds.
PAGE_ENTRIES = 500


class DeadLetter(NamedTuple):
    """What a dead letter tells about the command that it holds."""

    idempotency_key: str
    lane_entry: str
    payload: bytes
    reason: str
    replayed: bool


def account_uuid(account_id: str) -> UUID:
    """Return the UUID in an account id of the right form."""
    return UUID(account_id.removeprefix(ACCOUNT_PREFIX))


def journal_row(row: Sequence[Any]) -> JournalRow:
    """Return the row of `FIND_DECISIONS`, with amounts as exact integers."""
    store_id, account, seq, kind, side, amount, balance, limit, *rest, _now_us = row
    return JournalRow(
        store_id,
        ACCOUNT_PREFIX + account.hex,
        seq,
        kind,
        side,
        None if amount is None else int(amount),
        int(balance),
        int(limit),
        *rest,
    )


def time_told(rows: Sequence[Sequence[Any]]) -> float:
    """Return the time of Postgres, in seconds since 1970, that stands beside the rows of `FIND_DECISIONS`."""
    return float(rows[-1][-1] / 1_000_000)


def account_of(row: Sequence[Any]) -> Account:
    """Return the account in a row of `READ_ACCOUNT`."""
    account, store, customer_id, name, unit_label, status, balance, limit, created_us, updated_us, *rest = row
    metadata, low_balance = rest
    return Account.model_validate(
        {
            "id": ACCOUNT_PREFIX + account.hex,
            "store_id": store,
            "customer_id": customer_id,
            "name": name,
            "unit_label": unit_label,
            "status": Status(status).name.lower(),
            "balance": int(balance),
            "held": 0,
            "available": int(balance) + int(limit),
            "overdraft_limit": int(limit),
            "created_at": moment_of(created_us),
            "updated_at": moment_of(updated_us),
            "metadata": metadata,
            "low_balance": None if low_balance is None else int(low_balance),
        }
    )


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry in a row of `READ_ENTRIES`."""
    account, seq, kind, side, amount, balance, reference, key, created_us, first_account, first_seq = row
    account_id = ACCOUNT_PREFIX + account.hex
    first = (account_id, seq) if first_seq is None else (ACCOUNT_PREFIX + first_account.hex, first_seq)
    return Entry.model_validate(
        {
            "id": entry_id(account_id, seq),
            "transaction_id": transaction_id(*first),
            "account_id": account_id,
            "side": SIDE_NAMES[side],
            "amount": int(amount),
            "balance_after": int(balance),
            "reference": reference or "",
            "idempotency_key": key,
            "reversal_of": key.removeprefix(REVERSAL_KEY_PREFIX) if kind == Kind.REVERSE else None,
            "created_at": moment_of(created_us),
        }
    )


def touched_values(transaction: str, account_id: str) -> dict[str, Any]:
    """Return the values of `FIND_TOUCHED` for a transaction id of the right form."""
    position = position_of(transaction)
    if position is None:
        raise ValueError("not a transaction id")
    first_account = account_uuid(position.account_id)
    return {"first_account": first_account, "first_seq": position.seq, "account": account_id}
