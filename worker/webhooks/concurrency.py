"""How much is under way at once: for one endpoint as much as it takes, for all of them what a process can hold. Pure.

An endpoint begins with one request. Each success lets one more go beside it, each failure halves them, so an endpoint
that hangs holds one slot and no more. Endpoints that have just shown that they work, those that have yet to, and those
that fail have slots of their own, and a request that takes long is counted among the last. However many hang, the
others find theirs free.

Of what is shared, a store may have three times what it leaves free: three quarters when it is alone, less beside each
further one. So whatever a store's receivers do, there is room for another's.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from ...schemas.fair_shares import share_of

#: Most requests to one endpoint at once.
MAX_CONCURRENCY = 32
#: Most requests of each class at once; each holds a socket.
MAX_OF_CLASS = 220
#: A request that takes longer than this gives its slot back to those that are quick, in seconds.
SLOW_SECONDS = 1.0
#: An endpoint that keeps failing is left alone for this part of the time since it last worked, and so long at most.
PAUSE_SHARE = 0.5
MAX_PAUSE_SECONDS = 15.0


class RequestClass(Enum):
    """What is expected of a request."""

    QUICK = "the endpoint's latest attempt succeeded"
    NEW = "nothing is known of the endpoint"
    SLOW = "the endpoint fails, or the request takes long already"


class EndpointConcurrency:
    """How many requests one endpoint gets at once."""

    __slots__ = ("is_proven", "limit")

    def __init__(self) -> None:
        self.limit: int = 1
        self.is_proven: bool = False

    def succeeded(self) -> None:
        """Let one more go at once."""
        self.is_proven = True
        if self.limit < MAX_CONCURRENCY:
            self.limit += 1

    def failed(self) -> None:
        """Let half as many go at once."""
        self.is_proven = False
        self.limit = max(1, self.limit // 2)


class Slots:
    """The requests under way in this process, by their class."""

    def __init__(self, max_of_class: int = MAX_OF_CLASS) -> None:
        self._max = max_of_class
        #: When each began and whose it is, by its slot, oldest first.
        self._began: dict[RequestClass, dict[int, tuple[float, int]]] = {each: {} for each in RequestClass}
        self._of_stores: dict[RequestClass, Counter[int]] = {each: Counter() for each in RequestClass}
        self._next = 0

    @property
    def taken(self) -> int:
        """Requests under way."""
        return sum(map(len, self._began.values()))

    def take(self, kind: RequestClass, now: float, store_id: int) -> int | None:
        """Return the number of a slot, or None when the store has its share of this class; its first is always got."""
        slots, of_stores = self._began[kind], self._of_stores[kind]
        if of_stores[store_id] >= share_of(self._max, len(slots)):
            return None
        self._next += 1
        slots[self._next] = (now, store_id)
        of_stores[store_id] += 1
        return self._next

    def give_back(self, slot: int) -> RequestClass:
        """Free the slot, and return its class."""
        for kind, slots in self._began.items():
            began = slots.pop(slot, None)
            if began is not None:
                self._forget(kind, began[1])
                return kind
        raise KeyError(slot)

    def move_slow(self, now: float) -> None:
        """Count those that take long as slow, also beyond the number of those: they are there already."""
        for kind in (RequestClass.QUICK, RequestClass.NEW):
            slots = self._began[kind]
            slow = {slot: began for slot, began in slots.items() if now - began[0] >= SLOW_SECONDS}
            for slot, (_, store_id) in slow.items():
                del slots[slot]
                self._forget(kind, store_id)
                self._of_stores[RequestClass.SLOW][store_id] += 1
            self._began[RequestClass.SLOW].update(slow)

    def has_slow(self, now: float) -> bool:
        """Return whether one of them takes long."""
        return any(now - began >= SLOW_SECONDS for slots in self._began.values() for began, _ in slots.values())

    def _forget(self, kind: RequestClass, store_id: int) -> None:
        of_stores = self._of_stores[kind]
        of_stores[store_id] -= 1
        if not of_stores[store_id]:
            del of_stores[store_id]


def failing_pause(failing_seconds: float) -> float:
    """Return how long to leave an endpoint alone that has been failing for so long, in seconds."""
    return min(failing_seconds * PAUSE_SHARE, MAX_PAUSE_SECONDS)
