"""Moments as people and programs write them, over HTTP and on the command line."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_moment(text: str) -> datetime:
    """Return the moment that an ISO 8601 text names, in UTC; without an offset it is taken as UTC.

    Raises:
        ValueError: it names none.
    """
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None
