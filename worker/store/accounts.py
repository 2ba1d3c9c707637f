"""Accounts remembered from one batch to the next, and what shows that they still are what they were. No I/O.

An account is moved by the batches of its own lane and by transactions of other lanes. The former are this worker's for
as long as the lane's epoch stays the same; each of the latter moves on the counter `reached` of the lane's lease, under
the lock that every batch of the lane takes. So what was remembered under one epoch and one count is true under them,
and is forgotten under any other: also for refusals and changes of state, which collide with no key of the journal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice

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
    """The accounts that one store remembers. `states` is the batch's to read and to bring up to date."""

    def __init__(self, partitions: int) -> None:
        self.states: dict[AccountKey, AccountState] = {}
        self._partitions = partitions
        self._versions: dict[int, LaneVersion] = {}
        self._by_lane: defaultdict[int, set[AccountKey]] = defaultdict(set)

    def keep_true(self, versions: Mapping[int, LaneVersion]) -> None:
        """Forget the accounts of every lane that is at another version than when it was locked last."""
        if versions.items() <= self._versions.items():
            return
        for lane, version in versions.items():
            if self._versions.get(lane) != version:
                for account in self._by_lane.pop(lane, ()):
                    self.states.pop(account, None)
                self._versions[lane] = version

    def note_own_reach(self, versions: Mapping[int, LaneVersion]) -> None:
        """Take note that this store's own transaction, just committed, has reached into these lanes of its worker.

        They were locked at these versions. What it moved there must be dropped as well; the rest is still true.
        """
        for lane, version in versions.items():
            if self._versions.get(lane) == version:
                self._versions[lane] = LaneVersion(version.epoch, version.reached + 1)

    def remember(self, states: Mapping[AccountKey, AccountState]) -> None:
        """Take in accounts as they have just been read."""
        self.states.update(states)
        for account in states:
            self._by_lane[partition_of(account[1], self._partitions)].add(account)

    def drop(self, accounts: Iterable[AccountKey]) -> None:
        """Forget these accounts, as far as they are remembered."""
        for account in accounts:
            if self.states.pop(account, None) is not None:
                self._by_lane[partition_of(account[1], self._partitions)].discard(account)

    def forget(self) -> None:
        """Forget every account."""
        self.states.clear()
        self._by_lane.clear()

    def bound(self) -> None:
        """Forget those that were read first, if there are too many."""
        surplus = len(self.states) - MAX_REMEMBERED_ACCOUNTS
        if surplus > 0:
            self.drop(list(islice(self.states, surplus + MAX_REMEMBERED_ACCOUNTS // 10)))
