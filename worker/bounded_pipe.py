"""A bounded pipe between two threads that can be ended from both sides, as `queue.Queue` can from Python 3.13 on."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Pipe(Generic[Item]):
    """Holds a few items between the thread that makes them and the thread that takes them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._changed = Condition()
        self._ended = False
        self._takers = 0

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for an item now."""
        with self._changed:
            return self._takers > 0 and not self._items

    def wait_until_wanted(self, timeout_seconds: float) -> None:
        """Wait until somebody waits for an item, or the pipe has ended, but not for longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._takers > 0 and not self._items), timeout_seconds)

    def put(self, item: Item) -> bool:
        """Add an item, waiting for room. False if the pipe has ended: the item is not taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < self._capacity)
            if self._ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> Item | None:
        """Return the next item, waiting for one. None if the pipe has ended and is empty."""
        with self._changed:
            if not self._items and not self._ended:
                self._takers += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended or bool(self._items))
                self._takers -= 1
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Let nothing more in; what is in it can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """End it and drop what is in it, in one step: no later item may come through where an earlier is dropped."""
        with self._changed:
            self._items.clear()
            self._ended = True
            self._changed.notify_all()
