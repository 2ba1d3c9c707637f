"""By how much the clock of Postgres is ahead of that of Redis, at the least: nobody's clock is taken to be right.

Each was seen at a moment of this process's own clock, which is not set. Redis shows its time in the id of an entry that
it makes, Postgres beside the decisions that it is asked for, so that nothing is asked for the time alone.
"""

from __future__ import annotations

import time
from threading import Lock

#: How long what a clock showed is good, in seconds; they drift, and are set.
GOOD_SECONDS = 60.0
#: How soon after it was asked for an answer must come to show a clock, in seconds.
QUICK_SECONDS = 0.25
#: A lane entry's time is in whole milliseconds, Postgres's in whole microseconds; both are cut off.
_CUT_OFF_SECONDS = 0.001_001


class Clocks:
    """What one producer has seen of the two clocks, the latest of each. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: By how much each is ahead of our own, Redis's at the most and Postgres's at the least; until when it is good.
        self._redis: tuple[float, float] | None = None
        self._postgres: tuple[float, float] | None = None

    def note_redis(self, seconds: float, asked: float) -> None:
        """Note the time of an entry that Redis has made after it was asked to at that moment of our own clock."""
        now = time.monotonic()
        if now - asked <= QUICK_SECONDS:
            with self._lock:
                self._redis = seconds + _CUT_OFF_SECONDS - asked, now + GOOD_SECONDS

    def note_postgres(self, seconds: float, asked: float) -> None:
        """Note the time that Postgres has told, after it was asked at that moment of our own clock."""
        now = time.monotonic()
        if now - asked <= QUICK_SECONDS:
            with self._lock:
                self._postgres = seconds - now, now + GOOD_SECONDS

    def least_lead(self) -> float | None:
        """Return the seconds by which Postgres's clock is ahead at the least; None where they were not both seen."""
        now = time.monotonic()
        with self._lock:
            redis, postgres = self._redis, self._postgres
        if redis is None or postgres is None or min(redis[1], postgres[1]) < now:
            return None
        return postgres[0] - redis[0]

    def is_ahead(self, seconds: float) -> bool:
        """Whether a lane entry's time is known to be ahead of Redis's clock: so it is after that clock was set back."""
        now = time.monotonic()
        with self._lock:
            redis = self._redis
        return redis is not None and now <= redis[1] and seconds > now + redis[0]
