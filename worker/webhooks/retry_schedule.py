"""When a delivery is tried again: the schedule, its jitter, and what a receiver asks for with Retry-After. Pure."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Pauses between the attempts of one delivery, in seconds.
SCHEDULE_SECONDS = (30.0, 300.0, 1_800.0, 21_600.0)
#: Attempts of one delivery, the first included.
MAX_ATTEMPTS = len(SCHEDULE_SECONDS) + 1
#: By how much a pause is lengthened or shortened at most, so that what failed together does not come back together.
JITTER_SHARE = 0.1
#: The longest that a receiver can put us off, in seconds.
MAX_RETRY_AFTER_SECONDS = 86_400.0
#: Answers that ask for the whole endpoint to be left alone: too many requests, service unavailable.
PAUSING_STATUSES = frozenset({429, 503})
#: The answer of an endpoint that wants nothing any more.
GONE = 410


def retry_delay(attempts: int, retry_after: float | None = None) -> float | None:
    """Return how long to wait after this many failed attempts, in seconds; None when they are used up.

    A receiver's wish to be asked later is honoured, up to a day; its wish to be asked earlier is not.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    jitter = random.uniform(1 - JITTER_SHARE, 1 + JITTER_SHARE)  # noqa: S311  # no secret
    return max(SCHEDULE_SECONDS[attempts - 1] * jitter, retry_after or 0.0)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that a header Retry-After asks for, at most a day; None if it asks for nothing we know.

    Both forms of RFC 9110, 10.2.3: a number of seconds, and a date.
    """
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Not int() first: a line of digits can be long.
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
        # A date without a zone, and "-0000", count as UTC.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max((moment - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)
    except (ValueError, OverflowError):
        return None
