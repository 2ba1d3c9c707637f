"""Ctrl-C, SIGTERM and a closed terminal as one orderly interruption, which nothing interrupts again.

Under `nohup`, which has a closed terminal ignored, that stays so.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _heeded() -> list[signal.Signals]:
    """Return the signals that stop this process, without what it was started to ignore."""
    return [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def held_signals() -> Iterator[None]:
    """Let a signal that comes meanwhile do its work afterwards: a child that was started must be known to who ends it.

    Only in the main thread, as signals are; elsewhere there is nothing to hold.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    previous = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


class StopSignals:
    """While entered, the first of the signals raises KeyboardInterrupt in the main thread; later ones do nothing.

    So what stops the stack, in whatever `finally` or `with` it stands, runs to its end.
    """

    def __init__(self) -> None:
        #: The signal that came first, if any.
        self.received: int | None = None
        self._ignoring = False
        self._restore: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        for number in _heeded():
            previous = signal.signal(number, self._handle)
            self._restore.append(lambda number=number, previous=previous: signal.signal(number, previous))  # type: ignore[misc]
        return self

    def __exit__(self, *_error: object) -> None:
        for restore in self._restore:
            restore()

    def ignore(self) -> None:
        """From now on raise nothing: the end has begun."""
        self._ignoring = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._ignoring:
            return
        self._ignoring = True
        self.received = number
        raise KeyboardInterrupt
