"""How long to wait before trying again: growing, bounded, and jittered, so that many do not come back at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from threading import Event

#: The first pause of a process, in seconds.
FIRST_PAUSE_SECONDS = 0.05
#: The longest pause of a process, in seconds.
LONGEST_PAUSE_SECONDS = 5.0


def growing_pauses(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Yield pauses without end, in seconds: each is half to all of a bound that doubles, up to `longest_seconds`."""
    bound = min(first_seconds, longest_seconds)
    while True:
        yield bound * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
        bound = min(bound * 2, longest_seconds)


class Backoff:
    """Counts failed attempts in a row and waits between them. One instance per thing that can fail."""

    def __init__(self, stopping: Event, *, longest_seconds: float = LONGEST_PAUSE_SECONDS) -> None:
        self._stopping = stopping
        self._longest_seconds = longest_seconds
        self.reset()

    def reset(self) -> None:
        """Note a success."""
        self.failures: int = 0
        self._pauses = growing_pauses(FIRST_PAUSE_SECONDS, self._longest_seconds)

    def pause(self) -> bool:
        """Count a failure and wait before the next attempt. Returns False if the process is stopping, at once."""
        self.failures += 1
        return not self._stopping.wait(next(self._pauses))
