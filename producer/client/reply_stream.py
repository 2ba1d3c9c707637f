"""What a reply stream holds, read without a socket: both clients' listeners share it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...lanes.keys import ANNOUNCEMENT_FIELD
from ...schemas.journal import Announcement, decode_announcements
from .redis_exchange import BLOCK_SECONDS, Call, refuse_errors

#: Entries of the reply stream that one read takes; each holds up to 50 announcements of a batch.
READ_ENTRIES = 64
#: An id before every entry.
START = b"0-0"
#: The first and the longest pause of a listener that has lost Redis, in seconds.
RECONNECT_PAUSES = (0.05, 1.0)
#: An entry without announcements, which wakes a listener.
NUDGE = b"[]"


class ReplyStream:
    """A position in a producer's reply stream, or in a poll key, which is a stream of one entry."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._last = START

    def wait_call(self, seconds: float = BLOCK_SECONDS) -> Call:
        """Return the call that waits this long, and no longer than one answer may take, for what comes next."""
        # 0 would wait for ever.
        block_ms = max(1, int(min(seconds, BLOCK_SECONDS) * 1_000))
        return ("XREAD", "COUNT", READ_ENTRIES, "BLOCK", block_ms, "STREAMS", self.key, self._last)

    def read_call(self) -> Call:
        """Return the call that asks at once for what comes next."""
        return ("XREAD", "COUNT", READ_ENTRIES, "STREAMS", self.key, self._last)

    def nudge_call(self) -> Call:
        """Return the call that wakes whoever waits at this stream."""
        return ("XADD", self.key, "*", ANNOUNCEMENT_FIELD, NUDGE)

    def delete_call(self) -> Call:
        """Return the call that removes the stream."""
        return ("DEL", self.key)

    def take(self, answers: list[Any]) -> Iterator[list[Announcement]]:
        """Yield the announcements in the answer to `wait_call` or `read_call`, and move past them.

        Raises:
            Unavailable: Redis refuses to work.
        """
        (answer,) = refuse_errors(answers)
        for _key, entries in answer or ():
            for entry, fields in entries:
                self._last = entry
                yield announcements_of(fields)


def announcements_of(fields: list[bytes]) -> list[Announcement]:
    """Return the announcements in the fields of one entry of a reply stream or poll key."""
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == ANNOUNCEMENT_FIELD:
            return decode_announcements(value)
    return []
