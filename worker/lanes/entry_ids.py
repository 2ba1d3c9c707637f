"""Ids of a stream's entries, as Redis writes them: milliseconds, a hyphen and a number, of which neither is padded."""

from __future__ import annotations

#: Highest number behind the milliseconds of an id.
MAX_NUMBER = 2**64 - 1


def order_of(entry_id: bytes) -> tuple[int, int]:
    """Return what the order of entries follows, which their ids as text do not."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def is_lower(one: bytes, other: bytes) -> bool:
    """Return whether an id comes before another."""
    return order_of(one) < order_of(other)


def before(entry_id: bytes) -> bytes:
    """Return the id that comes right before this one."""
    milliseconds, number = order_of(entry_id)
    return b"%d-%d" % ((milliseconds, number - 1) if number else (milliseconds - 1, MAX_NUMBER))


def after(entry_id: bytes) -> bytes:
    """Return the id that comes right after this one."""
    milliseconds, number = order_of(entry_id)
    return b"%d-%d" % ((milliseconds, number + 1) if number < MAX_NUMBER else (milliseconds + 1, 0))
