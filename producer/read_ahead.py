"""Which results are looked up together, and those that were found: tickets are mostly asked for one after the other.

Knows no socket; both clients use it. Only what never changes is kept, so that it can be given out without another look.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from threading import Lock

from ..schemas.results import Result
from ..schemas.tickets import Ticket
from .postgres import LOOKUP_KEYS
from .ticket_sequence import Tickets

#: Tickets of the latest bulks that are remembered when their caller has dropped the sequence, some 60 bytes each.
MAX_TICKETS = 100_000
#: Results that are kept for who asks next; the oldest go first.
MAX_RESULTS = 4_000


class ReadAhead:
    """Reads ahead for the tickets of one producer. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: Every bulk that somebody still holds.
        self._bulks: list[weakref.ref[Tickets]] = []
        #: The latest ones, which are held here.
        self._latest: deque[Tickets] = deque()
        self._results: dict[int, tuple[Ticket, Result]] = {}
        #: Number of the ticket after the last window, and how many that window had.
        self._next = 0
        self._size = 1

    def remember(self, tickets: Tickets) -> None:
        """Let the tickets of this bulk be looked up together."""
        with self._lock:
            self._bulks = [bulk for bulk in self._bulks if bulk() is not None]
            self._bulks.append(weakref.ref(tickets))
            self._latest.append(tickets)
            while sum(map(len, self._latest)) > MAX_TICKETS:
                self._latest.popleft()

    def known(self, ticket: Ticket) -> Result | None:
        """Return the result of this producer's ticket, if it was found when another one was looked up."""
        kept = self._results.get(ticket.number)
        return kept[1] if kept is not None and kept[0] == ticket else None

    def window(self, ticket: Ticket) -> list[Ticket]:
        """Return the tickets to look up together: this one, and the more after it the more were asked in order."""
        with self._lock:
            self._size = min(self._size * 2, LOOKUP_KEYS) if ticket.number == self._next else 1
            for bulk in filter(None, (bulk() for bulk in self._bulks)):
                place = bulk.position_of(ticket.number)
                if place is not None and bulk[place] == ticket:
                    tickets = bulk[place : place + self._size]
                    after = place + len(tickets)
                    self._next = bulk[after].number if after < len(bulk) else 0
                    return tickets
            return [ticket]

    def keep(self, tickets: Sequence[Ticket], results: Sequence[Result | None]) -> None:
        """Keep those results of a window that are final; a dead letter may still be replayed."""
        with self._lock:
            for ticket, result in zip(tickets, results, strict=True):
                if ticket.number and result is not None and result.status in {"applied", "rejected"}:
                    self._results[ticket.number] = (ticket, result)
            while len(self._results) > MAX_RESULTS:
                del self._results[next(iter(self._results))]
