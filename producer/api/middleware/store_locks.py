"""A lock for each store, there for as long as anybody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StoreLocks:
    """The locks of one event loop."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        #: Who holds a lock and who waits for it. A lock that was just released is not locked, and yet waited for.
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def held(self, store_id: str) -> AsyncIterator[None]:
        """Hold the lock of the store, as soon as nobody else does."""
        lock = self._locks.setdefault(store_id, asyncio.Lock())
        self._users[store_id] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[store_id] -= 1
            if not self._users[store_id]:
                del self._users[store_id], self._locks[store_id]
