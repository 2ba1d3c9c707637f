"""Puts chunks of commands on their lanes, for the asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple

from ..schemas.commands import Command
from ..schemas.errors import CreditlaneError, Unavailable
from ..schemas.settings import Settings
from .async_redis_wire import AsyncRedisWire, Flight
from .numbers import Numbers
from .outgoing import Chunk, async_chunks_of, with_progress
from .pauses import growing_pauses
from .shipment import FULL_LANE_PAUSES, LOAD_SCRIPT, Shipment
from .ticket_sequence import Tickets
from .wire import MAX_ATTEMPTS, ExchangeFailed, refuse_errors


class _Launched(NamedTuple):
    shipment: Shipment
    #: None: the commands could not be written; `was_sent` tells whether some of them were.
    flight: Flight | None
    was_sent: bool


class AsyncSender:
    """Sends as one producer. Any number of tasks may use it."""

    def __init__(self, wire: AsyncRedisWire, settings: Settings, producer_id: str, numbers: Numbers) -> None:
        self._wire = wire
        self._settings = settings
        self._producer_id = producer_id
        self._numbers = numbers

    async def send(self, chunk: Chunk, first_number: int, *, keep: bool) -> Shipment:
        """Put one chunk on its lanes, without waiting for a full one.

        Raises:
            LaneFull: a lane is at its limit and took nothing.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: the commands were sent, and no attempt was answered.
        """
        shipment = Shipment(chunk, self._settings, self._producer_id, first_number, keep=keep)
        await self.deliver(shipment, patience_seconds=0.0)
        return shipment

    async def deliver(self, shipment: Shipment, patience_seconds: float) -> None:
        """Put the shipment on its lanes. On an error, its `entries` tell which of its commands are accepted.

        Raises:
            LaneFull: a lane took nothing for `patience_seconds`.
            Unavailable, OutcomeUnknown: as for `send`.
        """
        await self._finish(await self._launch(shipment), patience_seconds, accepted_before=0)

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
                await self._land(launched, tickets, patience_seconds, on_progress)
                if chunk is None:
                    return tickets
                first_number = self._numbers.take(len(chunk))
                launched = await self._launch(
                    Shipment(chunk, self._settings, self._producer_id, first_number, keep=keep)
                )

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

    async def _launch(self, shipment: Shipment) -> _Launched:
        try:
            return _Launched(shipment, await self._wire.send(shipment.calls()), was_sent=True)
        except ExchangeFailed as error:
            return _Launched(shipment, None, was_sent=error.sent)

    async def _finish(self, launched: _Launched, patience_seconds: float, accepted_before: int) -> None:
        shipment = launched.shipment
        answers = await self._first_answers(launched)
        pauses, deadline, loads = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + patience_seconds, 0
        while True:
            accepted = shipment.settle(answers)
            if shipment.is_done:
                return
            if shipment.script_is_missing:
                loads = await self._load_script(loads)
            elif accepted:
                pauses, deadline = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + patience_seconds
            elif time.monotonic() >= deadline:
                raise shipment.lane_full(accepted_before)
            else:
                await asyncio.sleep(next(pauses))
            answers = await self._wire.exchange(shipment.calls(), changes_something=True)

    async def _first_answers(self, launched: _Launched) -> list[Any]:
        was_sent = launched.was_sent
        if launched.flight is not None:
            try:
                return await self._wire.receive(launched.flight)
            except ExchangeFailed as error:
                was_sent = error.sent
        return await self._wire.exchange(launched.shipment.calls(), changes_something=True, was_sent=was_sent)

    async def _load_script(self, loads: int) -> int:
        if loads == MAX_ATTEMPTS:
            raise Unavailable("Redis forgets the enqueue script as soon as it is loaded; check for SCRIPT FLUSH.")
        refuse_errors(await self._wire.exchange([LOAD_SCRIPT]))
        return loads + 1
