"""Puts chunks of commands on their lanes, for the blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

from ..schemas.commands import Command
from ..schemas.errors import CreditlaneError, Unavailable
from ..schemas.settings import Settings
from .numbers import Numbers
from .outgoing import Chunk, chunks_of, with_progress
from .pauses import growing_pauses
from .redis_wire import Flight, RedisWire
from .shipment import FULL_LANE_PAUSES, LOAD_SCRIPT, Shipment
from .ticket_sequence import Tickets
from .wire import MAX_ATTEMPTS, ExchangeFailed, refuse_errors


class _Launched(NamedTuple):
    shipment: Shipment
    #: None: the commands could not be written; `was_sent` tells whether some of them were.
    flight: Flight | None
    was_sent: bool


class Sender:
    """Sends as one producer. Any number of threads may use it."""

    def __init__(self, wire: RedisWire, settings: Settings, producer_id: str, numbers: Numbers) -> None:
        self._wire = wire
        self._settings = settings
        self._producer_id = producer_id
        self._numbers = numbers

    def send(self, chunk: Chunk, first_number: int, *, keep: bool) -> Shipment:
        """Put one chunk on its lanes, without waiting for a full one.

        Raises:
            LaneFull: a lane is at its limit and took nothing.
            Unavailable: Redis could not be reached, or refuses.
            OutcomeUnknown: the commands were sent, and no attempt was answered.
        """
        shipment = Shipment(chunk, self._settings, self._producer_id, first_number, keep=keep)
        self._finish(self._launch(shipment), patience_seconds=0.0, accepted_before=0)
        return shipment

    def send_all(
        self,
        commands: Iterable[Command],
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
        # The None at the end lets the last chunk land inside the loop.
        chunks = chain(chunks_of(commands, self._settings.store, partitions), (None,))
        while True:
            try:
                chunk = next(chunks)
            except Exception:
                # What came before the bad command is accepted before the caller hears of it.
                self._land(launched, tickets, patience_seconds, on_progress)
                raise
            self._land(launched, tickets, patience_seconds, on_progress)
            if chunk is None:
                return tickets
            first_number = self._numbers.take(len(chunk))
            launched = self._launch(Shipment(chunk, self._settings, self._producer_id, first_number, keep=keep))

    def _land(
        self,
        launched: _Launched | None,
        tickets: Tickets,
        patience_seconds: float,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        if launched is None:
            return
        try:
            self._finish(launched, patience_seconds, accepted_before=len(tickets))
        except CreditlaneError as error:
            raise with_progress(error, len(tickets) + launched.shipment.accepted) from error
        tickets.append(launched.shipment)
        if on_progress is not None:
            on_progress(len(tickets))

    def _launch(self, shipment: Shipment) -> _Launched:
        try:
            return _Launched(shipment, self._wire.send(shipment.calls()), was_sent=True)
        except ExchangeFailed as error:
            return _Launched(shipment, None, was_sent=error.sent)

    def _finish(self, launched: _Launched, patience_seconds: float, accepted_before: int) -> None:
        shipment = launched.shipment
        answers = self._first_answers(launched)
        pauses, deadline, loads = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + patience_seconds, 0
        while True:
            accepted = shipment.settle(answers)
            if shipment.is_done:
                return
            if shipment.script_is_missing:
                loads = self._load_script(loads)
            elif accepted:
                pauses, deadline = growing_pauses(*FULL_LANE_PAUSES), time.monotonic() + patience_seconds
            elif time.monotonic() >= deadline:
                raise shipment.lane_full(accepted_before)
            else:
                time.sleep(next(pauses))
            answers = self._wire.exchange(shipment.calls(), changes_something=True)

    def _first_answers(self, launched: _Launched) -> list[Any]:
        was_sent = launched.was_sent
        if launched.flight is not None:
            try:
                return self._wire.receive(launched.flight)
            except ExchangeFailed as error:
                was_sent = error.sent
        return self._wire.exchange(launched.shipment.calls(), changes_something=True, was_sent=was_sent)

    def _load_script(self, loads: int) -> int:
        if loads == MAX_ATTEMPTS:
            raise Unavailable("Redis forgets the enqueue script as soon as it is loaded; check for SCRIPT FLUSH.")
        refuse_errors(self._wire.exchange([LOAD_SCRIPT]))
        return loads + 1
