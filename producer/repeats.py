"""Whether the ledger's answer to a ticket is that to an earlier request.

An announcement says so by itself. Where it is gone, the ledger has the decision, and not the lane entry that it was
made for. That an earlier entry of the same request has had its result here settles it, for a lane is decided in order;
that one was accepted does not, for a fail-over of Redis may have lost it. Else the decision's time in Postgres stands
against the entry's time in Redis, and how far these clocks are apart is learned from the results that come in time.
What stays unknown: requests that stood on the lane together, if the result of the first was not seen here, and what is
nearer in time than Postgres's clock is ahead.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Lock

from ..schemas.results import Result
from ..schemas.tickets import Ticket
from .verdict import MAX_CLOCK_DIFFERENCE_MS, place_of

#: Requests that are remembered, some 300 bytes each; the oldest go first.
MAX_REQUESTS = 10_000
#: How long what was learned of the clocks is good, in seconds; they drift, and are set.
CLOCKS_SECONDS = 60.0
#: How soon a result must come to teach something of the clocks, in seconds: they are known as exactly as it was quick.
QUICK_SECONDS = 0.25
#: A lane entry's time is in whole milliseconds, cut off.
_CUT_OFF_SECONDS = 0.001

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Repeats:
    """What one producer knows of the requests that it has sent one by one. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: The first lane entry of each request, and whether that one's result was seen.
        self._first: dict[tuple[str, str], tuple[str, bool]] = {}
        #: By how much the clock of Postgres is ahead of that of Redis at the least, and until when that is good.
        self._least_lead: float | None = None
        self._good_until = 0.0

    def note(self, ticket: Ticket) -> None:
        """Remember an accepted command."""
        with self._lock:
            self._first.setdefault(_request_of(ticket), (ticket.lane_entry, False))
            if len(self._first) > MAX_REQUESTS:
                del self._first[next(iter(self._first))]

    def note_result(self, ticket: Ticket) -> None:
        """Remember that the ticket's command has its result."""
        with self._lock:
            self._note_result(ticket)

    def learn(self, ticket: Ticket, result: Result, seconds: float) -> None:
        """Learn of the clocks from a result that came so many seconds after its command was sent."""
        if result.decided_at is None or result.replayed or seconds > QUICK_SECONDS:
            return
        least = _lead_of(ticket, result.decided_at) - seconds - _CUT_OFF_SECONDS
        if least * 1_000 > MAX_CLOCK_DIFFERENCE_MS:
            # Rather than the clock it is the account that is ahead, which says nothing of the results of others.
            return
        # It may be so with less, too. Without a lead some repeats are not told; with a wrong one what is new is told as
        # a repeat.
        least = min(least, 0.0)
        with self._lock:
            known = self._known_lead()
            # The least that was seen: an account may have got a later time than the clock had, never an earlier one.
            if known is None:
                self._least_lead, self._good_until = least, time.monotonic() + CLOCKS_SECONDS
            elif least < known:
                self._least_lead = least

    def told(self, ticket: Ticket, result: Result | None) -> Result | None:
        """Return the result that the ledger has for the ticket, saying whether it is that to an earlier request."""
        if result is None or result.kind is None or result.decided_at is None:
            return result
        replayed = result.replayed
        with self._lock:
            known = self._known_lead()
            first, has_result = self._first.get(_request_of(ticket), (ticket.lane_entry, False))
            self._note_result(ticket)
        if known is not None:
            replayed = _lead_of(ticket, result.decided_at) < known
        if has_result and place_of(first) < place_of(ticket.lane_entry):
            replayed = True
        return result if replayed == result.replayed else result.model_copy(update={"replayed": replayed})

    def _note_result(self, ticket: Ticket) -> None:
        request = _request_of(ticket)
        if request in self._first and self._first[request][0] == ticket.lane_entry:
            self._first[request] = (ticket.lane_entry, True)

    def _known_lead(self) -> float | None:
        return self._least_lead if time.monotonic() < self._good_until else None


def _lead_of(ticket: Ticket, decided_at: datetime) -> float:
    """Return how much later by Postgres the decision is than by Redis the acceptance, in seconds."""
    return (decided_at - _EPOCH).total_seconds() - place_of(ticket.lane_entry)[0] / 1_000


def _request_of(ticket: Ticket) -> tuple[str, str]:
    # The digest is of all that the command says, its store and its account too.
    return ticket.idempotency_key, ticket.fingerprint
