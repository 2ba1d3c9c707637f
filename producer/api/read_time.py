"""How long one request may wait for Postgres, over all that it reads there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...schemas.errors import Unavailable
from ..postgres import READ_SECONDS

#: Told to whoever made the request: what the driver says may name hosts.
UNREAD = "Postgres cannot be read, or does not answer in time; try again shortly"


class ReadTime:
    """The time that the reads of one request share, from the check of its key to the last row.

    What a request waits for between two reads, as for the result of its command, takes none of it.
    """

    def __init__(self) -> None:
        self._left_seconds = READ_SECONDS

    @contextmanager
    def taken(self) -> Iterator[float]:
        """Give when a read that begins now is over, on the clock of `time.monotonic`.

        Raises:
            Unavailable: the reads before have left no time for one.
        """
        if self._left_seconds <= 0:
            raise Unavailable(UNREAD)
        begun = time.monotonic()
        try:
            yield begun + self._left_seconds
        finally:
            self._left_seconds -= time.monotonic() - begun
