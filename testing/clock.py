"""The clock of a fake ledger: it stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class FakeClock:
    """Returns the time that a test has set, in UTC; without one, that at which it was made."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = datetime.now(UTC) if now is None else _in_utc(now)

    def now(self) -> datetime:
        """Return the time."""
        return self._now

    def advance(
        self,
        by: timedelta = timedelta(0),
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> datetime:
        """Move on by all of this together and return the time.

        Raises:
            ValueError: that is back; the time of a ledger never goes back.
        """
        return self.move_to(self._now + by + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))

    def move_to(self, moment: datetime) -> datetime:
        """Move on to this moment and return it.

        Raises:
            ValueError: it is in the past, or has no offset.
        """
        moment = _in_utc(moment)
        if moment < self._now:
            raise ValueError(f"the clock stands at {self._now.isoformat()} and does not go back")
        self._now = moment
        return moment

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._now.isoformat()}>"


def microseconds_of(moment: datetime) -> int:
    """Return the microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def _in_utc(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError("the moment must have a time zone, as datetime.now(UTC) has")
    return moment.astimezone(UTC)
