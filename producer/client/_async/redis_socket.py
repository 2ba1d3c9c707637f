"""One connection to Redis whose every wait ends with a deadline, for the asyncio client.

Written by hand, as is its twin in `_sync`: redis-py's two kinds of connections are bounded in different ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ResponseError

from ....lanes.deadlines import seconds_until
from ....lanes.redis.connections import connection_options
from ..redis_exchange import ANSWER_TIMEOUT_SECONDS, CLOSE_SECONDS, options_of_connection


def maker_of(url: str) -> Any:
    """Return what has read the URL and knows how to make connections; redis-py is only partly typed."""
    maker: Any = ConnectionPool.from_url(url, **connection_options(url, answer_seconds=ANSWER_TIMEOUT_SECONDS))
    maker.connection_kwargs = options_of_connection(maker.connection_kwargs)
    return maker


async def make_ready(maker: Any, connection: Any, deadline: float) -> None:
    """Connect, unless it is connected and as quiet as a connection that nobody has asked anything."""
    async with asyncio.timeout(seconds_until(deadline)):
        await maker.ensure_connection(connection)


async def write(connection: Any, packed: Sequence[bytes], deadline: float) -> None:
    """Write what redis-py has made of commands."""
    async with asyncio.timeout(seconds_until(deadline)):
        await connection.send_packed_command(packed)


async def read_into(answers: list[Any], count: int, connection: Any, deadline: float) -> None:
    """Append so many answers, also those before an error; one with which Redis refuses a command is an answer."""
    async with asyncio.timeout(seconds_until(deadline)):
        for _ in range(count):
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)


async def end(connection: Any) -> None:
    """Close the connection."""
    try:
        # Without waiting for the socket: this may run while the task is cancelled.
        await connection.disconnect(nowait=True)
    except Exception:  # noqa: BLE001 - what is dead may refuse even to be closed, and is given up either way
        return


async def end_all(connections: Iterable[Any]) -> None:
    """Close the connections."""
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
