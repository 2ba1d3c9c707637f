"""Puts chunks of commands on their lanes, for the asyncio client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple

from ....lanes.backoff import growing_pauses
from ....lanes.deadlines import deadline_in, part_of, seconds_until
from ....schemas.commands import Command
from ....schemas.errors import CreditlaneError, Unavailable
from ....schemas.settings import Settings
from ..chunks import Chunk, async_chunks_of, with_progress
from ..clocks import Clocks
from ..enqueue import FULL_LANE_PAUSES, LOAD_SCRIPT, ChunkEnqueue
from ..identity import CommandNumbers
from ..redis_exchange import ANSWER_TIMEOUT_SECONDS, MAX_ATTEMPTS, ExchangeFailed, refuse_errors
from ..tickets import Tickets
from .concurrency import sleep
from .redis_connection import AsyncRedisWire, InFlight


class _Begun(NamedTuple):
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
        await self._finish(await self._begin(enqueue, deadline), 0.0, accepted_before=0, deadline=deadline)
        return enqueue

    def enqueue_of(self, chunk: Chunk, first_number: int, *, keep: bool) -> ChunkEnqueue:
        """Return a chunk that is to be sent."""
        return ChunkEnqueue(chunk, self._settings, self._producer_id, first_number, keep=keep, clocks=self._clocks)

    async def send_all(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        partitions: int,
        *,
        keep: bool,
        stall_seconds: float,
        on_progress: Callable[[int], None] | None,
    ) -> Tickets:
        """Put all commands on their lanes, each chunk on its way while the next is encoded, and return their tickets.

        Raises:
            InvalidCommand: a command breaks a rule; everything before it is accepted.
            LaneFull: a lane took nothing for `stall_seconds`.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: commands were sent, and no attempt was answered.
        """
        tickets = Tickets(self._settings.store, self._producer_id, kept=keep)
        begun: _Begun | None = None
        async with aclosing(async_chunks_of(commands, self._settings.store, partitions)) as chunks:
            while True:
                try:
                    chunk = await anext(chunks, None)
                except Exception:
                    # What came before the bad command is accepted before the caller hears of it.
                    await self._complete(begun, tickets, stall_seconds, on_progress)
                    raise
                except BaseException:
                    # Who is interrupted waits for nothing more; the connection must not stay taken.
                    if begun is not None and begun.in_flight is not None:
                        await self._wire.abandon(begun.in_flight)
                    raise
                await self._complete(begun, tickets, stall_seconds, on_progress)
                if chunk is None:
                    return tickets
                first_number = self._numbers.take(len(chunk))
                enqueue = self.enqueue_of(chunk, first_number, keep=keep)
                begun = await self._begin(enqueue, deadline_in(stall_seconds))

    async def _complete(
        self,
        begun: _Begun | None,
        tickets: Tickets,
        stall_seconds: float,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        if begun is None:
            return
        try:
            await self._finish(begun, stall_seconds, accepted_before=len(tickets))
        except CreditlaneError as error:
            raise with_progress(error, len(tickets) + begun.enqueue.accepted) from error
        tickets.append(begun.enqueue)
        if on_progress is not None:
            on_progress(len(tickets))

    async def _begin(self, enqueue: ChunkEnqueue, deadline: float) -> _Begun:
        try:
            in_flight = await self._wire.send(enqueue.calls(), part_of(deadline, ANSWER_TIMEOUT_SECONDS))
        except ExchangeFailed as error:
            if error.sent:
                enqueue.note_silence()
            return _Begun(enqueue, None, deadline)
        return _Begun(enqueue, in_flight, deadline)

    async def _finish(
        self,
        begun: _Begun,
        stall_seconds: float,
        accepted_before: int,
        deadline: float | None = None,
        pause: Callable[[float], Awaitable[None]] = sleep,
    ) -> None:
        """Send until all is accepted: by the deadline, or as long as there is progress within `stall_seconds`.

        `pause` waits for so many seconds, before a lane that is full is tried again.
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

    async def _first_answers(self, begun: _Begun, deadline: float) -> list[Any]:
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
