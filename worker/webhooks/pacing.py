"""How much is under way at once: for one endpoint as much as it takes, for all of them what a process can hold. Pure.

An endpoint begins with one request. Each success lets one more go beside it, each failure halves them, so an endpoint
that hangs holds one place and no more. An endpoint whose latest attempt succeeded is proven; those that are not, and
requests that take long, have places of their own. However many hang, the others find theirs free.
"""

from __future__ import annotations

#: Most requests to one endpoint at once.
MAX_CONCURRENCY = 32
#: Most requests at once to proven endpoints, and to others; each holds a socket.
MAX_PROVEN = 256
MAX_PROBING = 512
#: A request that takes longer than this gives its place back to those that are quick, in seconds.
PATIENCE_SECONDS = 1.0
#: An endpoint that keeps failing is left alone for this part of the time since it last worked, and so long at most.
PAUSE_SHARE = 0.5
MAX_PAUSE_SECONDS = 15.0


class Pace:
    """How many requests one endpoint gets at once."""

    __slots__ = ("is_proven", "limit")

    def __init__(self) -> None:
        self.limit = 1
        self.is_proven = False

    def succeeded(self) -> None:
        """Let one more go at once."""
        self.is_proven = True
        if self.limit < MAX_CONCURRENCY:
            self.limit += 1

    def failed(self) -> None:
        """Let half as many go at once."""
        self.is_proven = False
        self.limit = max(1, self.limit // 2)


class Places:
    """The requests under way in this process: those that are expected to be quick, and the others."""

    def __init__(self, max_proven: int = MAX_PROVEN, max_probing: int = MAX_PROBING) -> None:
        self._max = {True: max_proven, False: max_probing}
        #: When each began, by its place, oldest first.
        self._quick: dict[int, float] = {}
        self._others: dict[int, float] = {}
        self._next = 0

    @property
    def taken(self) -> int:
        """Requests under way."""
        return len(self._quick) + len(self._others)

    def take(self, *, proven: bool, now: float) -> int | None:
        """Return the number of a place, or None when all of them are taken."""
        places = self._quick if proven else self._others
        if len(places) >= self._max[proven]:
            return None
        self._next += 1
        places[self._next] = now
        return self._next

    def give_back(self, place: int) -> bool:
        """Free the place, and tell whether it was one of the quick."""
        if self._quick.pop(place, None) is not None:
            return True
        del self._others[place]
        return False

    def move_slow(self, now: float) -> None:
        """Count those that take long among the others, also beyond their number: they are there already."""
        slow = {place: began for place, began in self._quick.items() if now - began >= PATIENCE_SECONDS}
        for place in slow:
            del self._quick[place]
        self._others.update(slow)

    def has_slow(self, now: float) -> bool:
        """Tell whether one of them takes long."""
        return any(
            now - began >= PATIENCE_SECONDS for places in (self._quick, self._others) for began in places.values()
        )


def failing_pause(failing_seconds: float) -> float:
    """Return how long to leave an endpoint alone that has been failing for so long, in seconds."""
    return min(failing_seconds * PAUSE_SHARE, MAX_PAUSE_SECONDS)
