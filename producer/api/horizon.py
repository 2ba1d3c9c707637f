"""Which moments may be answered: those of which nothing changes any more, so that what was read once stays.

`audit/horizon.py` tells how that is known. What a process remembers of it stays true, as long as the clock of Postgres
goes forward; so it looks again before long, and forgets it where the clock has gone back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ...audit.horizon import FIND_UNFINISHED, READ_WRITERS, Writers, writers_of
from ...schemas.errors import Unavailable

#: The API's times have milliseconds, so a moment that is asked for includes the whole of its millisecond.
RESOLUTION = timedelta(milliseconds=1)
#: How long what was found is good for moments before it, in seconds.
REMEMBERED_SECONDS = 1.0
#: How long writers are waited for, and how often they are looked at, in seconds.
PATIENCE_SECONDS = 1.0
LOOK_SECONDS = 0.01
#: Earlier than anything in the ledger.
_BEFORE_ALL = datetime(1, 1, 2, tzinfo=UTC)

Read = Callable[[str, Mapping[str, Any], float], Awaitable[list[tuple[Any, ...]]]]


class Horizon:
    """The moments of one database, as one process knows them. Raises Unavailable when Postgres cannot be read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._complete = _BEFORE_ALL
        self._looked_at = -REMEMBERED_SECONDS

    async def settled(self, at: datetime, until: float) -> datetime:
        """Return this moment in whole milliseconds, or the latest before it of which nothing changes any more.

        Of a moment in the future it is the present one: all is in it that was answered before.

        Raises:
            Unavailable: Postgres does not answer by `until`, or nothing is known to be complete, because of a writer
                that goes on.
        """
        wanted = whole(at)
        if time.monotonic() - self._looked_at >= REMEMBERED_SECONDS or wanted > self._complete - RESOLUTION:
            writers = await self._look(until)
            if wanted > writers.moment:
                wanted = whole(writers.moment)
                await self._complete_up_to(wanted + RESOLUTION, until)
        if self._complete == _BEFORE_ALL:
            raise Unavailable("the balance of this moment can still change; ask again shortly")
        return min(wanted, whole(self._complete) - RESOLUTION)

    async def _look(self, until: float) -> Writers:
        """Find out what is complete now, without waiting for writers whose beginning can be seen."""
        writers = writers_of(await self._read(READ_WRITERS, {}, until))
        if writers.moment < self._complete:
            self._complete = _BEFORE_ALL
        if await self._are_over(writers.unseen, until):
            self._note(writers.horizon)
        self._looked_at = time.monotonic()
        return writers

    async def _complete_up_to(self, moment: datetime, until: float) -> None:
        """Wait until everything before a moment is there that comes within a millisecond, if that is soon."""
        patient_until = time.monotonic() + PATIENCE_SECONDS
        writers = writers_of(await self._read(READ_WRITERS, {}, until))
        while writers.moment < moment and time.monotonic() < patient_until:
            await asyncio.sleep(RESOLUTION.total_seconds())
            writers = writers_of(await self._read(READ_WRITERS, {}, until))
        if await self._are_over(writers.transactions, until):
            self._note(writers.moment)

    async def _are_over(self, transactions: list[str], until: float) -> bool:
        """Wait for the end of these transactions, and tell whether it came in time."""
        patient_until = time.monotonic() + PATIENCE_SECONDS
        while transactions:
            ((unfinished,),) = await self._read(FIND_UNFINISHED, {"transactions": transactions}, until)
            if not unfinished:
                break
            if time.monotonic() >= patient_until:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _note(self, moment: datetime) -> None:
        self._complete = max(self._complete, moment)


def whole(moment: datetime) -> datetime:
    """Return the beginning of the moment's millisecond."""
    return moment - timedelta(microseconds=moment.microsecond % 1_000)
