"""Talks to Redis, for the blocking client: one write of several commands, one read of all their answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.connection import BlockingConnectionPool
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .pauses import growing_pauses
from .wire import (
    MAX_ATTEMPTS,
    RETRY_PAUSES,
    RETRY_SECONDS,
    Call,
    ExchangeFailed,
    connection_options,
    failure,
    readable_url,
)


class Flight(NamedTuple):
    """Commands that were written and whose answers have not been read."""

    connection: Any
    answers_due: int


class RedisWire:
    """A pool of connections to one Redis, used by any number of threads."""

    def __init__(self, url: str) -> None:
        with readable_url():
            # redis-py is only partly typed.
            self._pool: Any = BlockingConnectionPool.from_url(url, **connection_options(url))

    def exchange(self, calls: Sequence[Call], *, changes_something: bool = False, was_sent: bool = False) -> list[Any]:
        """Send the commands at once and return their answers; an error that Redis answers is an answer.

        Tried again a few times on a fresh connection, so the commands must be safe to repeat. `was_sent`: they have
        been sent before, without an answer.

        Raises:
            Unavailable: no connection, or no answer to commands that change nothing.
            OutcomeUnknown: commands that change something were sent, and no attempt was answered.
        """
        pauses, give_up = growing_pauses(*RETRY_PAUSES), time.monotonic() + RETRY_SECONDS
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return self.exchange_once(calls)
            except ExchangeFailed as error:
                error.sent = was_sent = was_sent or error.sent
                if attempt == MAX_ATTEMPTS or time.monotonic() >= give_up:
                    raise failure(error, changes_something=changes_something) from error
            time.sleep(next(pauses))
        raise AssertionError("the last attempt returns or raises")

    def exchange_once(self, calls: Sequence[Call]) -> list[Any]:
        """Send the commands at once and return their answers, or raise ExchangeFailed."""
        return self.receive(self.send(calls))

    def send(self, calls: Sequence[Call]) -> Flight:
        """Write the commands, on a connection that is now taken until `receive`, or raise ExchangeFailed."""
        try:
            connection = self._pool.get_connection()
        except (RedisError, OSError) as error:
            raise ExchangeFailed(error, sent=False) from error
        try:
            connection.send_packed_command(connection.pack_commands(calls))
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
                raise ExchangeFailed(error, sent=True) from error
            raise
        return Flight(connection, len(calls))

    def receive(self, flight: Flight) -> list[Any]:
        """Read the answers to what was sent, or raise ExchangeFailed."""
        answers: list[Any] = []
        try:
            for _ in range(flight.answers_due):
                answers.append(_read(flight.connection))  # noqa: PERF401 - what was read before an error counts
        except BaseException as error:
            # Also when interrupted: an unread answer would be taken for that of the connection's next command.
            self._drop(flight.connection)
            if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
                # A Redis that is loading its file has not run the command.
                was_run = bool(answers) or not isinstance(error, BusyLoadingError)
                raise ExchangeFailed(error, sent=was_run) from error
            raise
        self._pool.release(flight.connection)
        return answers

    def close(self) -> None:
        """Close every connection."""
        self._pool.disconnect()

    def _drop(self, connection: Any) -> None:
        connection.disconnect()
        self._pool.release(connection)


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
