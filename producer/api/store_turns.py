"""Whose requests a process works on: while several stores ask, a few of each at a time, its others a little later.

All requests share one event loop, so that each of one store's makes each of another's longer. How many those are must
not be for one store to say. A request that waits for a result is not worked on, and none is ever held up for long: what
this bounds is not what a store may ask, but what others notice of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

#: Requests of a store that are worked on at a time while others ask as well.
MOST_AT_WORK = 3
#: Longest that a request is held up, in seconds.
MOST_DELAY_SECONDS = 0.1
#: Stores of which it is known when they asked last.
REMEMBERED_STORES = 2
#: A store counts as one that asks for so long after it has, in seconds.
ASKS_SECONDS = 1.0


class StoreTurns:
    """The requests of every store that one process works on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at_work: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        #: When the stores that asked last did so: two of them tell whether one asks alone.
        self._asked_at: dict[str, float] = {}

    @asynccontextmanager
    async def turn(self, store_id: str) -> AsyncIterator[None]:
        """Work on a request of the store, as soon as it is its turn."""
        self._note(store_id)
        if self._at_work[store_id] >= MOST_AT_WORK and self._others_ask(store_id):
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

    def _note(self, store_id: str) -> None:
        self._asked_at.pop(store_id, None)
        self._asked_at[store_id] = self._clock()
        if len(self._asked_at) > REMEMBERED_STORES:
            del self._asked_at[next(iter(self._asked_at))]

    def _others_ask(self, store_id: str) -> bool:
        since = self._clock() - ASKS_SECONDS
        return any(store != store_id and at > since for store, at in self._asked_at.items())

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
