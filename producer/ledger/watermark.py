"""Which moments may be answered: those of which nothing changes any more, so that what was read once stays.

`audit/watermark.py` says how that is known. What a process remembers of it stays true, as long as the clock of
Postgres goes forward; so it reads them again before long, and forgets it where the clock has gone back.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from ...audit.watermark import FIND_UNFINISHED, READ_WRITERS, Writers, writers_of
from ...schemas.errors import Unavailable
from .read_steps import Pause, Query, Reading

#: Times are shown in milliseconds, so a moment that is asked for includes the whole of its millisecond.
RESOLUTION = timedelta(milliseconds=1)
#: How long what was found is good for moments before it, in seconds.
REMEMBERED_SECONDS = 1.0
#: How long writers are waited for, and how often that is asked, in seconds.
MAX_WAIT_SECONDS = 1.0
POLL_SECONDS = 0.01
#: Earlier than anything in the ledger.
_BEFORE_ALL = datetime(1, 1, 2, tzinfo=UTC)


class Watermark:
    """The moments of one database, as one process knows them. Its tasks, or its threads, may share one."""

    def __init__(self) -> None:
        self._complete = _BEFORE_ALL
        self._read_at = -REMEMBERED_SECONDS

    def settled(self, at: datetime) -> Reading[datetime]:
        """Return this moment in whole milliseconds, or the latest before it of which nothing changes any more.

        Of a moment in the future it is the present one: all is in it that was answered before.

        Raises:
            Unavailable: nothing is known to be complete, because of a writer that goes on.
        """
        wanted = whole(at)
        if time.monotonic() - self._read_at >= REMEMBERED_SECONDS or wanted > self._complete - RESOLUTION:
            writers = yield from self._read_writers()
            if wanted > writers.moment:
                wanted = whole(writers.moment)
                yield from self._complete_up_to(wanted + RESOLUTION)
        # Once: another thread may find that the clock has gone back.
        complete = self._complete
        if complete == _BEFORE_ALL:
            raise Unavailable("the balance of this moment can still change; ask again shortly")
        return min(wanted, whole(complete) - RESOLUTION)

    def _read_writers(self) -> Reading[Writers]:
        """Find out what is complete now, without waiting for writers whose beginning can be seen."""
        writers = writers_of((yield Query(READ_WRITERS, {})))
        if writers.moment < self._complete:
            self._complete = _BEFORE_ALL
        if (yield from self._are_over(writers.unseen)):
            self._note(writers.watermark)
        self._read_at = time.monotonic()
        return writers

    def _complete_up_to(self, moment: datetime) -> Reading[None]:
        """Wait until everything before a moment is there that comes within a millisecond, if that is soon."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        writers = writers_of((yield Query(READ_WRITERS, {})))
        while writers.moment < moment and time.monotonic() < until:
            yield Pause(RESOLUTION.total_seconds())
            writers = writers_of((yield Query(READ_WRITERS, {})))
        if (yield from self._are_over(writers.transactions)):
            self._note(writers.moment)

    def _are_over(self, transactions: list[str]) -> Reading[bool]:
        """Wait for the end of these transactions, and return whether it came in time."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        while transactions:
            ((unfinished,),) = yield Query(FIND_UNFINISHED, {"transactions": transactions})
            if not unfinished:
                break
            if time.monotonic() >= until:
                return False
            yield Pause(POLL_SECONDS)
        return True

    def _note(self, moment: datetime) -> None:
        self._complete = max(self._complete, moment)


def whole(moment: datetime) -> datetime:
    """Return the beginning of the moment's millisecond."""
    return moment - timedelta(microseconds=moment.microsecond % 1_000)
