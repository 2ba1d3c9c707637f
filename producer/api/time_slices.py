"""Long work of one request in short slices, so that the requests of others are served in between."""

from __future__ import annotations

import asyncio
import time

#: How long one request keeps all others of the process waiting at a stretch, in seconds. Each of theirs needs its turn
#: some ten times.
SLICE_SECONDS = 0.001


class TimeSlices:
    """The slices of one piece of work, which begins now."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def give_way(self) -> None:
        """Let others have their turn, if this slice is over. To be called often: it costs next to nothing."""
        if time.perf_counter() - self._began >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
