"""Which results are looked up together, and those that were found: tickets are mostly asked for one after the other.

Knows no socket; both clients use it. Only what never changes is kept, so that it need not be read again.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from ...schemas.results import Result
from ...schemas.tickets import Ticket
from ..ledger.read_limits import LOOKUP_KEYS
from .tickets import Tickets

#: Tickets of the latest bulks that are remembered when their caller has dropped the sequence, some 60 bytes each.
MAX_TICKETS = 100_000
#: How many such bulks there may be: small ones cost more than their tickets.
MAX_LATEST_BULKS = 128
#: Bulks among which a ticket is looked for, those that the caller holds included; the oldest go first.
MAX_BULKS = 512
#: Results that are kept for who asks next; the oldest go first.
MAX_RESULTS = 4_000


class _Bulk(NamedTuple):
    #: Numbers of its first and of its last ticket; another bulk may have some in between.
    first: int
    last: int
    tickets: weakref.ref[Tickets]


class ReadAhead:
    """Reads ahead for the tickets of one producer. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: The bulks that somebody may still hold, the latest last.
        self._bulks: list[_Bulk] = []
        #: The latest ones, which are held here, and how many tickets they have together.
        self._latest: deque[Tickets] = deque()
        self._latest_tickets = 0
        self._results: dict[int, tuple[Ticket, Result]] = {}
        #: Number of the ticket after the last window, and how many that window had.
        self._next = 0
        self._size = 1

    def remember(self, tickets: Tickets) -> None:
        """Let the tickets of this bulk be looked up together."""
        if not tickets:
            return
        bulk = _Bulk(*tickets.number_span, weakref.ref(tickets))
        with self._lock:
            self._bulks.append(bulk)
            self._latest.append(tickets)
            self._latest_tickets += len(tickets)
            while self._latest_tickets > MAX_TICKETS or len(self._latest) > MAX_LATEST_BULKS:
                self._latest_tickets -= len(self._latest.popleft())
            if len(self._bulks) > MAX_BULKS:
                # What nobody holds makes room before what somebody does.
                self._bulks = [bulk for bulk in self._bulks if bulk.tickets() is not None][-MAX_BULKS:]

    def known(self, ticket: Ticket) -> Result | None:
        """Return the result of this producer's ticket, if it was found when another one was looked up."""
        kept = self._results.get(ticket.number)
        return kept[1] if kept is not None and kept[0] == ticket else None

    def window(self, ticket: Ticket) -> list[Ticket]:
        """Return the tickets to look up together: this one, and the more after it the more were asked in order."""
        with self._lock:
            self._size = min(self._size * 2, LOOKUP_KEYS) if ticket.number == self._next else 1
            bulk = self._bulk_of(ticket)
            if bulk is None:
                return [ticket]
            tickets, position = bulk
            after = position + self._size
            self._next = tickets[after].number if after < len(tickets) else 0
            return tickets[position:after]

    def keep(self, tickets: Sequence[Ticket], results: Sequence[Result | None]) -> None:
        """Keep those results of a window that are final; a dead letter may still be replayed."""
        if len(tickets) == 1:
            # Who has looked it up has it. What is read ahead is for who asks next.
            return
        with self._lock:
            for ticket, result in zip(tickets, results, strict=True):
                if ticket.number and result is not None and result.status in {"applied", "rejected"}:
                    self._results[ticket.number] = (ticket, result)
            while len(self._results) > MAX_RESULTS:
                del self._results[next(iter(self._results))]

    def _bulk_of(self, ticket: Ticket) -> tuple[Tickets, int] | None:
        """Return the bulk that the ticket belongs to, and its position there."""
        for bulk in reversed(self._bulks):
            if bulk.first <= ticket.number <= bulk.last and (tickets := bulk.tickets()) is not None:
                position = tickets.position_of(ticket.number)
                if position is not None and tickets[position] == ticket:
                    return tickets, position
        return None
