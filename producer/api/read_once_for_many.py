"""One read of the servers for all who ask at the same time, so that many who ask cost no more than one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ..background_tasks import begin_in_background

_T = TypeVar("_T")


class SharedRead(Generic[_T]):
    """Reads when it is asked, unless a read is under way or one has begun so lately that its result is still good.

    `good_seconds` are counted from the beginning of a read. Used by the tasks of one event loop.
    """

    def __init__(self, read: Callable[[], Coroutine[Any, Any, _T]], *, good_seconds: float = 0.0) -> None:
        self._read = read
        self._good_seconds = good_seconds
        self._begun_at = float("-inf")
        self._task: asyncio.Task[_T] | None = None

    async def result(self) -> _T:
        """Return what the read found. Who stops waiting ends it for nobody else."""
        if self._task is None or (self._task.done() and not self._is_good(self._task)):
            self._begun_at = time.monotonic()
            self._task = begin_in_background(self._read())
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """End the read that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _is_good(self, task: asyncio.Task[_T]) -> bool:
        if task.cancelled() or task.exception() is not None:
            return False
        return time.monotonic() - self._begun_at < self._good_seconds
