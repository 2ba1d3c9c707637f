"""Talks to Redis, for the asyncio client: one write of several commands, one read of all their answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
    failure,
    is_of_server,
    refusal_of_server,
)
from .concurrency import Slots, sleep
from .redis_socket import end, end_all, make_ready, maker_of, read_into, write


class InFlight(NamedTuple):
    """Commands that were written and whose answers have not been read."""

    connection: Any
    answers_due: int


class AsyncRedisWire:
    """Connections to one Redis, used by the tasks of one event loop. No wait of it depends on what the other side does.

    The library's connections are used, and not its pool, whose waits have one length for all callers.
    """

    def __init__(self, url: str) -> None:
        with readable_redis_url(url):
            self._maker = maker_of(url)
            # Connects to nothing, and says no to options that there are not.
            self._new()
        self._slots = Slots(MAX_CONNECTIONS)
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
            await sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def exchange_once(self, calls: Sequence[Call], deadline: float | None = None) -> list[Any]:
        """Send the commands at once and return their answers, or raise ExchangeFailed; by the deadline."""
        deadline = deadline_in(ANSWER_TIMEOUT_SECONDS) if deadline is None else deadline
        return await self.receive(await self.send(calls, deadline), deadline)

    async def send(self, calls: Sequence[Call], deadline: float) -> InFlight:
        """Write the commands, on a connection that is now taken until `receive`, or raise ExchangeFailed."""
        connection, packed = await self._take(deadline), None
        try:
            packed = connection.pack_commands(calls)
            await write(connection, packed, deadline)
        except BaseException as error:
            await self._drop(connection)
            if isinstance(error, Exception) and packed is not None:
                raise ExchangeFailed(error, sent=True) from error
            raise
        return InFlight(connection, len(calls))

    async def receive(self, in_flight: InFlight, deadline: float) -> list[Any]:
        """Read the answers to what was sent, or raise ExchangeFailed."""
        answers: list[Any] = []
        try:
            await read_into(answers, in_flight.answers_due, in_flight.connection, deadline)
        except BaseException as error:
            # Also when interrupted: an unread answer would be taken for that of the connection's next command.
            await self._drop(in_flight.connection)
            if isinstance(error, Exception):
                # A server that says no has not run the command.
                raise ExchangeFailed(error, sent=bool(answers) or not is_of_server(error)) from error
            raise
        if refusal := refusal_of_server(answers):
            await self._drop(in_flight.connection)
            # The others are of before the change as well; the next attempt must not take one of them.
            await self._drop_idle()
            raise refusal
        self._give_back(in_flight.connection)
        return answers

    async def abandon(self, in_flight: InFlight) -> None:
        """Give up the answers to what was sent."""
        await self._drop(in_flight.connection)

    async def close(self) -> None:
        """Close every connection."""
        connections = []
        while (connection := self._pop_idle()) is not None:
            connections.append(connection)
        await end_all((*connections, *tuple(self._taken)))

    async def _take(self, deadline: float) -> Any:
        if not await self._slots.take(seconds_until(deadline)):
            raise ExchangeFailed(RedisTimeoutError("every connection of the client is in use"), sent=False)
        connection: Any = None
        try:
            connection = self._pop_idle() or self._new()
            self._taken.add(connection)
            await make_ready(self._maker, connection, deadline)
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
        self._slots.give_back()

    async def _drop(self, connection: Any) -> None:
        try:
            if connection is not None:
                await end(connection)
        finally:
            self._taken.discard(connection)
            self._slots.give_back()

    async def _drop_idle(self) -> None:
        while (connection := self._pop_idle()) is not None:
            await end(connection)

    def _pop_idle(self) -> Any | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None
