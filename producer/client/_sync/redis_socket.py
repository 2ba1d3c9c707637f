"""One connection to Redis whose every wait ends with a deadline, for the blocking client.

Written by hand, as is its twin in `_async`: redis-py's two kinds of connections are bounded in different ways.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from redis.connection import ConnectionPool
from redis.exceptions import RedisError, ResponseError

from ....lanes.deadlines import seconds_until
from ....lanes.redis.connections import connection_options
from ..redis_exchange import ANSWER_TIMEOUT_SECONDS, options_of_connection

#: A socket takes 0 as not to wait at all, and says so with another error than that the time is up.
_LEAST_SOCKET_SECONDS = 0.001


class _TimedSocket:
    """A socket on which everything ends with one deadline, however little the other side sends or takes at a time.

    A time-out of the socket would be that of each piece.
    """

    def __init__(self, socket: Any, deadline: float) -> None:
        self._socket = socket
        self._most_seconds: float | None = None
        self.deadline = deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def settimeout(self, seconds: float | None) -> None:
        # The library wants to know, without waiting, whether there is something to read.
        self._most_seconds = seconds

    def recv(self, *arguments: Any) -> Any:
        self._set_timeout()
        return self._socket.recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        self._set_timeout()
        return int(self._socket.recv_into(*arguments))

    def sendall(self, data: Any) -> None:
        # Not the socket's own, which under TLS has the time-out anew for each piece.
        rest = memoryview(data)
        while rest:
            self._set_timeout()
            rest = rest[self._socket.send(rest) :]

    def _set_timeout(self) -> None:
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the time of the call is up")
        self._socket.settimeout(seconds if self._most_seconds is None else min(seconds, self._most_seconds))


def maker_of(url: str) -> Any:
    """Return what has read the URL and knows how to make connections; redis-py is only partly typed."""
    maker: Any = ConnectionPool.from_url(url, **connection_options(url, answer_seconds=ANSWER_TIMEOUT_SECONDS))
    maker.connection_kwargs = options_of_connection(maker.connection_kwargs)
    return maker


def make_ready(maker: Any, connection: Any, deadline: float) -> None:  # noqa: ARG001 - the twin's
    """Connect, unless it is connected and as quiet as a connection that nobody has asked anything."""
    _connect(connection, deadline)
    try:
        _set_deadline(connection, deadline)
        is_stale = connection.can_read()
    except (RedisError, OSError):
        is_stale = True
    if is_stale:
        connection.disconnect()
        _connect(connection, deadline)


def write(connection: Any, packed: Sequence[bytes], deadline: float) -> None:
    """Write what redis-py has made of commands."""
    _set_deadline(connection, deadline)
    # In one piece, so that several commands may go in one packet.
    connection.send_packed_command([b"".join(packed)])


def read_into(answers: list[Any], count: int, connection: Any, deadline: float) -> None:
    """Append so many answers, also those before an error; one with which Redis refuses a command is an answer."""
    _set_deadline(connection, deadline)
    for _ in range(count):
        try:
            answers.append(connection.read_response())
        except ResponseError as error:
            answers.append(error)


def end(connection: Any) -> None:
    """Close the connection."""
    try:
        connection.disconnect()
    except Exception:  # noqa: BLE001 - what is dead may refuse even to be closed, and is given up either way
        return


def end_all(connections: Iterable[Any]) -> None:
    """Close the connections."""
    for connection in connections:
        end(connection)


def _connect(connection: Any, deadline: float) -> None:
    """Connect by the deadline, if it is not connected, and greet the server, which takes several answers."""

    def greet(connected: Any) -> None:
        connected._sock = _TimedSocket(connected._sock, deadline)  # noqa: SLF001 - see `_set_deadline`
        connected.on_connect()

    connection.redis_connect_func = greet
    connection.socket_timeout = seconds = max(_LEAST_SOCKET_SECONDS, seconds_until(deadline))
    # A host may have several addresses.
    connection.socket_connect_timeout = max(_LEAST_SOCKET_SECONDS, seconds / 2)
    connection.connect()


def _set_deadline(connection: Any, deadline: float) -> None:
    """Let whatever this connection now waits for end with the deadline."""
    # The library sets a time-out once, when it connects; there is no other way in that all its versions have.
    connection._sock.settimeout(None)  # noqa: SLF001
    connection._sock.deadline = deadline  # noqa: SLF001
