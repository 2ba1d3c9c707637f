"""The batches of one store beside what others ask: by short turns, as soon as there are others, and with rests.

Lines that a process takes on keep its event loop busy, and those that stand on the lanes go before what others put
there later. So while other stores ask any process, a store has one short part at a time on its way from each, of all
its batches together, and then leaves the process alone for as long as that took. A part that finds no room on a lane
waits for it without its turn, which the store's next one has meanwhile: its lane may have room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from ...client._async.redis_connection import AsyncRedisWire
from .active_stores import ActiveStores
from .store_locks import HeldLock, StoreLocks

#: Waits for so many seconds.
Pause = Callable[[float], Awaitable[None]]
#: Longest rest after a part, in seconds: one that Redis was slow to take has burdened nobody for so long.
MOST_REST_SECONDS = 0.1


class PartSize(NamedTuple):
    """How much goes to Redis together: no further line is added beyond either."""

    lines: int
    #: Of the commands as they stand on a lane.
    bytes: int


#: What Redis takes in its time, and what others wait for without noticing much.
ALONE = PartSize(2_000, 4_194_304)
BESIDE_OTHERS = PartSize(200, 32_768)


class FairBatches:
    """The parts that one process sends, of every store."""

    def __init__(self, asking: ActiveStores) -> None:
        self._asking = asking
        self._locks = StoreLocks()

    def part_size(self, store_id: str) -> PartSize:
        """Return how large a part of the store may be now."""
        return BESIDE_OTHERS if self._asking.others_active(store_id) else ALONE

    @asynccontextmanager
    async def turn(self, store_id: str, wire: AsyncRedisWire) -> AsyncIterator[Pause]:
        """Send a part of the store, as soon as it is its turn. Rests afterwards while others ask.

        Gives how to wait while there is no room for the part: the turn is another one's meanwhile.
        """
        self._asking.keep_up(wire)
        if not self._asking.others_active(store_id):
            yield asyncio.sleep
            return
        async with self._locks.held(store_id) as lock:
            turn = _Turn(lock)
            yield turn.pause
            await turn.rest()


class _Turn:
    """The turn of one part, which began now."""

    def __init__(self, lock: HeldLock) -> None:
        self._lock = lock
        self._began = time.perf_counter()

    async def rest(self) -> None:
        """Keep the turn, and do nothing in it for as long as it has lasted."""
        await asyncio.sleep(min(time.perf_counter() - self._began, MOST_REST_SECONDS))

    async def pause(self, seconds: float) -> None:
        """Wait for so long without the turn, and then until it is this part's again."""
        await self.rest()
        await self._lock.sleep_released(seconds)
        self._began = time.perf_counter()
