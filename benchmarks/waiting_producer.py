"""The producer that waits: it counts the results announced to it, one by one, and builds nothing of them.

On a small machine producer and worker share the cores; a producer that did more would measure itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..lanes.keys import Keys
from ..producer.client.reply_stream import announcements_of
from ..schemas.journal import Announcement
from ..schemas.settings import Settings
from ..worker.connections import connect_redis
from .plan import BenchmarkFailed

#: How long no result at all may come, in seconds.
SILENCE_SECONDS = 60.0
#: How long one read waits, in milliseconds: also how often the workers are checked.
BLOCK_MS = 1_000

#: Gets how many are done, and how many there are.
Progress = Callable[[int, int], None]


def count_results(
    settings: Settings, producer_id: str, expected: int, *, check_workers: Callable[[], None], progress: Progress
) -> float:
    """Wait until the results of commands 1 to `expected` of this producer have come, and return that moment.

    The moment is one of `time.perf_counter`.

    Raises:
        BenchmarkFailed: a command was not applied, or no result has come for a minute.
    """
    stream = Keys(settings.redis_prefix).replies(producer_id)
    seen = bytearray(expected + 1)
    missing, last_entry, deadline = expected, b"0-0", time.monotonic() + SILENCE_SECONDS
    with connect_redis(settings.require_redis_url()) as client:
        while missing:
            answer = client.execute_command("XREAD", "COUNT", 8, "BLOCK", BLOCK_MS, "STREAMS", stream, last_entry)
            for entry, fields in answer[0][1] if answer else ():
                missing -= _mark(seen, announcements_of(fields))
                last_entry = entry
            if answer:
                deadline = time.monotonic() + SILENCE_SECONDS
                progress(expected - missing, expected)
                continue
            check_workers()
            if time.monotonic() >= deadline:
                raise BenchmarkFailed(f"{missing} of {expected} results did not come")
    return time.perf_counter()


def _mark(seen: bytearray, batch: list[Announcement]) -> int:
    """Mark the announced numbers as seen and return how many of them are new: a batch may be announced twice."""
    new = 0
    for announcement in batch:
        row = announcement.row
        if row is None or row.rejection is not None or announcement.replayed:
            raise BenchmarkFailed(f"command {announcement.number} was not applied: {announcement.refusal or row}")
        if not seen[announcement.number]:
            seen[announcement.number] = 1
            new += 1
    return new
