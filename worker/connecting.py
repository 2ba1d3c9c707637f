"""Connections to Postgres and Redis as a worker wants them: with a deadline on everything."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
import redis

#: How long to wait for a connection to be made, in seconds.
CONNECT_TIMEOUT_SECONDS = 5
#: How long Redis may take to answer, beyond what a blocking read asks for, in seconds.
REDIS_TIMEOUT_SECONDS = 10.0


Answer = TypeVar("Answer")


class SilentPostgres(psycopg.OperationalError):
    """Postgres is connected and does not answer."""


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of which every wait has a deadline, whatever the other end does.

    The time-outs of a server help only where it can still answer: one that was stopped, and a connection that a pooler
    holds open without a server behind it, are silent. After a deadline the connection is closed.
    """

    #: How long one answer may take, in seconds; None: for ever.
    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, Answer], *args: Any, **options: Any) -> Answer:
        """Return what the generator of the driver returns in the end.

        Raises:
            SilentPostgres: there was no answer in time. The connection is closed.
        """
        if self.answer_seconds is None:
            return super().wait(gen, *args, **options)
        try:
            return super().wait(_answered_within(self.answer_seconds, gen), *args, **options)
        except SilentPostgres:
            self.close()
            raise


def _answered_within(seconds: float, gen: Generator[Any, Any, Answer]) -> Generator[Any, Any, Answer]:
    """Pass on what goes between the driver and one of its generators, until the time is over."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            wanted = gen.send(ready)
            # Afterwards: what has come already is taken, also by a process that was itself stopped for a while.
            if time.monotonic() > deadline:
                raise SilentPostgres(f"Postgres does not answer within {seconds:g} s")
    except StopIteration as done:
        answer: Answer = done.value
        return answer


def session_name(worker_id: str = "") -> str:
    """Return what a worker's sessions are called in Postgres, within the 63 bytes that a name may have there."""
    return f"creditlane-worker {worker_id[-32:]}".rstrip()


def connect_postgres(
    database_url: str, *, worker_id: str = "", autocommit: bool = False, answer_seconds: float | None = None
) -> psycopg.Connection[tuple[Any, ...]]:
    """Return a new connection, which others can tell from its name to be this worker's.

    No answer on it is waited for longer than `answer_seconds`.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached.
    """
    options = session_options(session_name(worker_id))
    if answer_seconds is not None:
        # The driver waits for two seconds at least.
        options["connect_timeout"] = min(CONNECT_TIMEOUT_SECONDS, max(2, math.ceil(answer_seconds)))
    connection = BoundedConnection.connect(database_url, autocommit=autocommit, **options)
    connection.answer_seconds = answer_seconds
    return connection


async def connect_postgres_async(
    database_url: str, *, worker_id: str = "", autocommit: bool = False
) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """Return a new connection for an event loop, otherwise as `connect_postgres` does."""
    return await psycopg.AsyncConnection.connect(
        database_url, autocommit=autocommit, **session_options(session_name(worker_id))
    )


def session_options(name: str) -> dict[str, Any]:
    """Return the options of a connection whose session is called like this in Postgres."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": name,
        # Poolers in transaction mode give each transaction another server: nothing prepared may be relied on.
        "prepare_threshold": None,
        # A peer that vanished without a word is noticed after about half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def connect_redis(redis_url: str, *, answer_seconds: float = REDIS_TIMEOUT_SECONDS) -> redis.Redis:
    """Return a client that connects when first used, and gives streams as they are sent: nested lists of bytes.

    No answer is waited for longer than `answer_seconds`.
    """
    client = redis.Redis.from_url(
        redis_url,
        protocol=2,
        decode_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=answer_seconds,
    )
    client.set_response_callback("XREAD", lambda response, **_options: response)
    return client
