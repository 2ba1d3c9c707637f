"""Buckets of tokens, one for each name, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Buckets that are kept before the full ones, which mean nothing, are thrown away.
MAX_BUCKETS = 10_000


class TokenBuckets:
    """Lets each name have so many a second, and so many at once."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        #: What was left of each bucket, and when.
        self._levels: dict[str, tuple[float, float]] = {}

    def try_take(self, name: str) -> float:
        """Take a token of this name and return 0, or the seconds until there is one."""
        now = self._clock()
        level = self._level(name, now)
        if level < 1:
            return (1 - level) / self._per_second
        if len(self._levels) >= MAX_BUCKETS and name not in self._levels:
            self._levels = {each: at for each, at in self._levels.items() if self._level(each, now) < self._burst}
        self._levels[name] = (level - 1, now)
        return 0.0

    def _level(self, name: str, now: float) -> float:
        level, at = self._levels.get(name, (self._burst, now))
        return min(self._burst, level + (now - at) * self._per_second)
