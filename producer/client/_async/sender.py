"""Puts chunks of commands on their lanes, for the asyncio client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple

from ....lanes.backoff import growing_pauses
from ....lanes.deadlines import deadline_in, part_of, seconds_until
from ....schemas.commands import Command
from ....schemas.errors import CreditlaneError, Unavailable
from ....schemas.settings import Settings
from ..chunks import Chunk, async_chunks_of, with_progress
from ..clocks import Clocks
from ..enqueue import FULL_LANE_PAUSES, LOAD_SCRIPT, Shipment
from ..identity import Numbers
from ..redis_exchange import ANSWER_TIMEOUT_SECONDS, MAX_ATTEMPTS, ExchangeFailed, refuse_errors
from ..tickets import Tickets
from .concurrency import sleep
from .redis_connection import AsyncRedisWire, InFlight


class _Launched(NamedTuple):
    shipment: Shipment
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
        numbers: Numbers,
        clocks: Clocks | None = None,
    ) -> None:
        self._wire = wire
        self._settings = settings
        self._producer_id = producer_id
        self._numbers = numbers
        self._clocks = clocks

    async def send(self, chunk: Chunk, first_number: int, *, keep: bool, deadline: float) -> Shipment:
        """Put one chunk on its lanes by the deadline, without waiting for a full one.

        Raises:
            LaneFull: a lane is at its limit and took nothing.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: the commands were sent, and no attempt was answered.
        """
        shipment = self.shipment(chunk, first_number, keep=keep)
        await self._finish(await self._launch(shipment, deadline), 0.0, accepted_before=0, deadline=deadline)
        return shipment

    def shipment(self, chunk: Chunk, first_number: int, *, keep: bool) -> Shipment:
        """Return a chunk that is to be sent."""
        return Shipment(chunk, self._settings, self._producer_id, first_number, keep=keep, clocks=self._clocks)

    async def send_all(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        partitions: int,
        *,
        keep: bool,
        patience_seconds: float,
        on_progress: Callable[[int], None] | None,
    ) -> Tickets:
        """Put all commands on their lanes, each chunk on its way while the next is encoded, and return their tickets.

        Raises:
            InvalidCommand: a command breaks a rule; everything before it is accepted.
            LaneFull: a lane took nothing for `patience_seconds`.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: commands were sent, and no attempt was answered.
        """
        tickets = Tickets(self._settings.store, self._producer_id, kept=keep)
        launched: _Launched | None = None
        async with aclosing(async_chunks_of(commands, self._settings.store, partitions)) as chunks:
            while True:
                try:
                    chunk = await anext(chunks, None)
                except Exception:
                    # What came before the bad command is accepted before the caller hears of it.
                    await self._land(launched, tickets, patience_seconds, on_progress)
                    raise
                except BaseException:
                    # Who is interrupted waits for nothing more; the connection must not stay taken.
                    if launched is not None and launched.in_flight is not None:
                        await self._wire.abandon(launched.in_flight)
                    raise
                await self._land(launched, tickets, patience_seconds, on_progress)
                if chunk is None:
                    return tickets
                first_number = self._numbers.take(len(chunk))
                shipment = self.shipment(chunk, first_number, keep=keep)
                launched = await self._launch(shipment, deadline_in(patience_seconds))

    async def _land(
        self,
        launched: _Launched | None,
        tickets: Tickets,
        patience_seconds: float,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        if launched is None:
            return
        try:
            await self._finish(launched, patience_seconds, accepted_before=len(tickets))
        except CreditlaneError as error:
            raise with_progress(error, len(tickets) + launched.shipment.accepted) from error
        tickets.append(launched.shipment)
        if on_progress is not None:
            on_progress(len(tickets))

    async def _launch(self, shipment: Shipment, deadline: float) -> _Launched:
        try:
            in_flight = await self._wire.send(shipment.calls(), part_of(deadline, ANSWER_TIMEOUT_SECONDS))
        except ExchangeFailed as error:
            if error.sent:
                shipment.note_silence()
            return _Launched(shipment, None, deadline)
        return _Launched(shipment, in_flight, deadline)

    async def _finish(
        self, launched: _Launched, patience_seconds: float, accepted_before: int, deadline: float | None = None
    ) -> None:
        """Send until all is accepted: by the deadline, or as long as no patience is spent without any progress."""
        shipment = launched.shipment
        pauses, loads = growing_pauses(*FULL_LANE_PAUSES), 0
        patient_until = time.monotonic() + patience_seconds
        # What is on its way may have been so for long, while the next chunk was made; what is not has waited since.
        first = patience_seconds if launched.in_flight is not None else seconds_until(launched.deadline)
        answers = await self._first_answers(launched, deadline or deadline_in(first))
        while True:
            accepted = shipment.settle(answers)
            if shipment.is_done:
                return
            if shipment.script_is_missing:
                loads = await self._load_script(shipment, loads, deadline or deadline_in(patience_seconds))
            elif accepted:
                pauses, patient_until = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + patience_seconds
            elif time.monotonic() >= patient_until:
                raise shipment.lane_full(accepted_before)
            else:
                await sleep(next(pauses))
            # A lane may be full to the last moment of the patience; what is asked then has the least that a call has.
            answers = await self._exchange(shipment, deadline or deadline_in(seconds_until(patient_until)))

    async def _first_answers(self, launched: _Launched, deadline: float) -> list[Any]:
        if launched.in_flight is not None:
            try:
                return await self._wire.receive(launched.in_flight, part_of(deadline, ANSWER_TIMEOUT_SECONDS))
            except ExchangeFailed as error:
                if error.sent:
                    launched.shipment.note_silence()
        return await self._exchange(launched.shipment, deadline)

    async def _exchange(self, shipment: Shipment, deadline: float) -> list[Any]:
        return await self._wire.exchange(
            shipment.calls(),
            changes_something=True,
            # Whichever attempt it was that went unanswered: the one that fails now does not undo it.
            was_sent=shipment.is_doubtful,
            deadline=deadline,
            on_silence=shipment.note_silence,
        )

    async def _load_script(self, shipment: Shipment, loads: int, deadline: float) -> int:
        if loads == MAX_ATTEMPTS:
            forgets = "Redis forgets the enqueue script as soon as it is loaded; check for SCRIPT FLUSH."
            raise shipment.doubted(Unavailable(forgets))
        try:
            refuse_errors(await self._wire.exchange([LOAD_SCRIPT], deadline=deadline))
        except Unavailable as error:
            raise shipment.doubted(error) from error
        return loads + 1
