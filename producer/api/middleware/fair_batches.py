"""The batches of one store beside what others ask: by short turns, as soon as there are others, and with rests.

Lines that a process takes on keep its event loop busy, and those that stand on the lanes go before what others put
there later. So while other stores ask any process, a store has one short parcel at a time on its way from each, of all
its batches together, and then leaves the process alone for as long as that took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from ...client._async.redis_connection import AsyncRedisWire
from .active_stores import AskingStores
from .store_locks import StoreLocks

#: Longest rest after a parcel, in seconds: who waits for room on a lane has rested by that.
MOST_REST_SECONDS = 0.1


class ParcelSize(NamedTuple):
    """How much goes to Redis together: no further line is added beyond either."""

    lines: int
    #: Of the commands as they stand on a lane.
    bytes: int


#: What Redis takes in its time, and what others wait for without noticing much.
ALONE = ParcelSize(2_000, 4_194_304)
BESIDE_OTHERS = ParcelSize(200, 32_768)


class BatchTurns:
    """The parcels that one process sends, of every store."""

    def __init__(self, asking: AskingStores) -> None:
        self._asking = asking
        self._locks = StoreLocks()

    def parcel_size(self, store_id: str) -> ParcelSize:
        """Return how large a parcel of the store may be now."""
        return BESIDE_OTHERS if self._asking.others_ask(store_id) else ALONE

    @asynccontextmanager
    async def turn(self, store_id: str, wire: AsyncRedisWire) -> AsyncIterator[None]:
        """Send a parcel of the store, as soon as it is its turn. Rests afterwards while others ask."""
        self._asking.keep_up(wire)
        if not self._asking.others_ask(store_id):
            yield
            return
        async with self._locks.held(store_id):
            began = time.perf_counter()
            yield
            await asyncio.sleep(min(time.perf_counter() - began, MOST_REST_SECONDS))
