"""Ctrl-C, SIGTERM and a closed terminal as one orderly interruption, which nothing interrupts again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        for number in SIGNALS:
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
