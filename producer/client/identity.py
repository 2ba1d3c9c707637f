"""The names under which a producer sends: its id, and a number for each command."""

from __future__ import annotations

import secrets
from threading import Lock

#: Random bits of a producer id: no two processes ever share a reply stream.
_PRODUCER_ID_BYTES = 12


def new_producer_id() -> str:
    """Return an id that no other producer has."""
    return secrets.token_hex(_PRODUCER_ID_BYTES)


class CommandNumbers:
    """Numbers from 1, each given once; threads may share it."""

    def __init__(self) -> None:
        self._next = 1
        self._lock = Lock()

    def take(self, count: int = 1) -> int:
        """Return the first of `count` numbers that nobody else gets."""
        with self._lock:
            first = self._next
            self._next += count
            return first
