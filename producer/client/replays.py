"""Whether the ledger's answer to a ticket is that to an earlier request.

An announcement says so by itself. Where it is gone, the ledger has the decision, and not the lane entry that it was
made for. That an earlier entry of the same request has had its result here settles it, for a lane is decided in order;
that one was accepted does not, for a fail-over of Redis may have lost it. Else the decision's time in Postgres stands
against the entry's time in Redis, and `clocks` knows how far these are apart.
What stays unknown: requests that stood on the lane together, if the result of the first was not seen here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Lock

from ...schemas.results import Result
from ...schemas.tickets import Ticket
from .clocks import Clocks
from .resolve import position_of_entry

#: Requests that are remembered, some 300 bytes each; the oldest go first.
MAX_REQUESTS = 10_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Replays:
    """What one producer knows of the requests that it has sent one by one. Threads may share it."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._lock = Lock()
        #: The first lane entry of each request, and whether that one's result was seen.
        self._first: dict[tuple[str, str], tuple[str, bool]] = {}

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

    def marked(self, ticket: Ticket, result: Result | None) -> Result | None:
        """Return the result that the ledger has for the ticket, saying whether it is that to an earlier request."""
        if result is None or result.kind is None or result.decided_at is None:
            return result
        with self._lock:
            first, has_result = self._first.get(_request_of(ticket), (ticket.lane_entry, False))
            self._note_result(ticket)
        accepted = position_of_entry(ticket.lane_entry)[0] / 1_000
        is_older = self._clocks.is_older((result.decided_at - _EPOCH).total_seconds(), accepted)
        replayed = result.replayed if is_older is None else is_older
        if has_result and position_of_entry(first) < position_of_entry(ticket.lane_entry):
            replayed = True
        return result if replayed == result.replayed else result.model_copy(update={"replayed": replayed})

    def _note_result(self, ticket: Ticket) -> None:
        request = _request_of(ticket)
        if request in self._first and self._first[request][0] == ticket.lane_entry:
            self._first[request] = (ticket.lane_entry, True)


def _request_of(ticket: Ticket) -> tuple[str, str]:
    # The digest is of all that the command says, its store and its account too.
    return ticket.idempotency_key, ticket.fingerprint
