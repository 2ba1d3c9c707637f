"""How long one request may wait for Postgres, over all that it reads there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...lanes.deadlines import LEAST_SECONDS
from ...schemas.errors import Unavailable
from ..ledger.read_limits import READ_SECONDS

#: What a read has at the least, in seconds, however late it comes.
LEAST_READ_SECONDS = 0.5
#: Told to whoever made the request: what the driver says may name hosts.
UNREAD = "Postgres cannot be read, or does not answer in time; try again shortly"


class ReadDeadline:
    """The time that the reads of one request share, from the check of its key to the last row.

    What a request waits for between two reads, as for the result of its command, takes none of it. But a request that
    writes is over in the time of a write, with all that it reads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left_seconds = READ_SECONDS
        self._begun = clock()
        self._ends_at = math.inf

    def deadline_of_write(self, seconds: float) -> float:
        """Return when a write that may take so long is over, counted from when its request came.

        What is read after it has at least a moment: without it, nobody would hear of a command that is applied.
        """
        self._ends_at = self._begun + seconds
        return max(self._ends_at, self._clock() + LEAST_SECONDS)

    @contextmanager
    def taken(self) -> Iterator[float]:
        """Give when a read that begins now is over, on the clock of `time.monotonic`.

        Raises:
            Unavailable: the reads before have left no time for one.
        """
        if self._left_seconds <= 0:
            raise Unavailable(UNREAD)
        begun = self._clock()
        try:
            yield max(min(begun + self._left_seconds, self._ends_at), begun + LEAST_READ_SECONDS)
        finally:
            self._left_seconds -= self._clock() - begun
