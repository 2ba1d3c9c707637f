"""Which of many tickets have a result, and how long the others are waited for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...lanes.backoff import growing_pauses
from ...lanes.deadlines import LEAST_SECONDS
from ...schemas.errors import OutcomeUnknown
from ...schemas.journal import Announcement
from ...schemas.results import Result, result_of_announcement
from ...schemas.tickets import Ticket
from ..ledger.read_limits import LOOKUP_KEYS
from .resolve import is_decided, own_ticket
from .tickets import Tickets

#: How long nothing at all may come before the outcome of the rest counts as unknown, in seconds.
SILENCE_SECONDS = 60.0
#: The first and the longest pause before Postgres is asked for what should be announced, in seconds.
OWN_PAUSES = (1.0, 8.0)
#: The same for commands of other processes, which nobody announces here.
FOREIGN_PAUSES = (0.05, 1.0)


class Lookup(NamedTuple):
    """Tickets to ask Postgres about, with their positions."""

    positions: list[int]
    tickets: list[Ticket]


class ResultCollector:
    """Tickets of which each shall get its result once. A byte a ticket, beside the tickets themselves."""

    def __init__(self, tickets: Iterable[Ticket | str], store_id: str, producer_id: str) -> None:
        self._tickets: Sequence[Ticket]
        if isinstance(tickets, Tickets):
            self._tickets = tickets
            self._packed = tickets if tickets.producer_id == producer_id else None
            self._numbers: dict[int, int] = {}
            if len(tickets):
                own_ticket(tickets[0], store_id)
        else:
            # The same ticket twice is one command with one result.
            self._tickets = list(dict.fromkeys(own_ticket(ticket, store_id) for ticket in tickets))
            self._packed = None
            self._numbers = {
                ticket.number: position
                for position, ticket in enumerate(self._tickets)
                if ticket.producer_id == producer_id and ticket.number
            }
        self._done = bytearray(len(self._tickets))
        self._cursor = 0
        self._from_start = False
        self.remaining: int = len(self._tickets)

    @property
    def has_own(self) -> bool:
        """Whether results of this producer's own commands are among those waited for."""
        return self._packed is not None or bool(self._numbers)

    def covers(self, number: int) -> bool:
        """Whether the announcement of this number is still wanted."""
        position = self._position_of(number)
        return position is not None and not self._done[position]

    def claim(self, announcement: Announcement) -> Result | None:
        """Return the result that was announced, if it is still wanted."""
        position = self._position_of(announcement.number)
        if position is None or self._done[position]:
            return None
        self._mark_done(position)
        if announcement.row is not None and announcement.refusal is None:
            return result_of_announcement(announcement, announcement.row.account_id, announcement.row.idempotency_key)
        ticket = self._tickets[position]
        return result_of_announcement(announcement, ticket.account_id, ticket.idempotency_key)

    def next_lookup(self) -> Lookup:
        """Return some tickets without a result: by turns the first ones, and others further on."""
        self._from_start = not self._from_start
        start = 0 if self._from_start else self._cursor
        positions = self._undecided(start)
        if not positions:
            positions = self._undecided(0)
        if not self._from_start and positions:
            self._cursor = positions[-1] + 1
        return Lookup(positions, [self._tickets[position] for position in positions])

    def settle(self, lookup: Lookup, results: Sequence[Result | None]) -> list[Result]:
        """Return the final ones of the results that Postgres had for a look-up, each once."""
        settled = []
        for position, result in zip(lookup.positions, results, strict=True):
            if result is not None and is_decided(result) and not self._done[position]:
                self._mark_done(position)
                settled.append(result)
        return settled

    def unknown(self, seconds: float) -> OutcomeUnknown:
        """Return the error for what has no result when the wait is over."""
        ticket = self._tickets[self._done.index(0)]
        return OutcomeUnknown(
            f"{self.remaining} of {len(self._tickets)} commands have no result after {seconds:g} s, the first of them "
            f"that of key {ticket.idempotency_key!r}. They are accepted and may still apply: wait for them again.",
            ticket=ticket,
        )

    def _undecided(self, start: int) -> list[int]:
        positions: list[int] = []
        position = self._done.find(0, start)
        while position >= 0 and len(positions) < LOOKUP_KEYS:
            positions.append(position)
            position = self._done.find(0, position + 1)
        return positions

    def _position_of(self, number: int) -> int | None:
        return self._packed.position_of(number) if self._packed is not None else self._numbers.get(number)

    def _mark_done(self, position: int) -> None:
        self._done[position] = 1
        self.remaining -= 1


class WaitPolicy:
    """How long to wait for the next announcement before Postgres is asked, and when to give up. Knows no clock."""

    def __init__(self, now: float, timeout_seconds: float | None, *, has_own: bool) -> None:
        self._limits = OWN_PAUSES if has_own else FOREIGN_PAUSES
        self._pauses = growing_pauses(*self._limits)
        self._pause = next(self._pauses) if has_own else 0.0
        self._timeout = timeout_seconds
        self._started = now
        self._quiet_since: float | None = None

    def wait_seconds(self, now: float) -> float:
        """Return how long to wait now."""
        if self._timeout is None:
            return self._pause
        return max(0.0, min(self._pause, self._started + self._timeout - now))

    def lookup_seconds(self, now: float) -> float | None:
        """Return how long a look-up in Postgres may take; None: as long as any."""
        return None if self._timeout is None else max(LEAST_SECONDS, self._started + self._timeout - now)

    def note(self, results: int, *, asked: bool, now: float) -> None:
        """Take note of a round and of how many results it brought."""
        if results:
            self._quiet_since = None
            self._pauses = growing_pauses(*self._limits)
            # Where Postgres had some, it may have more; where they are announced, there is no need to ask.
            self._pause = 0.0 if asked else next(self._pauses)
        else:
            self._quiet_since = now if self._quiet_since is None else self._quiet_since
            self._pause = next(self._pauses)

    def spent_seconds(self, now: float) -> float | None:
        """Return how long was waited, if that is as long as it may be; else None."""
        if self._timeout is not None:
            return self._timeout if now - self._started >= self._timeout else None
        if self._quiet_since is None or now - self._quiet_since < SILENCE_SECONDS:
            return None
        return SILENCE_SECONDS
