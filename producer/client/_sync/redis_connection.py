"""Talks to Redis, for the blocking client: one write of several commands, one read of all their answers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.connection import ConnectionPool
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ....lanes.backoff import growing_pauses
from ....lanes.deadlines import deadline_in, part_of, seconds_until
from ....schemas.redis_urls import readable_redis_url
from ..redis_exchange import (
    ANSWER_TIMEOUT_SECONDS,
    EXCHANGE_SECONDS,
    MAX_ATTEMPTS,
    MAX_CONNECTIONS,
    RETRY_PAUSES,
    RETRY_SECONDS,
    Call,
    ExchangeFailed,
    connection_options,
    failure,
    is_of_server,
    options_of_connection,
    refusal_of_server,
)

#: A socket takes 0 as not to wait at all, and tells it as another error than that the time is up.
_LEAST_SOCKET_SECONDS = 0.001


class Flight(NamedTuple):
    """Commands that were written and whose answers have not been read."""

    connection: Any
    answers_due: int


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


class RedisWire:
    """Connections to one Redis, used by any number of threads. No wait of it depends on what the other side does.

    The library's connections are used, and not its pool, whose waits have one length for all callers.
    """

    def __init__(self, url: str) -> None:
        with readable_redis_url(url):
            # It reads the URL and knows how to make connections; redis-py is only partly typed.
            self._maker: Any = ConnectionPool.from_url(url, **connection_options(url))
            self._maker.connection_kwargs = options_of_connection(self._maker.connection_kwargs)
            # Connects to nothing, and says no to options that there are not.
            self._new()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        #: The one that was used last is taken first, so that the others may be closed for idleness.
        self._idle: deque[Any] = deque()
        self._taken: set[Any] = set()

    def exchange(
        self,
        calls: Sequence[Call],
        *,
        changes_something: bool = False,
        was_sent: bool = False,
        deadline: float | None = None,
        on_silence: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Send the commands at once and return their answers; an error that Redis answers is an answer.

        Tried again a few times on a fresh connection, so the commands must be safe to repeat. Ends by `deadline`, a
        moment of the monotonic clock. `was_sent`: they have been sent before, without an answer. `on_silence` is
        called when they are now.

        Raises:
            Unavailable: no connection, or no answer to commands that change nothing, or none that counts.
            OutcomeUnknown: commands that change something were sent, and no attempt was answered.
        """
        deadline = deadline_in(EXCHANGE_SECONDS) if deadline is None else deadline
        pauses, give_up = growing_pauses(*RETRY_PAUSES), min(deadline, time.monotonic() + RETRY_SECONDS)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return self.exchange_once(calls, part_of(deadline, ANSWER_TIMEOUT_SECONDS))
            except ExchangeFailed as error:
                if error.sent and on_silence is not None:
                    on_silence()
                error.sent = was_sent = was_sent or error.sent
                pause = next(pauses)
                if attempt == MAX_ATTEMPTS or time.monotonic() + pause >= give_up:
                    raise failure(error, changes_something=changes_something) from error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def exchange_once(self, calls: Sequence[Call], deadline: float | None = None) -> list[Any]:
        """Send the commands at once and return their answers, or raise ExchangeFailed; by the deadline."""
        deadline = deadline_in(ANSWER_TIMEOUT_SECONDS) if deadline is None else deadline
        return self.receive(self.send(calls, deadline), deadline)

    def send(self, calls: Sequence[Call], deadline: float) -> Flight:
        """Write the commands, on a connection that is now taken until `receive`, or raise ExchangeFailed."""
        connection, packed = self._take(deadline), None
        try:
            # In one piece, so that several commands may go in one packet.
            packed = b"".join(connection.pack_commands(calls))
            _set_deadline(connection, deadline)
            connection.send_packed_command([packed])
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, Exception) and packed is not None:
                raise ExchangeFailed(error, sent=True) from error
            raise
        return Flight(connection, len(calls))

    def receive(self, flight: Flight, deadline: float) -> list[Any]:
        """Read the answers to what was sent, or raise ExchangeFailed."""
        answers: list[Any] = []
        try:
            _set_deadline(flight.connection, deadline)
            for _ in range(flight.answers_due):
                answers.append(_read(flight.connection))  # noqa: PERF401 - what was read before an error counts
        except BaseException as error:
            # Also when interrupted: an unread answer would be taken for that of the connection's next command.
            self._drop(flight.connection)
            if isinstance(error, Exception):
                # A server that says no has not run the command.
                raise ExchangeFailed(error, sent=bool(answers) or not is_of_server(error)) from error
            raise
        if refusal := refusal_of_server(answers):
            self._drop(flight.connection)
            # The others are of before the change as well; the next attempt must not take one of them.
            self._drop_idle()
            raise refusal
        self._give_back(flight.connection)
        return answers

    def abandon(self, flight: Flight) -> None:
        """Give up the answers to what was sent."""
        self._drop(flight.connection)

    def close(self) -> None:
        """Close every connection."""
        self._drop_idle()
        for connection in tuple(self._taken):
            _end(connection)

    def _take(self, deadline: float) -> Any:
        if not self._places.acquire(timeout=seconds_until(deadline)):
            raise ExchangeFailed(RedisTimeoutError("every connection of the client is in use"), sent=False)
        connection: Any = None
        try:
            connection = self._pop_idle() or self._new()
            self._taken.add(connection)
            _make_ready(connection, deadline)
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, Exception):
                raise ExchangeFailed(error, sent=False) from error
            raise
        return connection

    def _new(self) -> Any:
        return self._maker.connection_class(**self._maker.connection_kwargs)

    def _give_back(self, connection: Any) -> None:
        self._taken.discard(connection)
        self._idle.append(connection)
        self._places.release()

    def _drop(self, connection: Any) -> None:
        try:
            if connection is not None:
                _end(connection)
        finally:
            self._taken.discard(connection)
            self._places.release()

    def _drop_idle(self) -> None:
        while (connection := self._pop_idle()) is not None:
            _end(connection)

    def _pop_idle(self) -> Any | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _make_ready(connection: Any, deadline: float) -> None:
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


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _end(connection: Any) -> None:
    try:
        connection.disconnect()
    except Exception:  # noqa: BLE001 - what is dead may refuse even to be closed, and is given up either way
        return
