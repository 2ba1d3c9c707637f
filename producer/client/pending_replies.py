"""Hands announcements to those who wait for them. Knows no socket; both clients' listeners feed it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Generic, Protocol, TypeVar

from ...schemas.journal import Announcement

#: Latest announcements that are held ready for who asks late, or again; the oldest go first.
MAX_RECENT = 10_000
#: Announcements that wait for a slow reader of `wait_many`; what does not fit is found in Postgres.
MAX_INBOX = 50_000
#: Numbers in one page of those that were announced, and how many pages are kept: four million numbers, a byte each.
PAGE_NUMBERS = 65_536
MAX_PAGES = 64


class FutureLike(Protocol):
    """What `concurrent.futures.Future` and `asyncio.Future` have in common."""

    def done(self) -> bool: ...

    def set_result(self, result: Announcement, /) -> None: ...


class EventLike(Protocol):
    """What `threading.Event` and `asyncio.Event` have in common."""

    def set(self) -> None: ...

    def clear(self) -> None: ...


_FutureT = TypeVar("_FutureT", bound=FutureLike)
_EventT = TypeVar("_EventT", bound=EventLike)


class Inbox(Generic[_EventT]):
    """Where the announcements for one `wait_many` gather; `event` is set when some are there."""

    def __init__(self, covers: Callable[[int], bool], event: _EventT) -> None:
        self.covers = covers
        self.event = event
        self._announcements: deque[Announcement] = deque()

    def put(self, announcement: Announcement) -> None:
        """Add an announcement, if there is room."""
        if len(self._announcements) < MAX_INBOX:
            self._announcements.append(announcement)
            self.event.set()

    def take(self) -> list[Announcement]:
        """Return what has gathered, and clear the event."""
        # Cleared first: what comes in between sets it again, and nothing is slept through.
        self.event.clear()
        return [self._announcements.popleft() for _ in range(len(self._announcements))]


class _Announced:
    """Which numbers have been announced. Of what is too long ago to be known it says yes: it is worth asking for."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._first_page = 0

    def add(self, number: int) -> None:
        page, offset = divmod(number, PAGE_NUMBERS)
        marks = self._pages.get(page)
        if marks is None:
            marks = self._pages[page] = bytearray(PAGE_NUMBERS)
            if len(self._pages) > MAX_PAGES:
                oldest = min(self._pages)
                del self._pages[oldest]
                self._first_page = max(self._first_page, oldest + 1)
        marks[offset] = 1

    def __contains__(self, number: int) -> bool:
        page, offset = divmod(number, PAGE_NUMBERS)
        marks = self._pages.get(page)
        return page < self._first_page or (marks is not None and marks[offset] == 1)


class PendingReplies(Generic[_FutureT]):
    """Matches the announcements of one producer with its waiters, by number. Threads may share it."""

    def __init__(self, make_future: Callable[[], _FutureT]) -> None:
        self._make_future = make_future
        self._futures: dict[int, list[_FutureT]] = {}
        self._inboxes: list[Inbox[EventLike]] = []
        self._recent: dict[int, Announcement] = {}
        self._announced = _Announced()
        self._lock = Lock()

    def expect(self, number: int) -> _FutureT:
        """Return the future of the announcement of this number; it holds it at once if that has come already."""
        future = self._make_future()
        with self._lock:
            announcement = self._recent.get(number)
            if announcement is None:
                self._futures.setdefault(number, []).append(future)
        if announcement is not None:
            future.set_result(announcement)
        return future

    def has_passed(self, number: int) -> bool:
        """Whether this number was announced before, so that waiting for it would be in vain."""
        with self._lock:
            return number in self._announced

    def forget(self, number: int, future: _FutureT) -> None:
        """Stop waiting."""
        with self._lock:
            futures = self._futures.get(number, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._futures.pop(number, None)

    def subscribe(self, inbox: Inbox[_EventT]) -> None:
        """Let the inbox have every announcement that it covers, also those that have come already."""
        with self._lock:
            self._inboxes.append(inbox)  # type: ignore[arg-type]  # of either kind
            for number in [number for number in self._recent if inbox.covers(number)]:
                inbox.put(self._recent.pop(number))

    def unsubscribe(self, inbox: Inbox[_EventT]) -> None:
        """Undo `subscribe`."""
        with self._lock:
            self._inboxes.remove(inbox)  # type: ignore[arg-type]  # of either kind

    def deliver(self, batch: Iterable[Announcement]) -> None:
        """Hand each announcement to its waiters, and hold it ready for a while, unless a `wait_many` has taken it."""
        with self._lock:
            for announcement in batch:
                self._deliver_one(announcement)

    def _deliver_one(self, announcement: Announcement) -> None:
        self._announced.add(announcement.number)
        futures = self._futures.pop(announcement.number, None)
        for future in futures or ():
            if not future.done():
                future.set_result(announcement)
        wanted = False
        for inbox in self._inboxes:
            if inbox.covers(announcement.number):
                inbox.put(announcement)
                wanted = True
        if wanted:
            return
        self._recent[announcement.number] = announcement
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
