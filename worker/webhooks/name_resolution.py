"""Resolves the names of webhooks' targets in threads, of which no store has all.

A name whose servers are silent keeps its thread for as long as the machine's resolver tries, also when nobody waits for
it any more. So a store has at most three times as many as it leaves free, counted until they are done.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from ...schemas.fair_shares import share_of

#: Names that are resolved at once.
RESOLVING_THREADS = 64

#: Whose name is resolved next in this task: aiohttp, which asks for it, knows nothing of stores.
resolving_store: ContextVar[int] = ContextVar("resolving_store", default=0)

#: As `socket.getaddrinfo`.
GetAddresses = Callable[..., list[tuple[Any, ...]]]


class Resolving:
    """The threads of one event loop. Close it at the end; what is still being resolved then is left to itself."""

    def __init__(self, most: int = RESOLVING_THREADS, get_addresses: GetAddresses | None = None) -> None:
        self._most = most
        self._get_addresses = get_addresses or socket.getaddrinfo
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="resolving")
        self._of_stores: Counter[int] = Counter()
        self._freed = asyncio.Event()

    async def lookup(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        """Return the addresses of a name, with their family, once its store has a thread free.

        Raises:
            OSError: there are none.
        """
        store_id, loop = resolving_store.get(), asyncio.get_running_loop()
        while self._of_stores[store_id] >= share_of(self._most, self._of_stores.total()):
            self._freed.clear()
            await self._freed.wait()
        self._of_stores[store_id] += 1

        def give_back(_done: Future[Any]) -> None:
            # The loop may be gone by now, and with it whoever counts.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._give_back, store_id)

        asked = self._threads.submit(self._get_addresses, host, port, family, socket.SOCK_STREAM)
        asked.add_done_callback(give_back)
        found = await asyncio.wrap_future(asked)
        return [(int(kind), str(address[0])) for kind, _, _, _, address in found]

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _give_back(self, store_id: int) -> None:
        self._of_stores[store_id] -= 1
        if not self._of_stores[store_id]:
            del self._of_stores[store_id]
        self._freed.set()
