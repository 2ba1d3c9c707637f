"""When what is held back has its turn: half of the time is for the others, as long as there are any. No I/O.

A part of what is held back keeps this worker from everything else, and one that reaches other lanes keeps all workers
from them. So after each part the lanes are left alone for as long as it took, by all workers: see `shared_heavy_turn`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Reads that found something else after which what is held back need not wait for one that finds nothing.
MOST_READS_BEFORE_HELD = 5
#: What is held back need not rest for others that have sent nothing for so long, in seconds.
QUIET_SECONDS = 10.0
#: How long to wait before it is asked again whether another worker's turn is over, in seconds.
PUT_OFF_SECONDS = 0.005
#: The longest rest, in seconds: a part that took longer waited for something else than its lanes.
MAX_REST_SECONDS = 1.0


class HeavyCommandTurns:
    """Whose turn it is in one worker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reads_since = 0
        #: When the last part of what is held back began, until that is known to be done.
        self._began: float | None = None
        #: Somebody, here or in another worker, had something else to do then.
        self._has_others = False
        #: When the next part may begin.
        self._rests_until = 0.0
        #: When there was last something that is not held back.
        self._found_at = 0.0

    def note_read(self, *, found: bool, more: bool) -> None:
        """Take note of a read of what is not held back, and whether there is more of it."""
        if found:
            self._found_at = self._clock()
        self._reads_since += found or more

    def begin(self, *, others: bool) -> None:
        """Take note that a part of what is held back is read now, and whether anybody has something else to do."""
        self._began, self._reads_since, self._has_others = self._clock(), 0, others

    def put_off(self) -> None:
        """Take note that it is another worker's turn."""
        self._rests_until = self._clock() + PUT_OFF_SECONDS

    @property
    def is_at_part(self) -> bool:
        """Whether a part of what is held back is not known to be done."""
        return self._began is not None

    def note_done(self) -> float:
        """Take note that the part is done, and return for how long the lanes rest now, in seconds."""
        if self._began is not None and (self._has_others or self.others_are_at_work):
            now = self._clock()
            self._rests_until = now + min(MAX_REST_SECONDS, now - self._began)
        self._began = None
        return self.rest_seconds

    @property
    def others_are_at_work(self) -> bool:
        """Whether there was something lately that is not held back."""
        return self._clock() - self._found_at < QUIET_SECONDS

    @property
    def rest_seconds(self) -> float:
        """How long the lanes are still left alone."""
        return max(0.0, self._rests_until - self._clock())

    def has_come(self, *, idle: bool) -> bool:
        """Whether the next part may begin; `idle` says that nothing else is to be done."""
        return self.rest_seconds == 0.0 and (idle or self._reads_since >= MOST_READS_BEFORE_HELD)
