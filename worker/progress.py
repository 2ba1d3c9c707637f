"""Whether the stages of a worker get on: what each is at, since when, and what keeps it. Shared by threads; no I/O.

A heartbeat says nothing about work: a process whose lease keeper runs on holds lanes on which nothing happens for as
long as another of its threads waits. So each stage notes when it begins and ends a piece of work, all attempts at it
included, and a worker of which one stage does not get on within its lease gives the lanes to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event, Thread
from types import MappingProxyType

import psycopg
import redis

from ..lanes.postgres.sessions import ServerSilent
from ..schemas.worker_metrics import StageTrouble

#: What is said of a stage whose thread is no more.
ENDED = "its thread has ended"
#: What is said of a stage that reported no error.
NO_ANSWER = "no answer yet"


class Work:
    """What one stage is at. One thread notes, others read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._failures = 0
        self._cause = NO_ANSWER

    def begin(self) -> None:
        """Note that a piece of work begins; another attempt at it is still the same piece."""
        if self._since is None:
            self._since = self._clock()

    def advance(self) -> None:
        """Note that a part of the piece is done, or that what is left of it became smaller."""
        if self._since is not None:
            self._since = self._clock()

    def fail(self, error: Exception) -> None:
        """Note that an attempt failed, and another will follow."""
        self.begin()
        self._failures += 1
        self._cause = cause_of(error)

    def end(self) -> None:
        """Note that the piece is done."""
        self._since = None
        self._failures = 0
        self._cause = NO_ANSWER

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt failed."""
        return self._failures > 0

    def seconds(self) -> float:
        """Return for how long the stage has been at its piece of work; 0 if it is at none."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    def trouble(self) -> StageTrouble:
        """Return what keeps the stage at its piece of work."""
        return StageTrouble(self._cause, self.seconds(), self._failures)


class Progress:
    """The work of the three stages of one worker."""

    def __init__(self, stopping: Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._stopping = stopping
        self.reader: Work = Work(clock)
        self.applier: Work = Work(clock)
        self.announcer: Work = Work(clock)
        self._works = {"reader": self.reader, "applier": self.applier, "announcer": self.announcer}
        #: The threads of stages, by the stage. None of them ends while the worker is not asked to stop.
        self.threads: Mapping[str, Thread] = MappingProxyType({})

    def stuck(self, seconds: float) -> dict[str, StageTrouble]:
        """Return the stages that have been at one piece of work for longer than this, or whose thread has ended."""
        stuck = {name: work.trouble() for name, work in self._works.items() if work.seconds() > seconds}
        ended = [name for name, thread in self.threads.items() if not thread.is_alive()]
        if ended and not self._stopping.is_set():
            stuck |= {name: StageTrouble(ENDED, 0.0, 0) for name in ended}
        return stuck

    def troubles(self, seconds: float) -> dict[str, StageTrouble]:
        """Return the stages that are trying again, or have been at one piece of work for longer than this."""
        failing = {name: work.trouble() for name, work in self._works.items() if work.is_failing}
        return failing | self.stuck(seconds)


def cause_of(error: Exception) -> str:
    """Return what is wrong in words for anybody: no host, no name, no value of a row, none of which errors spare."""
    if isinstance(error, ServerSilent):
        return "Postgres does not answer"
    if isinstance(error, psycopg.Error):
        return _answer_of_postgres(error)
    if isinstance(error, redis.TimeoutError):
        return "Redis does not answer"
    if isinstance(error, redis.ResponseError):
        # The first word of an answer is its code, where the client has not made a class of it.
        code = str(error).partition(" ")[0]
        return f"Redis answers {code if code.isupper() and code.isalpha() else type(error).__name__}"
    if isinstance(error, redis.ConnectionError):
        return "Redis is away"
    return type(error).__name__


def _answer_of_postgres(error: psycopg.Error) -> str:
    if error.sqlstate is None:
        return "Postgres is away"
    answer = f"Postgres answers {error.sqlstate} ({type(error).__name__})"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        # Nothing but somebody's hand helps.
        return f"{answer}: the worker's role lacks a right; `creditlane migrate --roles` grants what it needs"
    return answer
