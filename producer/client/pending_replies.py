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


class Promise(Protocol):
    """What `concurrent.futures.Future` and `asyncio.Future` have in common."""

    def done(self) -> bool: ...

    def set_result(self, result: Announcement, /) -> None: ...


class Bell(Protocol):
    """What `threading.Event` and `asyncio.Event` have in common."""

    def set(self) -> None: ...

    def clear(self) -> None: ...


_PromiseT = TypeVar("_PromiseT", bound=Promise)
_BellT = TypeVar("_BellT", bound=Bell)


class Inbox(Generic[_BellT]):
    """Where the announcements for one `wait_many` gather; `bell` rings when some are there."""

    def __init__(self, covers: Callable[[int], bool], bell: _BellT) -> None:
        self.covers = covers
        self.bell = bell
        self._news: deque[Announcement] = deque()

    def put(self, news: Announcement) -> None:
        """Add an announcement, if there is room."""
        if len(self._news) < MAX_INBOX:
            self._news.append(news)
            self.bell.set()

    def take(self) -> list[Announcement]:
        """Return what has gathered, and silence the bell."""
        # Cleared first: what comes in between rings again, and nothing is slept through.
        self.bell.clear()
        return [self._news.popleft() for _ in range(len(self._news))]


class _Announced:
    """Which numbers have been announced. Of what is too long ago to be known it says yes: it is worth a look."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._first_page = 0

    def add(self, number: int) -> None:
        page, place = divmod(number, PAGE_NUMBERS)
        marks = self._pages.get(page)
        if marks is None:
            marks = self._pages[page] = bytearray(PAGE_NUMBERS)
            if len(self._pages) > MAX_PAGES:
                oldest = min(self._pages)
                del self._pages[oldest]
                self._first_page = max(self._first_page, oldest + 1)
        marks[place] = 1

    def __contains__(self, number: int) -> bool:
        page, place = divmod(number, PAGE_NUMBERS)
        marks = self._pages.get(page)
        return page < self._first_page or (marks is not None and marks[place] == 1)


class ReplyDesk(Generic[_PromiseT]):
    """Matches the announcements of one producer with its waiters, by number. Threads may share it."""

    def __init__(self, make_promise: Callable[[], _PromiseT]) -> None:
        self._make_promise = make_promise
        self._promises: dict[int, list[_PromiseT]] = {}
        self._inboxes: list[Inbox[Bell]] = []
        self._recent: dict[int, Announcement] = {}
        self._announced = _Announced()
        self._lock = Lock()

    def expect(self, number: int) -> _PromiseT:
        """Return the promise of the announcement of this number; kept at once if it has come already."""
        promise = self._make_promise()
        with self._lock:
            news = self._recent.get(number)
            if news is None:
                self._promises.setdefault(number, []).append(promise)
        if news is not None:
            promise.set_result(news)
        return promise

    def has_passed(self, number: int) -> bool:
        """Whether this number was announced before, so that waiting for it would be in vain."""
        with self._lock:
            return number in self._announced

    def forget(self, number: int, promise: _PromiseT) -> None:
        """Stop waiting."""
        with self._lock:
            promises = self._promises.get(number, [])
            if promise in promises:
                promises.remove(promise)
            if not promises:
                self._promises.pop(number, None)

    def subscribe(self, inbox: Inbox[_BellT]) -> None:
        """Let the inbox have every announcement that it covers, also those that have come already."""
        with self._lock:
            self._inboxes.append(inbox)  # type: ignore[arg-type]  # a Bell of either kind
            for number in [number for number in self._recent if inbox.covers(number)]:
                inbox.put(self._recent.pop(number))

    def unsubscribe(self, inbox: Inbox[_BellT]) -> None:
        """Undo `subscribe`."""
        with self._lock:
            self._inboxes.remove(inbox)  # type: ignore[arg-type]  # a Bell of either kind

    def deliver(self, batch: Iterable[Announcement]) -> None:
        """Hand each announcement to its waiters, and hold it ready for a while, unless a `wait_many` has taken it."""
        with self._lock:
            for news in batch:
                self._deliver_one(news)

    def _deliver_one(self, news: Announcement) -> None:
        self._announced.add(news.number)
        promises = self._promises.pop(news.number, None)
        for promise in promises or ():
            if not promise.done():
                promise.set_result(news)
        wanted = False
        for inbox in self._inboxes:
            if inbox.covers(news.number):
                inbox.put(news)
                wanted = True
        if wanted:
            return
        self._recent[news.number] = news
        if len(self._recent) > MAX_RECENT:
            del self._recent[next(iter(self._recent))]
