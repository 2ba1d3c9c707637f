"""By how much the clock of Postgres is ahead of that of Redis, at the least: nobody's clock is taken to be right.

Each was seen at a moment of this process's own clock, which is not set. Redis shows its time in the id of an entry that
it makes, Postgres beside the decisions that it is asked for, so that nothing is asked for the time alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

#: How long what a clock showed is good, in seconds; they are set.
GOOD_SECONDS = 60.0
#: How fast two clocks may drift apart, in seconds a second: what NTP corrects a clock by at the most.
DRIFT = 0.000_5
#: How soon after it was asked for an answer must come to show a clock, in seconds.
QUICK_SECONDS = 0.25
#: A lane entry's time is in whole milliseconds, Postgres's in whole microseconds; both are cut off.
_CUT_OFF_SECONDS = 0.001_001


class _Sight(NamedTuple):
    """A clock as it was seen."""

    #: By how much it was ahead of our own, in seconds.
    ahead: float
    #: When that was, by our own.
    at: float


class Clocks:
    """What one producer has seen of the two clocks, the latest of each. Threads may share it."""

    def __init__(self, own: Callable[[], float] = time.monotonic) -> None:
        self._own = own
        self._lock = Lock()
        #: It is ahead of our own by so much at the most.
        self._redis: _Sight | None = None
        #: It is ahead of our own by so much at the least.
        self._postgres: _Sight | None = None

    def note_redis(self, seconds: float, asked: float) -> None:
        """Note the time of an entry that Redis has made after it was asked to at that moment of our own clock."""
        if self._own() - asked <= QUICK_SECONDS:
            with self._lock:
                self._redis = _Sight(seconds + _CUT_OFF_SECONDS - asked, asked)

    def note_postgres(self, seconds: float, asked: float) -> None:
        """Note the time that Postgres has shown, after it was asked at that moment of our own clock."""
        now = self._own()
        if now - asked <= QUICK_SECONDS:
            with self._lock:
                self._postgres = _Sight(seconds - now, asked)

    def is_older(self, decided: float, accepted: float) -> bool | None:
        """Return whether a moment of Postgres is known to be before one of Redis; None if the clocks were not seen."""
        now = self._own()
        with self._lock:
            redis, postgres = self._redis, self._postgres
        if redis is None or postgres is None or min(redis.at, postgres.at) + GOOD_SECONDS < now:
            return None
        # When it was accepted, by our own clock, at the earliest.
        accepted_at = accepted - redis.ahead
        if accepted_at > now:
            # The lane's ids are ahead of Redis's clock, as after it was set back, and show no time.
            return False
        drift = DRIFT * (now - min(redis.at, postgres.at, accepted_at))
        return decided < accepted_at + postgres.ahead - drift
