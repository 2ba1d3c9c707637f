"""Accounts remembered from one batch to the next, and what shows that they still are what they were. No I/O.

An account is moved by the batches of its own lane and by transactions of other lanes. The former are this worker's for
as long as the lane's epoch stays the same; each of the latter moves on the counter `reached` of the lane's lease, under
the lock that every batch of the lane takes. So what was remembered under one epoch and one count is true under them,
and is forgotten under any other: also for refusals and changes of state, which collide with no key of the journal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice, repeat
from typing import cast

import msgspec

from ...lanes.routing import partition_of
from ...schemas.accounts import AccountState
from ..ledger.state import AccountKey

#: Accounts that a worker remembers: about 500 bytes each.
MAX_REMEMBERED_ACCOUNTS = 100_000


class LaneVersion(msgspec.Struct, frozen=True, gc=False):
    """Under what the accounts of a lane are remembered."""

    epoch: int
    #: Transactions of other lanes that have moved accounts of this one.
    reached: int


class AccountCache:
    """The accounts that one store remembers, each as the last committed transaction left it."""

    def __init__(self, partitions: int) -> None:
        self._states: dict[AccountKey, AccountState] = {}
        self._partitions = partitions
        self._versions: dict[int, LaneVersion] = {}
        self._by_lane: defaultdict[int, set[AccountKey]] = defaultdict(set)

    def __len__(self) -> int:
        """Return how many accounts are remembered."""
        return len(self._states)

    def keep_true(self, versions: Mapping[int, LaneVersion]) -> None:
        """Forget the accounts of every lane that is at another version than when it was locked last."""
        if versions.items() <= self._versions.items():
            return
        for lane, version in versions.items():
            if self._versions.get(lane) != version:
                for account in self._by_lane.pop(lane, ()):
                    self._states.pop(account, None)
                self._versions[lane] = version

    def note_own_writes(self, versions: Mapping[int, LaneVersion]) -> None:
        """Take note that this store's own transaction, just committed, has written to these lanes of its worker.

        They were locked at these versions. What it moved there must be dropped as well; the rest is still true.
        """
        for lane, version in versions.items():
            if self._versions.get(lane) == version:
                self._versions[lane] = LaneVersion(version.epoch, version.reached + 1)

    def take(self, accounts: Iterable[AccountKey]) -> tuple[dict[AccountKey, AccountState], set[AccountKey]]:
        """Take accounts out for a transaction. Returns those that were remembered, and which of them were not.

        It gives them back with `put` when it is committed; if it is not, they are forgotten. They go out, and are not
        copied, because to find an account again among so many costs more than to add it.
        """
        # For every command, so in one pass that has no line of Python for each.
        wanted = dict.fromkeys(accounts)
        taken = dict(zip(wanted, map(self._states.pop, wanted, repeat(None)), strict=True))
        if all(taken.values()):
            return cast("dict[AccountKey, AccountState]", taken), set()
        known = {account: state for account, state in taken.items() if state is not None}
        return known, taken.keys() - known.keys()

    def expect(self, accounts: Iterable[AccountKey]) -> None:
        """Take note of the lanes of accounts that a transaction has read, and will put here."""
        for account in accounts:
            self._by_lane[partition_of(account[1], self._partitions)].add(account)

    def put(self, states: Mapping[AccountKey, AccountState]) -> None:
        """Remember accounts that were taken or are expected, as a transaction has left them that is committed."""
        self._states.update(states)

    def drop(self, accounts: Iterable[AccountKey]) -> None:
        """Forget these accounts, as far as they are remembered, taken or expected."""
        for account in accounts:
            self._states.pop(account, None)
            self._by_lane[partition_of(account[1], self._partitions)].discard(account)

    def forget(self) -> None:
        """Forget every account."""
        self._states.clear()
        self._by_lane.clear()

    def bound(self) -> None:
        """Forget those that were used longest ago, if there are too many."""
        surplus = len(self._states) - MAX_REMEMBERED_ACCOUNTS
        if surplus > 0:
            self.drop(list(islice(self._states, surplus + MAX_REMEMBERED_ACCOUNTS // 10)))
