"""A lock for each store, there for as long as anybody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class HeldLock:
    """The lock of a store as one task holds it, which may leave it to others while it only waits."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._is_held = False

    async def take(self) -> None:
        """Take the lock, as soon as nobody else has it."""
        await self._lock.acquire()
        self._is_held = True

    def release(self) -> None:
        """Release the lock, if it is held here."""
        if self._is_held:
            self._is_held = False
            self._lock.release()

    async def sleep_released(self, seconds: float) -> None:
        """Sleep without the lock, and take it again behind those who wait for it by then."""
        self.release()
        await asyncio.sleep(seconds)
        await self.take()


class StoreLocks:
    """The locks of one event loop."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        #: Who holds a lock and who waits for it. A lock that was just released is not locked, and yet waited for.
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def held(self, store_id: str) -> AsyncIterator[HeldLock]:
        """Hold the lock of the store, as soon as nobody else does."""
        held = HeldLock(self._locks.setdefault(store_id, asyncio.Lock()))
        self._users[store_id] += 1
        try:
            await held.take()
            yield held
        finally:
            held.release()
            self._users[store_id] -= 1
            if not self._users[store_id]:
                del self._users[store_id], self._locks[store_id]
