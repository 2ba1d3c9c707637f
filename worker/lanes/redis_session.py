"""One stage's connection to Redis: made by name, ended by any fault, and never replaced without a word.

A connection that stays open may lead to a server that is no longer the one behind the name, as after a fail-over that
demotes it. So whatever goes wrong on it, an answer that is an error included, ends it, and with it those of the other
stages. What was read before a connection ended may not be what the next server has under the same ids.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..connections import REDIS_TIMEOUT_SECONDS, connect_redis

#: What says that Redis cannot be used now. A ResponseError is among them: LOADING, READONLY, a script that is gone.
RedisFault = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ResponseError,
    redis.InvalidResponse,
    OSError,
)

#: Shortest wait for an answer, in seconds: a server that is only busy must not be taken for a silent one.
MIN_ANSWER_SECONDS = 1.0


def answer_seconds_within(lease_seconds: float) -> float:
    """Return how long a stage waits for Redis, in seconds: half a lease at most, so that the lanes go on within it."""
    return min(REDIS_TIMEOUT_SECONDS, max(MIN_ANSWER_SECONDS, lease_seconds / 2))


def is_out_of_memory(error: object) -> bool:
    """Return whether Redis refused to take more: what frees memory works all the same."""
    # What a script meets is reported as the script's error.
    return isinstance(error, redis.OutOfMemoryError) or (
        isinstance(error, redis.ResponseError) and "OOM command not allowed" in str(error)
    )


def is_of_wrong_type(error: object) -> bool:
    """Return whether Redis says that a key, without saying which, holds something of another type."""
    # What a script meets comes after the script's name.
    return isinstance(error, redis.ResponseError) and "WRONGTYPE Operation" in str(error)


class RedisFaults:
    """How many connections of a worker's stages to Redis have ended by a fault. Shared by its threads; no I/O."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0

    @property
    def count(self) -> int:
        """How many there have been."""
        with self._lock:
            return self._count

    def note(self) -> None:
        """Count one more."""
        with self._lock:
            self._count += 1


class AnswerTooLong(redis.ConnectionError):
    """Redis has sent more than there is room for; the connection is ended in the middle of the answer."""


class _BoundedSocket:
    """A socket on which the answer to what was sent last may have so many bytes."""

    def __init__(self, socket: Any, max_bytes: int) -> None:
        self._socket = socket
        self._max_bytes = max_bytes
        self._received = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: Any) -> None:
        self._received = 0
        self._socket.sendall(data)

    def recv_into(self, buffer: Any) -> int:
        number = int(self._socket.recv_into(buffer))
        self._received += number
        if self._received > self._max_bytes:
            raise AnswerTooLong(f"an answer of Redis is longer than {self._max_bytes} bytes")
        return number


class RedisSession:
    """The connection of one stage. Not for use from several threads.

    An answer that is longer than `max_answer_bytes` is broken off, and ends it as a fault does.
    """

    def __init__(
        self, redis_url: str, faults: RedisFaults, *, answer_seconds: float, max_answer_bytes: int | None = None
    ) -> None:
        self._faults = faults
        self._max_answer_bytes = max_answer_bytes
        self._is_made = False
        #: How many faults the process had met when this connection was made, or will have when it is.
        self.number: int = faults.count
        # Without the driver's own attempts: they would hide a fault, and wait for several times as long.
        self.client: redis.Redis = connect_redis(
            redis_url,
            answer_seconds=answer_seconds,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=self._on_connect,
        )
        # As it was sent, so that it compares with what was read.
        self.client.set_response_callback("XRANGE", lambda response, **_options: response)

    def keep_up(self) -> bool:
        """End the connection if another stage's has ended since it was made. Returns whether that was so."""
        if self.number == self._faults.count:
            return False
        self.close()
        return True

    def fail(self) -> None:
        """End the connection after a fault, so that every stage makes a new one."""
        self._faults.note()
        self.close()

    def close(self) -> None:
        """End the connection. The next use makes a new one."""
        self.client.close()
        self._is_made = False
        self.number = self._faults.count

    def _on_connect(self, connection: redis.connection.AbstractConnection) -> None:
        if self._is_made:
            # The driver would go on with a new one, and nobody would know that the server may be another.
            raise redis.ConnectionError("Redis has closed the connection")
        if self._max_answer_bytes is not None:
            # The driver has no bound of its own, and would build the whole answer in memory.
            driver: Any = connection
            driver._sock = _BoundedSocket(driver._sock, self._max_answer_bytes)  # noqa: SLF001
        connection.on_connect()  # type: ignore[no-untyped-call]
        self._is_made = True
