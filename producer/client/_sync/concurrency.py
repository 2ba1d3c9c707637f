"""What the blocking client does in another way than the asyncio one: waiting, and who may share what.

Written by hand, as is its twin in `_async`; the two have the same names. Everything else of this client is generated.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from threading import BoundedSemaphore, Event, Lock, Thread
from time import sleep
from typing import Any, Generic, TypeVar

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
    """Return a future that any thread may wait for."""
    return Future()


def outcome_within(future: Future[_T], seconds: float) -> _T | None:
    """Return what the future holds, waiting for so long at most; None if it holds nothing by then."""
    try:
        return future.result(seconds)
    except TimeoutError:
        return None


def wait_for_event(event: Event, seconds: float) -> None:
    """Wait until the event is set, and no longer than this."""
    event.wait(seconds)


class Slots:
    """As many as may do something at the same time."""

    def __init__(self, count: int) -> None:
        self._semaphore = BoundedSemaphore(count)

    def take(self, seconds: float) -> bool:
        """Take one, waiting for so long at most, and return whether there was one; 0: do not wait."""
        return self._semaphore.acquire(timeout=seconds)

    def give_back(self) -> None:
        """Let somebody else have it."""
        self._semaphore.release()


class BackgroundTask:
    """Work that goes on beside everything else until it is stopped; begun once.

    It is a daemon thread, and never holds up the end of the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._thread: Thread | None = None
        self._stopping = Event()

    @property
    def is_stopping(self) -> bool:
        """Whether it was stopped."""
        return self._stopping.is_set()

    def begin(self, work: Callable[[], None]) -> None:
        """Begin the work, which asks `is_stopping` now and then, unless it was begun before."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = Thread(target=work, name=self._name, daemon=True)
                thread.start()
                self._thread = thread

    def pause(self, seconds: float) -> None:
        """Wait within the work, but not after it is stopped."""
        self._stopping.wait(seconds)

    def stop(self, wake: Callable[[], None], seconds: float) -> bool:
        """Stop the work, wait for its end, so long at most, and return whether it was begun.

        `wake` ends what it waits for, or raises.
        """
        self._stopping.set()
        if self._thread is None:
            return False
        wake()
        self._thread.join(seconds)
        return True


class Scoped(Generic[_T]):
    """A value that is made anew for each process: a forked child must share neither connections nor identity."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._latest: tuple[int, _T] | None = None
        #: By process id. A child keeps its parent's as it is: closing it here would spoil the parent's connections.
        self._values: dict[int, _T] = {}

    def get(self) -> _T:
        """Return the value of this process."""
        latest, process_id = self._latest, os.getpid()
        if latest is None or latest[0] != process_id:
            # setdefault is atomic: threads that come here together get the same one, without a lock that a fork
            # could leave locked.
            latest = self._latest = (process_id, self._values.setdefault(process_id, self._make()))
        return latest[1]

    def take(self) -> _T | None:
        """Return the value of this process, if it was made, and forget it."""
        return self._values.pop(os.getpid(), None)


def call_apart(function: Callable[..., _T], **options: Any) -> _T:
    """Call the function; the threads that it starts know nothing of whoever calls it."""
    return function(**options)


def abandon(under_way: set[Any]) -> None:
    """Leave what is under way to the threads that are at it, which end by themselves."""
