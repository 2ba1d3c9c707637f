"""What the asyncio client does in another way than the blocking one: waiting, and who may share what.

Written by hand, as is its twin in `_sync`; the two have the same names. Everything else of the blocking client is
generated from the modules beside this one.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import Event, Future, Lock, sleep
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from ...background_tasks import begin_in_background

__all__ = [
    "BackgroundTask",
    "Event",
    "Future",
    "Lock",
    "Scoped",
    "Slots",
    "abandon",
    "call_apart",
    "new_future",
    "outcome_within",
    "sleep",
    "wait_for_event",
]

_T = TypeVar("_T")


def new_future() -> Future[Any]:
    """Return a future of the running event loop."""
    return asyncio.get_running_loop().create_future()


async def outcome_within(future: Future[_T], seconds: float) -> _T | None:
    """Return what the future holds, waiting for so long at most; None if it holds nothing by then."""
    if not future.done():
        # Not `wait_for`, which would cancel the future at the end of the time.
        await asyncio.wait((future,), timeout=seconds)
    return future.result() if future.done() else None


async def wait_for_event(event: Event, seconds: float) -> None:
    """Wait until the event is set, and no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        # The caller asks what has come; nothing has.
        return


class Slots:
    """As many as may do something at the same time."""

    def __init__(self, count: int) -> None:
        self._semaphore = asyncio.BoundedSemaphore(count)

    async def take(self, seconds: float) -> bool:
        """Take one, waiting for so long at most, and return whether there was one; 0: do not wait."""
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return True
        if seconds <= 0:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            return False
        return True

    def give_back(self) -> None:
        """Let somebody else have it."""
        self._semaphore.release()


class BackgroundTask:
    """Work that goes on beside everything else until it is stopped; begun once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self.is_stopping = False

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin the work, which asks `is_stopping` now and then, unless it was begun before."""
        if self._task is None:
            self._task = begin_in_background(work(), self._name)

    async def pause(self, seconds: float) -> None:
        """Wait within the work, but not after it is stopped."""
        await sleep(seconds)

    async def stop(self, wake: Callable[[], Awaitable[None]], seconds: float) -> bool:  # noqa: ARG002 - the twin's
        """Stop the work, wait for its end, so long at most, and return whether it was begun.

        A task needs no waking: it is cancelled.
        """
        # A cancellation that comes together with a time-out is lost in some library below; the flag is not.
        self.is_stopping = True
        if self._task is None:
            return False
        self._task.cancel()
        # What loses the cancellation may go on for as long as its next read.
        await asyncio.wait((self._task,), timeout=seconds)
        return True


class Scoped(Generic[_T]):
    """A value that is made anew for each event loop, and for each process."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._latest: tuple[int, asyncio.AbstractEventLoop, _T] | None = None

    def get(self) -> _T:
        """Return the value of the running event loop."""
        latest = self._latest
        if latest is None or latest[1] is not asyncio.get_running_loop() or latest[0] != os.getpid():
            latest = self._latest = (os.getpid(), asyncio.get_running_loop(), self._make())
        return latest[2]

    def take(self) -> _T | None:
        """Return the value of the running event loop, if it was made, and forget it."""
        latest, self._latest = self._latest, None
        if latest is None or latest[1] is not asyncio.get_running_loop() or latest[0] != os.getpid():
            return None
        return latest[2]


async def call_apart(function: Callable[..., Coroutine[Any, Any, _T]], **options: Any) -> _T:
    """Call the function so that the tasks which it starts know nothing of whoever calls it."""
    return await begin_in_background(function(**options))


async def abandon(under_way: set[asyncio.Task[Any]]) -> None:
    """End what is under way in tasks."""
    tasks = list(under_way)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
