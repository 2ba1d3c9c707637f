"""Which accounts there are, as the operations ask it before they use up a key for one that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from ...schemas.identifiers import ACCOUNT_PREFIX, is_account_id
from ..ledger.queries import FIND_ACCOUNTS
from .coalescing import CoalescedReads

#: Accounts that one process remembers to exist, over all stores.
MAX_KNOWN_ACCOUNTS = 50_000


Account = tuple[int, str]
Read = Callable[[str, Mapping[str, Any]], Awaitable[list[tuple[Any, ...]]]]


class KnownAccounts:
    """Accounts as (store, id). One that was seen is remembered: an account never ceases to be."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._known: dict[Account, None] = {}
        self._reads: CoalescedReads[Account, bool] = CoalescedReads()

    async def missing(self, store_id: int, account_ids: Collection[str], until: float) -> set[str]:
        """Return those of the ids of which the store has no account.

        Raises:
            Unavailable: Postgres cannot be asked, or does not answer by then.
        """
        unknown = {account_id for account_id in account_ids if (store_id, account_id) not in self._known}
        asked = [account_id for account_id in unknown if is_account_id(account_id)]
        found = await asyncio.gather(
            *(self._reads.find((store_id, each), self._read_accounts, until) for each in asked)
        )
        return unknown - {account_id for account_id, is_there in zip(asked, found, strict=True) if is_there}

    async def _read_accounts(self, accounts: list[Account]) -> dict[Account, bool]:
        stores, account_ids = [store_id for store_id, _ in accounts], [each[4:] for _, each in accounts]
        rows = await self._read(FIND_ACCOUNTS, {"stores": stores, "accounts": account_ids})
        found = {(store_id, ACCOUNT_PREFIX + account.hex): True for store_id, account in rows}
        self._remember(found)
        return found

    def _remember(self, accounts: Iterable[Account]) -> None:
        """Remember these, and forget the oldest where there are too many."""
        self._known.update(dict.fromkeys(accounts))
        while len(self._known) > MAX_KNOWN_ACCOUNTS:
            del self._known[next(iter(self._known))]
