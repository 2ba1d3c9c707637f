"""Everything the clients ask Postgres, and how the rows read. Only reads; only what is the store's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ..schemas.accounts import Account, Entry
from ..schemas.identifiers import ACCOUNT_PREFIX, entry_id, transaction_id
from ..schemas.journal import SIDE_NAMES, JournalRow, Status
from ..schemas.results import moment_of

#: Journal rows of these keys. Walks the unique index (store_id, idempotency_key).
FIND_DECISIONS = """
select j.store_id, j.account_id, j.seq, j.kind, j.side, j.amount, j.balance_after, coalesce(j.overdraft_limit, 0),
       j.idempotency_key, j.reference, j.reversal_of, (extract(epoch from j.created_at) * 1000000)::bigint,
       j.rejection, j.content::text
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
       (extract(epoch from a.updated_at) * 1000000)::bigint
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
READ_ENTRIES = """
select j.account_id, j.seq, j.side, j.amount, j.balance_after, j.reference, j.idempotency_key, j.reversal_of,
       (extract(epoch from j.created_at) * 1000000)::bigint
from journal j
where j.store_id = (select store_id from stores where public_id = %(store)s)
  and j.account_id = %(account)s and j.seq > 0 and j.seq < %(before)s
order by j.seq desc
limit %(count)s
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
    store_id, account, seq, kind, side, amount, balance, limit, *rest = row
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


def account_of(row: Sequence[Any]) -> Account:
    """Return the account in a row of `READ_ACCOUNT`."""
    account, store, customer_id, name, unit_label, status, balance, limit, created_us, updated_us = row
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
        }
    )


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry in a row of `READ_ENTRIES`."""
    account, seq, side, amount, balance, reference, key, reversal_of, created_us = row
    account_id = ACCOUNT_PREFIX + account.hex
    return Entry.model_validate(
        {
            "id": entry_id(account_id, seq),
            "transaction_id": transaction_id(account_id, seq),
            "account_id": account_id,
            "side": SIDE_NAMES[side],
            "amount": int(amount),
            "balance_after": int(balance),
            "reference": reference or "",
            "idempotency_key": key,
            "reversal_of": transaction_id(account_id, reversal_of) if reversal_of else None,
            "created_at": moment_of(created_us),
        }
    )
