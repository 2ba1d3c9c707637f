"""Keeps one store from filling Redis, which all stores share, with commands on lanes that are not decided yet.

Each lane bounds what a store has there; all lanes together may be more than the memory that Redis may use, and once it
is full nobody's commands are taken. So while that is near, a store may have so many times as much on all lanes as Redis
has free. Redis is read beside the requests, which wait for nothing: what is decided is as of a moment ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...lanes.backlog import BYTES_ENDING
from ...lanes.deadlines import deadline_in
from ...lanes.keys import Keys
from ...schemas.errors import CreditlaneError
from ..client._async.redis_connection import AsyncRedisWire
from ..client.redis_exchange import Call, refuse_errors

#: How often Redis is read while commands are sent, in seconds.
READ_INTERVAL_SECONDS = 0.2
#: How long a read may take, in seconds.
READ_TIMEOUT_SECONDS = 2.0


class RedisMemory:
    """What stores have of Redis's memory, as one process of one event loop sees it. The wire is its own."""

    def __init__(
        self, wire: AsyncRedisWire, keys: Keys, partitions: Callable[[], int | None], *, share_of_free: int
    ) -> None:
        self._wire = wire
        self._keys = keys
        #: How many there are, once that is known.
        self._partitions = partitions
        self._share_of_free = share_of_free
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        #: Bytes that a store may have on all lanes; None for any number.
        self._most: float | None = None
        #: Bytes that each store has there, while there is a bound.
        self._of_store: Mapping[str, int] = {}

    def has_share(self, store_id: str) -> bool:
        """Return whether the store has all that it may have. Reads again soon, if that is some time ago."""
        if self._reading is None and time.monotonic() - self._read_at >= READ_INTERVAL_SECONDS:
            self._reading = asyncio.get_running_loop().create_task(self._read_again())
        # Who has nothing there takes nothing from others, and hears from a full Redis itself.
        return self._most is not None and self._of_store.get(store_id, 0) >= max(1, self._most)

    async def close(self) -> None:
        """Read no more, and close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._wire.close()

    async def _read_again(self) -> None:
        try:
            deadline = deadline_in(READ_TIMEOUT_SECONDS)
            used, most = memory_of(refuse_errors(await self._wire.exchange([("INFO", "memory")], deadline=deadline)))
            free = max(0, most - used)
            # What a store has is a part of what is used.
            partitions = self._partitions()
            if not most or not partitions or used < self._share_of_free * free:
                self._most, self._of_store = None, {}
                return
            calls: list[Call] = [("HGETALL", self._keys.backlog(partition)) for partition in range(partitions)]
            hashes = await self._wire.exchange(calls, deadline=deadline)
            self._most, self._of_store = self._share_of_free * free, bytes_by_store(hashes)
        except CreditlaneError:
            # Whoever sends a command gets the error.
            self._most, self._of_store = None, {}
        finally:
            self._read_at, self._reading = time.monotonic(), None


def memory_of(answers: Sequence[Any]) -> tuple[int, int]:
    """Return how many bytes Redis uses, and how many it may use, 0 for any number, from its answer to INFO."""
    fields = dict(line.partition(b":")[::2] for line in bytes(answers[0]).splitlines())
    return int(fields.get(b"used_memory", 0)), int(fields.get(b"maxmemory", 0))


def bytes_by_store(hashes: Sequence[Any]) -> dict[str, int]:
    """Return how many bytes each store has on all lanes, from what stands beside each; errors count for nothing."""
    found: dict[str, int] = {}
    for fields in (each for each in hashes if isinstance(each, list)):
        for name, number in zip(fields[::2], fields[1::2], strict=True):
            store, ending, _ = bytes(name).decode().partition(BYTES_ENDING)
            if store and ending:
                found[store] = found.get(store, 0) + int(number)
    return found
