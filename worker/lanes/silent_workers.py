"""Which of the other workers send no heartbeats, judged by how long this one has watched them itself. No I/O.

What a worker shows is the time until which it counts as alive, by Postgres's clock, and every heartbeat changes it.
The clock alone is not believed: while it was wrong for a moment, workers may have written a time that is hours away,
and after a jump all of them seem to be over at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

#: How long a worker must have been watched without a sign before the clock is believed that its time is over: in
#: leases, twice the time from one sign to the next.
MIN_WATCHED_LEASES = 0.4
#: How much of the time between two reads counts as watched, in leases of this worker.
MAX_WATCHED_LEASES = 0.3
#: How long beyond its lease a worker may be silent whose time seems not to be over: in leases, and at least in seconds.
SLACK_LEASES = 0.1
MIN_SLACK_SECONDS = 0.5


class Sign(NamedTuple):
    """What another worker has shown, a row of `sql.READ_OTHERS`."""

    worker_id: str
    #: Changes with every heartbeat; None where there never was one.
    expires_at_us: int | None
    #: What is left of that by Postgres's clock.
    remaining_seconds: float | None
    lease_seconds: float | None
    #: It lives but does not get on.
    is_stuck: bool
    owns_lanes: bool


class Watch:
    """Watches the other workers from read to read."""

    def __init__(self, lease_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._signs: dict[str, Sign] = {}
        #: When the latest sign of each was seen first.
        self._since: dict[str, float] = {}
        self._observed_at = clock()

    def forget(self) -> None:
        """Watch all of them from now on only: nobody's sign could be seen for a while."""
        self._signs.clear()
        self._since.clear()

    def observe(self, signs: Iterable[Sign]) -> None:
        """Take note of what the others show now."""
        now = self._clock()
        unwatched = max(0.0, now - self._observed_at - MAX_WATCHED_LEASES * self._lease_seconds)
        self._observed_at = now
        before, self._signs = self._signs, {sign.worker_id: sign for sign in signs}
        since, self._since = self._since, dict.fromkeys(self._signs, now)
        for worker_id, sign in self._signs.items():
            if worker_id in before and before[worker_id].expires_at_us == sign.expires_at_us:
                # Where this process stood still, perhaps everybody did with it.
                self._since[worker_id] = since[worker_id] + unwatched

    def alive(self) -> int:
        """Return how many of them live and get on."""
        return sum(not sign.is_stuck and self._silent_in(sign) > 0 for sign in self._signs.values())

    def to_replace(self) -> list[Sign]:
        """Return the owners of lanes that are silent or do not get on."""
        owners = [sign for sign in self._signs.values() if sign.owns_lanes]
        return [sign for sign in owners if sign.is_stuck or self._silent_in(sign) <= 0]

    def next_silence_seconds(self) -> float:
        """Return how long from now the first of the living owners would count as silent, if it showed nothing more."""
        waits = [self._silent_in(sign) for sign in self._signs.values() if sign.owns_lanes]
        return min((wait for wait in waits if wait > 0), default=self._lease_seconds)

    def _silent_in(self, sign: Sign) -> float:
        """Return in how many seconds the worker counts as silent; 0 or less if it does now."""
        if sign.expires_at_us is None or sign.remaining_seconds is None:
            return 0.0
        waited = self._clock() - self._observed_at
        remaining = sign.remaining_seconds - waited
        if remaining <= 0 and not sign.owns_lanes:
            return 0.0
        lease = sign.lease_seconds or self._lease_seconds
        watched = self._clock() - self._since[sign.worker_id]
        slack = max(MIN_SLACK_SECONDS, SLACK_LEASES * lease)
        return max(MIN_WATCHED_LEASES * lease - watched, min(remaining, lease + slack - watched))
