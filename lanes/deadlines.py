"""Deadlines: moments of the monotonic clock at which a call ends, whatever the other side does or does not do."""

from __future__ import annotations

import time

#: What a call has at least, in seconds: a timeout of 0 means not to wait, and not that nothing is tried.
LEAST_SECONDS = 0.5
#: What one of several attempts has at least, in seconds, if the deadline leaves it so much.
LEAST_ATTEMPT_SECONDS = 1.0


def deadline_in(seconds: float) -> float:
    """Return the moment that is this many seconds from now, or the least that a call has."""
    return time.monotonic() + max(seconds, LEAST_SECONDS)


def seconds_until(deadline: float) -> float:
    """Return how long it is until this moment; 0 when it has passed."""
    return max(0.0, deadline - time.monotonic())


def rest_of(deadline: float) -> float:
    """Return how long the last step of a call may take: until this moment, but not less than a call has."""
    return max(LEAST_SECONDS, seconds_until(deadline))


def part_of(deadline: float, most_seconds: float) -> float:
    """Return when the first of several attempts ends: half-way, so that one into a dead connection leaves another."""
    rest = seconds_until(deadline)
    return time.monotonic() + min(rest, most_seconds, max(rest / 2, LEAST_ATTEMPT_SECONDS))
