"""The session of an API process with Redis, which all stores share: none of them may fill it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from ...lanes.backoff import growing_pauses
from ...lanes.deadlines import deadline_in
from ...schemas.errors import LaneFull, Unavailable
from ...schemas.fair_shares import SHARE_OF_FREE
from ...schemas.settings import Settings
from ..client._async.concurrency import sleep
from ..client._async.redis_connection import AsyncRedisWire
from ..client._async.sender import AsyncSender
from ..client._async.session import AsyncSession
from ..client.chunks import Chunk
from ..client.clocks import Clocks
from ..client.enqueue import FULL_LANE_PAUSES, ChunkEnqueue
from ..client.identity import CommandNumbers
from ..client.redis_exchange import refusal_in, refuse_errors, write_check_calls
from .redis_memory import RedisMemory

#: Nobody of this process waits for such results: they are announced to none, and found by their tickets.
NO_PRODUCER = ""


class FairSender(AsyncSender):
    """Sends for all stores. None of them may have more than its share of a lane, nor of Redis."""

    def __init__(
        self,
        wire: AsyncRedisWire,
        settings: Settings,
        producer_id: str,
        numbers: CommandNumbers,
        clocks: Clocks,
        *,
        memory: RedisMemory,
    ) -> None:
        super().__init__(wire, settings, producer_id, numbers, clocks)
        #: What stores have on all lanes together.
        self._memory = memory

    async def send(self, chunk: Chunk, first_number: int, *, keep: bool, deadline: float) -> ChunkEnqueue:
        """Put one chunk on its lanes by the deadline, without waiting for a full one.

        Raises:
            LaneFull: a lane is at its limit and took nothing, or the store has its share of Redis.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: the commands were sent, and no attempt was answered.
        """
        await self._wait_for_share(chunk, 0.0)
        return await super().send(chunk, first_number, keep=keep, deadline=deadline)

    def enqueue_of(self, chunk: Chunk, first_number: int, *, keep: bool) -> ChunkEnqueue:
        """Return a chunk that is to be sent."""
        return self._enqueue_as(chunk, self._producer_id, first_number, keep=keep)

    def unannounced(self, chunk: Chunk) -> ChunkEnqueue:
        """Return a chunk that is to be sent, whose results are announced to nobody."""
        return self._enqueue_as(chunk, NO_PRODUCER, 0, keep=False)

    async def deliver(
        self, enqueue: ChunkEnqueue, stall_seconds: float, pause: Callable[[float], Awaitable[None]] = sleep
    ) -> None:
        """Put the chunk on its lanes. On an error, the `entries` say which of its commands are accepted.

        `pause` waits for so many seconds, while there is no room.

        Raises:
            LaneFull: a lane took nothing for `stall_seconds`, or the store had its share of Redis for so long.
            Unavailable, OutcomeUnknown: as for `send`.
        """
        await self._wait_for_share(enqueue.chunk, stall_seconds, pause)
        begun = await self.begin(enqueue, deadline_in(stall_seconds))
        await self.finish(begun, stall_seconds, accepted_before=0, pause=pause)

    def _enqueue_as(self, chunk: Chunk, producer_id: str, first_number: int, *, keep: bool) -> ChunkEnqueue:
        return ChunkEnqueue(
            chunk,
            self._settings,
            producer_id,
            first_number,
            keep=keep,
            share_of_free=SHARE_OF_FREE,
            clocks=self._clocks,
        )

    async def _wait_for_share(
        self, chunk: Chunk, stall_seconds: float, pause: Callable[[float], Awaitable[None]] = sleep
    ) -> None:
        """Wait until the store has less than its share of Redis, or raise LaneFull after so long."""
        pauses, gives_up_at = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + stall_seconds
        while self._memory.has_share(chunk.store_id):
            if time.monotonic() >= gives_up_at:
                raise LaneFull(
                    "This store has its share of what Redis may hold; try again shortly.",
                    partition=next(iter(chunk.lanes)),
                )
            await pause(next(pauses))


class FairSession(AsyncSession):
    """What sends the commands of all stores and hears their results: one reply stream for each process."""

    sender: FairSender

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        wire = AsyncRedisWire(self.settings.require_redis_url())
        self._memory = RedisMemory(wire, self.keys, lambda: self._partitions, share_of_free=SHARE_OF_FREE)
        self.sender = FairSender(
            self.wire, self.settings, self.producer_id, self.numbers, self.clocks, memory=self._memory
        )

    async def write_problem(self, deadline: float) -> str | None:
        """Return why Redis takes no writes now, or None if it does: a full one and a replica answer a PING too.

        Raises:
            Unavailable: it cannot be reached.
        """
        try:
            refuse_errors(await self.wire.exchange(write_check_calls(self.keys), deadline=deadline))
        except Unavailable as error:
            return refusal_in(error)
        return None

    async def close(self) -> None:
        """End the listener and close every connection."""
        await self._memory.close()
        await super().close()
