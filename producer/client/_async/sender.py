"""Puts chunks of commands on their lanes, for the asyncio client."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from ....lanes.backoff import growing_pauses
from ....lanes.deadlines import deadline_in, part_of, seconds_until
from ....schemas.errors import Unavailable
from ....schemas.settings import Settings
from ..chunks import Chunk
from ..clocks import Clocks
from ..enqueue import FULL_LANE_PAUSES, LOAD_SCRIPT, ChunkEnqueue
from ..identity import CommandNumbers
from ..redis_exchange import ANSWER_TIMEOUT_SECONDS, MAX_ATTEMPTS, ExchangeFailed, refuse_errors
from ..tickets import Tickets
from .concurrency import sleep
from .redis_connection import AsyncRedisWire, InFlight


class Begun(NamedTuple):
    """A chunk that is on its way to its lanes."""

    enqueue: ChunkEnqueue
    #: None: the commands could not be written.
    in_flight: InFlight | None
    #: By when this was tried.
    deadline: float


class AsyncSender:
    """Sends as one producer. Any number of tasks may use it."""

    def __init__(
        self,
        wire: AsyncRedisWire,
        settings: Settings,
        producer_id: str,
        numbers: CommandNumbers,
        clocks: Clocks | None = None,
    ) -> None:
        self._wire = wire
        self._settings = settings
        self._producer_id = producer_id
        self._numbers = numbers
        self._clocks = clocks

    async def send(self, chunk: Chunk, first_number: int, *, keep: bool, deadline: float) -> ChunkEnqueue:
        """Put one chunk on its lanes by the deadline, without waiting for a full one.

        Raises:
            LaneFull: a lane is at its limit and took nothing.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: the commands were sent, and no attempt was answered.
        """
        enqueue = self.enqueue_of(chunk, first_number, keep=keep)
        await self.finish(await self.begin(enqueue, deadline), 0.0, accepted_before=0, deadline=deadline)
        return enqueue

    def enqueue_of(self, chunk: Chunk, first_number: int, *, keep: bool) -> ChunkEnqueue:
        """Return a chunk that is to be sent."""
        return ChunkEnqueue(chunk, self._settings, self._producer_id, first_number, keep=keep, clocks=self._clocks)

    def enqueue_next(self, chunk: Chunk, *, keep: bool) -> ChunkEnqueue:
        """Return a chunk that is to be sent under the producer's next numbers."""
        return self.enqueue_of(chunk, self._numbers.take(len(chunk)), keep=keep)

    def no_tickets(self, *, keep: bool) -> Tickets:
        """Return the tickets of nothing yet, to which those of chunks are appended."""
        return Tickets(self._settings.store, self._producer_id, kept=keep)

    async def begin(self, enqueue: ChunkEnqueue, deadline: float) -> Begun:
        """Write the chunk to Redis by the deadline, without waiting for the answer; `finish` or `abandon` what begins.

        Raises nothing: what could not be written is tried again by `finish`.
        """
        try:
            in_flight = await self._wire.send(enqueue.calls(), part_of(deadline, ANSWER_TIMEOUT_SECONDS))
        except ExchangeFailed as error:
            if error.sent:
                enqueue.note_silence()
            return Begun(enqueue, None, deadline)
        return Begun(enqueue, in_flight, deadline)

    async def abandon(self, begun: Begun | None) -> None:
        """Wait for no answer any more; the connection must not stay taken."""
        if begun is not None and begun.in_flight is not None:
            await self._wire.abandon(begun.in_flight)

    async def finish(
        self,
        begun: Begun,
        stall_seconds: float,
        accepted_before: int,
        deadline: float | None = None,
        pause: Callable[[float], Awaitable[None]] = sleep,
    ) -> None:
        """Send until all is accepted: by the deadline, or as long as there is progress within `stall_seconds`.

        `pause` waits for so many seconds, before a lane that is full is tried again.

        Raises:
            LaneFull: a lane took nothing for so long.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: the commands were sent, and no attempt was answered.
        """
        enqueue = begun.enqueue
        pauses, loads = growing_pauses(*FULL_LANE_PAUSES), 0
        gives_up_at = time.monotonic() + stall_seconds
        # What is on its way may have been so for long, while the next chunk was made; what is not has waited since.
        first = stall_seconds if begun.in_flight is not None else seconds_until(begun.deadline)
        answers = await self._first_answers(begun, deadline or deadline_in(first))
        while True:
            accepted = enqueue.settle(answers)
            if enqueue.is_done:
                return
            if enqueue.script_is_missing:
                loads = await self._load_script(enqueue, loads, deadline or deadline_in(stall_seconds))
            elif accepted:
                pauses, gives_up_at = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + stall_seconds
            elif time.monotonic() >= gives_up_at:
                raise enqueue.lane_full(accepted_before)
            else:
                await pause(next(pauses))
            # A lane may be full to the last moment; what is asked then has the least that a call has.
            answers = await self._exchange(enqueue, deadline or deadline_in(seconds_until(gives_up_at)))

    async def _first_answers(self, begun: Begun, deadline: float) -> list[Any]:
        if begun.in_flight is not None:
            try:
                return await self._wire.receive(begun.in_flight, part_of(deadline, ANSWER_TIMEOUT_SECONDS))
            except ExchangeFailed as error:
                if error.sent:
                    begun.enqueue.note_silence()
        return await self._exchange(begun.enqueue, deadline)

    async def _exchange(self, enqueue: ChunkEnqueue, deadline: float) -> list[Any]:
        return await self._wire.exchange(
            enqueue.calls(),
            changes_something=True,
            # Whichever attempt it was that went unanswered: the one that fails now does not undo it.
            was_sent=enqueue.is_doubtful,
            deadline=deadline,
            on_silence=enqueue.note_silence,
        )

    async def _load_script(self, enqueue: ChunkEnqueue, loads: int, deadline: float) -> int:
        if loads == MAX_ATTEMPTS:
            forgets = "Redis forgets the enqueue script as soon as it is loaded; check for SCRIPT FLUSH."
            raise enqueue.doubted(Unavailable(forgets))
        try:
            refuse_errors(await self._wire.exchange([LOAD_SCRIPT], deadline=deadline))
        except Unavailable as error:
            raise enqueue.doubted(error) from error
        return loads + 1
