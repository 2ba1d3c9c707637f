"""Deadlines for answers of Postgres that are kept at this end.

A server that is stopped, or a pooler that is stuck, keeps the connection open and keeps no time-out of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

#: How long Postgres may be silent in the middle of a statement, in seconds.
SILENCE_SECONDS = 30.0

Answer = TypeVar("Answer")
#: Whether to wait no longer, given for how many seconds nothing has come.
IsOverdue = Callable[[float], bool]


class NoAnswer(psycopg.OperationalError):
    """Postgres is silent in the middle of a statement. The connection is closed; what became of it is not known."""


def silent_for(seconds: float) -> IsOverdue:
    """Return what waits for so many seconds of silence."""
    return lambda silent: silent >= seconds


class DeadlineConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose statements raise `NoAnswer` when nothing comes for too long."""

    is_overdue: IsOverdue = staticmethod(silent_for(SILENCE_SECONDS))

    def wait(self, gen: PQGen[Answer], *arguments: Any, **options: Any) -> Answer:
        """Wait as psycopg does, which looks at the generator every tenth of a second."""
        return super().wait(bounded(gen, self.pgconn, self.is_overdue), *arguments, **options)


class AsyncDeadlineConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection for an event loop, otherwise as `DeadlineConnection`."""

    is_overdue: IsOverdue = staticmethod(silent_for(SILENCE_SECONDS))

    async def wait(self, gen: PQGen[Answer], *arguments: Any, **options: Any) -> Answer:
        """Wait as psycopg does, which looks at the generator every tenth of a second."""
        return await super().wait(bounded(gen, self.pgconn, self.is_overdue), *arguments, **options)


def bounded(gen: PQGen[Answer], pgconn: psycopg.pq.abc.PGconn, is_overdue: IsOverdue) -> PQGen[Answer]:
    """Go on with the generator of an answer until it is overdue.

    Raises:
        NoAnswer: it is. The connection is closed, so that nothing else waits for it, as a rollback would.
    """
    heard_at = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                heard_at = now
            elif is_overdue(now - heard_at):
                pgconn.finish()
                raise NoAnswer(f"Postgres has been silent for {now - heard_at:.0f} s in the middle of a statement")
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
