"""Pauses between attempts: growing, bounded, and jittered so that many processes do not come back at once."""

from __future__ import annotations

import random
from threading import Event

#: The first pause, in seconds.
FIRST_PAUSE_SECONDS = 0.05
#: The longest pause, in seconds.
LONGEST_PAUSE_SECONDS = 5.0


class Backoff:
    """Counts failed attempts in a row. One instance per thing that can fail."""

    def __init__(self, stopping: Event, *, longest_seconds: float = LONGEST_PAUSE_SECONDS) -> None:
        self._stopping = stopping
        self._longest_seconds = longest_seconds
        self.failures = 0

    def reset(self) -> None:
        """Note a success."""
        self.failures = 0

    def next_pause_seconds(self) -> float:
        """Count a failure and return how long to wait: half to all of a bound that doubles each time."""
        bound = min(self._longest_seconds, FIRST_PAUSE_SECONDS * float(2 ** min(self.failures, 10)))
        self.failures += 1
        return bound * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret

    def pause(self) -> bool:
        """Wait before the next attempt. Returns False if the worker is stopping, at once."""
        return not self._stopping.wait(self.next_pause_seconds())
