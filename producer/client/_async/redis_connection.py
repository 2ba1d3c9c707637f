"""Talks to Redis, for the asyncio client: one write of several commands, one read of all their answers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ....lanes.backoff import growing_pauses
from ....lanes.deadlines import deadline_in, part_of, seconds_until
from ....schemas.redis_urls import readable_redis_url
from ..redis_exchange import (
    ANSWER_TIMEOUT_SECONDS,
    CLOSE_SECONDS,
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


class Flight(NamedTuple):
    """Commands that were written and whose answers have not been read."""

    connection: Any
    answers_due: int


class AsyncRedisWire:
    """Connections to one Redis, used by the tasks of one event loop. No wait of it depends on what the other side does.

    The library's connections are used, and not its pool, whose waits have one length for all callers.
    """

    def __init__(self, url: str) -> None:
        with readable_redis_url(url):
            # It reads the URL and knows how to make connections; redis-py is only partly typed.
            self._maker: Any = ConnectionPool.from_url(url, **connection_options(url))
            self._maker.connection_kwargs = options_of_connection(self._maker.connection_kwargs)
            # Connects to nothing, and says no to options that there are not.
            self._new()
        self._places = asyncio.BoundedSemaphore(MAX_CONNECTIONS)
        #: The one that was used last is taken first, so that the others may be closed for idleness.
        self._idle: deque[Any] = deque()
        self._taken: set[Any] = set()

    async def exchange(
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
                return await self.exchange_once(calls, part_of(deadline, ANSWER_TIMEOUT_SECONDS))
            except ExchangeFailed as error:
                if error.sent and on_silence is not None:
                    on_silence()
                error.sent = was_sent = was_sent or error.sent
                pause = next(pauses)
                if attempt == MAX_ATTEMPTS or time.monotonic() + pause >= give_up:
                    raise failure(error, changes_something=changes_something) from error
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def exchange_once(self, calls: Sequence[Call], deadline: float | None = None) -> list[Any]:
        """Send the commands at once and return their answers, or raise ExchangeFailed; by the deadline."""
        deadline = deadline_in(ANSWER_TIMEOUT_SECONDS) if deadline is None else deadline
        return await self.receive(await self.send(calls, deadline), deadline)

    async def send(self, calls: Sequence[Call], deadline: float) -> Flight:
        """Write the commands, on a connection that is now taken until `receive`, or raise ExchangeFailed."""
        connection, packed = await self._take(deadline), None
        try:
            packed = connection.pack_commands(calls)
            async with asyncio.timeout(seconds_until(deadline)):
                await connection.send_packed_command(packed)
        except BaseException as error:
            await self._drop(connection)
            if isinstance(error, Exception) and packed is not None:
                raise ExchangeFailed(error, sent=True) from error
            raise
        return Flight(connection, len(calls))

    async def receive(self, flight: Flight, deadline: float) -> list[Any]:
        """Read the answers to what was sent, or raise ExchangeFailed."""
        answers: list[Any] = []
        try:
            async with asyncio.timeout(seconds_until(deadline)):
                for _ in range(flight.answers_due):
                    answers.append(await _read(flight.connection))  # noqa: PERF401 - what was read before an error counts
        except BaseException as error:
            # Also when cancelled: an unread answer would be taken for that of the connection's next command.
            await self._drop(flight.connection)
            if isinstance(error, Exception):
                # A server that says no has not run the command.
                raise ExchangeFailed(error, sent=bool(answers) or not is_of_server(error)) from error
            raise
        if refusal := refusal_of_server(answers):
            await self._drop(flight.connection)
            # The others are of before the change as well; the next attempt must not take one of them.
            await self._drop_idle()
            raise refusal
        self._give_back(flight.connection)
        return answers

    async def abandon(self, flight: Flight) -> None:
        """Give up the answers to what was sent."""
        await self._drop(flight.connection)

    async def close(self) -> None:
        """Close every connection."""
        connections = [*self._idle, *self._taken]
        self._idle.clear()
        closing = [asyncio.ensure_future(connection.disconnect()) for connection in connections]
        if closing:
            # Until they are closed indeed, if that is soon: the event loop may end right after this.
            await asyncio.wait(closing, timeout=CLOSE_SECONDS)
        for task in closing:
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                # What is dead may refuse even to be closed.
                task.exception()

    async def _take(self, deadline: float) -> Any:
        try:
            async with asyncio.timeout(seconds_until(deadline)):
                await self._places.acquire()
        except TimeoutError:
            raise ExchangeFailed(RedisTimeoutError("every connection of the client is in use"), sent=False) from None
        connection: Any = None
        try:
            connection = self._idle.pop() if self._idle else self._new()
            self._taken.add(connection)
            async with asyncio.timeout(seconds_until(deadline)):
                await self._maker.ensure_connection(connection)
        except BaseException as error:
            await self._drop(connection)
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

    async def _drop(self, connection: Any) -> None:
        try:
            if connection is not None:
                await _end(connection)
        finally:
            self._taken.discard(connection)
            self._places.release()

    async def _drop_idle(self) -> None:
        while self._idle:
            await _end(self._idle.pop())


async def _read(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


async def _end(connection: Any) -> None:
    try:
        # Without waiting for the socket: this may run while the task is cancelled.
        await connection.disconnect(nowait=True)
    except Exception:  # noqa: BLE001 - what is dead may refuse even to be closed, and is given up either way
        return
