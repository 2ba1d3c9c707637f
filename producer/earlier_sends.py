"""What this producer has sent lately: of a request that was sent twice, every one but the first is a repeat.

An announcement says by itself whether it tells of a repeat. Where it is gone, the ledger has the decision, and not the
lane entry that it was made for. That an earlier entry of the same request stood on the lane settles it, for a lane is
decided in order; the times of two clocks would not.
"""

from __future__ import annotations

from threading import Lock

from ..schemas.results import Result
from ..schemas.tickets import Ticket

#: Requests that are remembered, some 300 bytes each; the oldest go first.
MAX_REQUESTS = 10_000


class EarlierSends:
    """The first lane entry of each request that was sent one by one. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._first: dict[tuple[str, str], str] = {}

    def note(self, ticket: Ticket) -> None:
        """Remember an accepted command."""
        with self._lock:
            self._first.setdefault(_request_of(ticket), ticket.lane_entry)
            if len(self._first) > MAX_REQUESTS:
                del self._first[next(iter(self._first))]

    def told(self, ticket: Ticket, result: Result | None) -> Result | None:
        """Return the result that the ledger has for the ticket, as a repeat if it is known to be one."""
        if result is None or result.replayed or result.kind is None or not self._is_repeat(ticket):
            return result
        return result.model_copy(update={"replayed": True})

    def _is_repeat(self, ticket: Ticket) -> bool:
        first = self._first.get(_request_of(ticket))
        return first is not None and _place_of(first) < _place_of(ticket.lane_entry)


def _request_of(ticket: Ticket) -> tuple[str, str]:
    # The digest is of all that the command says, its store and its account too.
    return ticket.idempotency_key, ticket.fingerprint


def _place_of(lane_entry: str) -> tuple[int, int]:
    milliseconds, _, number = lane_entry.partition("-")
    return int(milliseconds), int(number)
