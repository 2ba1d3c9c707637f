"""Whose requests a process works on: while several stores ask, a few of each at a time, its others a little later.

All requests share one event loop, so that each of one store's makes each of another's longer. How many those are must
not be for one store to say. A request that waits for a result is not worked on, and none is ever held up for long: what
this bounds is not what a store may ask, but what others notice of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from .active_stores import ActiveStores

#: Requests of a store that are worked on at a time while others ask as well.
MOST_AT_WORK = 3
#: Longest that a request is held up, in seconds.
MOST_DELAY_SECONDS = 0.1


class FairRequests:
    """The requests of every store that one process works on."""

    def __init__(self, asking: ActiveStores) -> None:
        self._asking = asking
        self._at_work: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    @asynccontextmanager
    async def turn(self, store_id: str) -> AsyncIterator[None]:
        """Work on a request of the store, as soon as it is its turn."""
        self._asking.note(store_id)
        if self._at_work[store_id] >= MOST_AT_WORK and self._asking.others_active_here(store_id):
            await self._wait(store_id)
        self._at_work[store_id] += 1
        try:
            yield
        finally:
            self._end(store_id)

    @contextmanager
    def left(self, store_id: str) -> Iterator[None]:
        """Leave the turn to another request of the store while this one only waits."""
        self._end(store_id)
        try:
            yield
        finally:
            self._at_work[store_id] += 1

    async def _wait(self, store_id: str) -> None:
        ended = asyncio.get_running_loop().create_future()
        waiting = self._waiting[store_id]
        waiting.append(ended)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(MOST_DELAY_SECONDS):
                    await ended
        finally:
            with suppress(ValueError):
                waiting.remove(ended)
            if not waiting:
                self._waiting.pop(store_id, None)

    def _end(self, store_id: str) -> None:
        self._at_work[store_id] -= 1
        if not self._at_work[store_id]:
            del self._at_work[store_id]
        for ended in self._waiting.get(store_id, ()):
            # Who is not waiting any more has not left the line yet.
            if not ended.done():
                ended.set_result(None)
                return
