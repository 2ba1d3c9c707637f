"""How accounts, entries and transactions are read, step by step, for clients of both kinds and for the API. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from ...schemas.account_names import name_key
from ...schemas.commands import bounds_of_part_keys
from ...schemas.errors import AccountNotFound
from ...schemas.identifiers import ACCOUNT_PREFIX, TRANSACTION_PREFIX, position_of
from ...schemas.results import moment_of
from . import queries
from .read_steps import Query, Reading
from .rows import AccountRow, EntryRow, TransactionRows, account_row, entry_row
from .watermark import RESOLUTION, Watermark, whole

#: Items that one page of a client holds.
PAGE_ITEMS = 500
#: Transactions that one page of a client holds: each may have a hundred entries.
PAGE_TRANSACTIONS = 100
#: Above the number of every entry.
ABOVE_EVERY_SEQ = 2**63 - 1

_ItemT = TypeVar("_ItemT")


class AccountCursor(NamedTuple):
    """Where an account is in a list of accounts: newest first, those of one moment by their ids."""

    account_id: str
    created_at: datetime


class Page(NamedTuple, Generic[_ItemT]):
    """Some items, newest first, and the last of them if there may be more after it."""

    items: Sequence[_ItemT]
    last: _ItemT | None


#: Reads the page after an item, or the first one, of at most so many items.
PageAfter = Callable[[_ItemT | None, int], Reading[Page[_ItemT]]]


def accounts(account_ids: Iterable[str]) -> Reading[list[AccountRow]]:
    """Return those of the accounts that the store has, in no order; each id once, and of the right form."""
    wanted = [account_id[4:] for account_id in account_ids]
    rows = (yield Query(queries.READ_ACCOUNTS, {"accounts": wanted})) if wanted else []
    return [account_row(row) for row in rows]


def account(account_id: str) -> Reading[AccountRow]:
    """Return the account.

    Raises:
        AccountNotFound: the store has none of this id.
    """
    rows = yield from accounts([account_id])
    if not rows:
        raise AccountNotFound(details={"account_id": account_id})
    return rows[0]


def open_account(customer_id: str, name: str) -> Reading[AccountRow | None]:
    """Return the customer's account of this name that is not closed, or None if there is none."""
    rows = yield Query(queries.FIND_OPEN_ACCOUNT, {"customer": customer_id, "name_key": name_key(name)})
    return account_row(rows[0]) if rows else None


def account_cursors(account_ids: Iterable[str]) -> Reading[dict[str, AccountCursor]]:
    """Return where those of the accounts are, by id, that the store has; the ids are of the right form."""
    wanted = [account_id[4:] for account_id in account_ids]
    rows = (yield Query(queries.FIND_ACCOUNT_CURSORS, {"accounts": wanted})) if wanted else []
    found = [AccountCursor(ACCOUNT_PREFIX + account.hex, created_at) for account, created_at in rows]
    return {cursor.account_id: cursor for cursor in found}


def accounts_between(
    customer_id: str | None, after: AccountCursor | None, before: AccountCursor | None, count: int
) -> Reading[list[AccountRow]]:
    """Return accounts of the customer, or of all, that come after one in the list and before another.

    Newest first from `after`, or from the newest where that is not given; where `before` alone is, from there upwards,
    oldest first.
    """
    statement = queries.list_accounts(
        of_customer=customer_id is not None, after=after is not None, before=before is not None
    )
    values: dict[str, Any] = {"customer": customer_id, "count": count}
    for name, cursor in (("after", after), ("before", before)):
        if cursor is not None:
            values |= {name: cursor.account_id[4:], f"{name}_at": cursor.created_at}
    rows = yield Query(statement, values)
    return [account_row(row) for row in rows]


def accounts_of(customer_id: str | None) -> PageAfter[AccountRow]:
    """Return what reads the accounts of the customer, or of all, newest first."""

    def page(last: AccountRow | None, count: int) -> Reading[Page[AccountRow]]:
        after = None if last is None else AccountCursor(last.account_id, moment_of(last.created_us))
        return page_of((yield from accounts_between(customer_id, after, None, count)), count)

    return page


def entries_between(
    account_id: str, above: int, below: int, count: int, *, upwards: bool = False, alone: bool = False
) -> Reading[list[EntryRow]]:
    """Return the account's entries between two numbers, newest first, or upwards from the lower one, oldest first.

    `alone`: with the key of their transaction, which otherwise is on its first entry only; downwards.
    """
    downwards = queries.LIST_LONE_ENTRIES if alone else queries.LIST_ENTRIES_DOWN
    values = {"account": account_id[4:], "above": above, "below": below, "count": count}
    rows = yield Query(queries.LIST_ENTRIES_UP if upwards else downwards, values)
    return [entry_row(row) for row in rows]


def entries_of(account_id: str) -> PageAfter[EntryRow]:
    """Return what reads the account's entries by themselves, newest first. Raises AccountNotFound."""

    def page(last: EntryRow | None, count: int) -> Reading[Page[EntryRow]]:
        below = ABOVE_EVERY_SEQ if last is None else last.seq
        rows = yield from entries_between(account_id, 0, below, count, alone=True)
        if not rows and last is None:
            yield from account(account_id)
        return page_of(rows, count)

    return page


def latest_seq(account_id: str) -> Reading[int]:
    """Return the number of the account's latest entry, 0 if it has none."""
    ((latest,),) = yield Query(queries.LATEST_SEQ, {"account": account_id[4:]})
    return latest or 0


def first_entries_between(
    reference: str, after: EntryRow | None, before: EntryRow | None, count: int
) -> Reading[list[EntryRow]]:
    """Return the first entries of transactions of this reference, from one and to another, as `accounts_between`."""
    statement = queries.list_transactions(after=after is not None, before=before is not None)
    values: dict[str, Any] = {"reference": reference, "count": count}
    for name, row in (("after", after), ("before", before)):
        if row is not None:
            values |= {name: row.account_id[4:], f"{name}_at": moment_of(row.created_at_us), f"{name}_seq": row.seq}
    rows = yield Query(statement, values)
    return [entry_row(row) for row in rows]


def transactions_of(reference: str) -> PageAfter[TransactionRows]:
    """Return what reads the transactions of this reference, newest first."""

    def page(last: TransactionRows | None, count: int) -> Reading[Page[TransactionRows]]:
        firsts = yield from first_entries_between(reference, last.first if last else None, None, count)
        return page_of((yield from with_all_entries(firsts)), count)

    return page


def is_decided(idempotency_key: str) -> Reading[bool]:
    """Return whether a command of this key was decided, applied or refused."""
    return bool((yield Query(queries.FIND_KEY, {"key": idempotency_key})))


def undone_in_parts(identifier: str) -> Reading[int]:
    """Return how much of a transaction of one entry its partial reversals have undone."""
    above, below = bounds_of_part_keys(identifier)
    rows = yield Query(queries.SUM_OF_PARTS, {"above": above, "below": below})
    return int(rows[0][0])


def transaction(identifier: str) -> Reading[TransactionRows | None]:
    """Return the transaction with all its entries, or None if the store has none of this id."""
    first = yield from first_entry(identifier)
    return None if first is None else (yield from with_all_entries([first]))[0]


def first_entry(identifier: str) -> Reading[EntryRow | None]:
    """Return the first entry of the transaction of this id; the id of a further entry is none of a transaction."""
    position = position_of(identifier) if identifier.startswith(TRANSACTION_PREFIX) else None
    if position is None:
        return None
    rows = yield Query(queries.READ_ENTRY, {"account": position.account_id[4:], "seq": position.seq})
    found = entry_row(rows[0]) if rows else None
    return found if found is not None and found.transaction_seq is None else None


def with_all_entries(firsts: Sequence[EntryRow]) -> Reading[list[TransactionRows]]:
    """Return the transactions with all their entries; what is missing is read at once for all of them."""
    known = {first.position: first for first in firsts}
    missing = [position for first in firsts for position in first.positions() if position not in known]
    if missing:
        accounts, seqs = [each.account_id[4:] for each in missing], [each.seq for each in missing]
        rows = yield Query(queries.READ_ENTRIES, {"accounts": accounts, "seqs": seqs})
        known |= {row.position: row for row in map(entry_row, rows)}
    return [TransactionRows(first, [known[position] for position in first.positions()]) for first in firsts]


def balance_at(account_id: str, at: datetime, watermark: Watermark) -> Reading[tuple[int, datetime]]:
    """Return the balance after everything up to and including this moment, and the moment that it is of.

    Raises:
        AccountNotFound: the store has no such account.
        Unavailable: nothing is known not to change any more.
    """
    yield from account(account_id)
    settled = yield from watermark.settled(at)
    balance, as_of = yield from balance_of_settled(account_id, at, settled)
    return int(balance), as_of.astimezone(UTC)


def balance_of_settled(account_id: str, at: datetime, settled: datetime) -> Reading[tuple[str, datetime]]:
    """Return the balance at this moment, of which so much is settled, in digits, and the moment that it is of.

    In the future it is the current one, also of an account that a wrong clock has left there, which still changes as of
    that moment.
    """
    account_hex = account_id[4:]
    if whole(at) > settled:
        for balance, ahead in (yield Query(queries.LATEST_AHEAD, {"account": account_hex, "at": at})):
            return balance, whole(ahead)
    # By a statement of its own: what the watermark covers is there for whoever begins to read after it was found.
    before = settled + RESOLUTION
    ((balance,),) = yield Query(queries.BALANCE_BEFORE, {"account": account_hex, "before": before})
    return balance, settled


def page_of(items: Sequence[_ItemT], count: int) -> Page[_ItemT]:
    """Return the page of these items, of which so many were asked for."""
    return Page(items, items[-1] if items and len(items) == count else None)
