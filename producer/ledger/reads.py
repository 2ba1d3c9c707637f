"""How accounts, entries and transactions are read, step by step, for clients of both kinds and for the API. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from ...schemas.account_names import name_key
from ...schemas.errors import AccountNotFound
from ...schemas.identifiers import TRANSACTION_PREFIX, position_of
from ...schemas.results import moment_of
from . import queries
from .read_steps import Query, Reading
from .rows import AccountRow, EntryRow, TransactionRows, account_row, entry_row
from .watermark import RESOLUTION, Horizon, whole

#: Items that one page of a client holds.
PAGE_ITEMS = 500
#: Transactions that one page of a client holds: each may have a hundred entries.
PAGE_TRANSACTIONS = 100
#: Above the number of every entry.
ABOVE_EVERY_SEQ = 2**63 - 1

_ItemT = TypeVar("_ItemT")


class Page(NamedTuple, Generic[_ItemT]):
    """Some items, newest first, and the last of them if there may be more after it."""

    items: Sequence[_ItemT]
    last: _ItemT | None


#: Reads the page after an item, or the first one, of at most so many items.
PageAfter = Callable[[_ItemT | None, int], Reading[Page[_ItemT]]]


def account(account_id: str) -> Reading[AccountRow]:
    """Return the account.

    Raises:
        AccountNotFound: the store has none of this id.
    """
    rows = yield Query(queries.READ_ACCOUNTS, {"accounts": [account_id[4:]]})
    if not rows:
        raise AccountNotFound(details={"account_id": account_id})
    return account_row(rows[0])


def open_account(customer_id: str, name: str) -> Reading[AccountRow | None]:
    """Return the customer's account of this name that is not closed, or None if there is none."""
    rows = yield Query(queries.FIND_OPEN_ACCOUNT, {"customer": customer_id, "name_key": name_key(name)})
    return account_row(rows[0]) if rows else None


def accounts_of(customer_id: str | None) -> PageAfter[AccountRow]:
    """Return what reads the accounts of the customer, or of all, newest first."""

    def page(last: AccountRow | None, count: int) -> Reading[Page[AccountRow]]:
        statement = queries.list_accounts(of_customer=customer_id is not None, after=last is not None, before=False)
        values: dict[str, Any] = {"customer": customer_id, "count": count}
        if last is not None:
            values |= {"after": last.account_id[4:], "after_at": moment_of(last.created_us)}
        rows = yield Query(statement, values)
        return _page([account_row(row) for row in rows], count)

    return page


def entries_of(account_id: str) -> PageAfter[EntryRow]:
    """Return what reads the account's entries by themselves, newest first. Raises AccountNotFound."""

    def page(last: EntryRow | None, count: int) -> Reading[Page[EntryRow]]:
        below = ABOVE_EVERY_SEQ if last is None else last.seq
        values = {"account": account_id[4:], "above": 0, "below": below, "count": count}
        rows = yield Query(queries.LIST_LONE_ENTRIES, values)
        if not rows and last is None:
            yield from account(account_id)
        return _page([entry_row(row) for row in rows], count)

    return page


def transactions_of(reference: str) -> PageAfter[TransactionRows]:
    """Return what reads the transactions of this reference, newest first."""

    def page(last: TransactionRows | None, count: int) -> Reading[Page[TransactionRows]]:
        statement = queries.list_transactions(after=last is not None, before=False)
        cursor = cursor_values("after", last.first if last else None)
        rows = yield Query(statement, {"reference": reference, "count": count, **cursor})
        return _page((yield from with_all_entries([entry_row(row) for row in rows])), count)

    return page


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
    missing = [place for first in firsts for place in first.positions() if place not in known]
    if missing:
        accounts, seqs = [place.account_id[4:] for place in missing], [place.seq for place in missing]
        rows = yield Query(queries.READ_ENTRIES, {"accounts": accounts, "seqs": seqs})
        known |= {row.position: row for row in map(entry_row, rows)}
    return [TransactionRows(first, [known[place] for place in first.positions()]) for first in firsts]


def balance_at(account_id: str, at: datetime, horizon: Horizon) -> Reading[tuple[int, datetime]]:
    """Return the balance after everything up to and including this moment, and the moment that it is of.

    Raises:
        AccountNotFound: the store has no such account.
        Unavailable: nothing is known not to change any more.
    """
    yield from account(account_id)
    settled = yield from horizon.settled(at)
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
    # By a statement of its own: what the horizon covers is there for whoever begins to read after it was found.
    before = settled + RESOLUTION
    ((balance,),) = yield Query(queries.BALANCE_BEFORE, {"account": account_hex, "before": before})
    return balance, settled


def cursor_values(name: str, row: EntryRow | None) -> dict[str, Any]:
    """Return the values of `list_transactions` for a cursor of this name at the first entry of a transaction."""
    if row is None:
        return {}
    return {name: row.account_id[4:], f"{name}_at": moment_of(row.created_us), f"{name}_seq": row.seq}


def _page(items: Sequence[_ItemT], count: int) -> Page[_ItemT]:
    return Page(items, items[-1] if items and len(items) == count else None)
