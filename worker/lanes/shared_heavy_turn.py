"""The turn of what is held back, of which all workers have one together: noted in Redis, and no more than a hint.

What one worker does of it keeps the others waiting as well: for lanes, where it reaches theirs, or for the disk. Two of
them at it would make others wait twice as long. So while anybody has something else to do, one worker at a time does a
part of it, and afterwards all leave the lanes alone for as long as that took. Whoever dies in its turn, or is long at
it, is waited for no longer than the turn lasts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import redis

from ...lanes.keys import Keys
from .redis_session import is_out_of_memory

#: How long a turn lasts that nobody ends, in milliseconds.
TURN_MS = 2_000
#: How long a worker waits for its turn before it goes without, in seconds: whatever stands in Redis stops nobody.
MAX_WAIT_SECONDS = 2 * TURN_MS / 1_000
#: How long it counts that somebody has something else to do, in milliseconds, and how often that is said, in seconds.
OTHERS_MS, NOTE_SECONDS = 10_000, 2.0


class SharedHeavyTurn:
    """The turn as one worker sees it. Every method raises redis.RedisError where Redis cannot be used now.

    A Redis that is full is used: what frees its memory must not wait for what cannot be said there.
    """

    def __init__(self, client: redis.Redis, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._keys = keys
        self._clock = clock
        self._noted_at = -math.inf
        #: Since when the turn has been another's, whenever it was asked for.
        self._waits_since: float | None = None

    def note_others(self) -> None:
        """Say that there is something to do here that is not held back."""
        now = self._clock()
        if now - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            self._note(self._keys.others_at_work, OTHERS_MS)

    def others_are_at_work(self) -> bool:
        """Return whether any worker had something else to do lately."""
        return bool(self._client.exists(self._keys.others_at_work))

    def take(self) -> bool:
        """Take the turn and return True, unless somebody has it, or the lanes rest after it, and not for too long."""
        now = self._clock()
        is_mine = self._note(self._keys.held_turn, TURN_MS, nx=True)
        if self._waits_since is None:
            self._waits_since = now
        if is_mine or now - self._waits_since > MAX_WAIT_SECONDS:
            self._waits_since = None
            return True
        return False

    def end(self, rest_seconds: float) -> None:
        """End the turn; the next begins after so long."""
        milliseconds = int(rest_seconds * 1_000)
        if milliseconds:
            self._note(self._keys.held_turn, milliseconds)
        else:
            self._client.delete(self._keys.held_turn)

    def _note(self, key: str, milliseconds: int, *, nx: bool = False) -> bool:
        """Write the key for so long; False if it was there and should not be. In a full Redis it counts as written."""
        try:
            return bool(self._client.set(key, 1, px=milliseconds, nx=nx))
        except redis.ResponseError as error:
            if is_out_of_memory(error):
                return True
            raise
