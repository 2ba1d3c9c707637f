"""What goes on in the background logs nothing in the name of the request that began it."""

import asyncio
import logging
from asyncio import Future
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from creditlane.producer.api.coalescing import CoalescedReads
from creditlane.producer.api.read_once_for_many import SharedRead
from creditlane.producer.client._async.ledger_pool import AsyncLedgerPool
from creditlane.producer.client._async.listener import AsyncListener
from creditlane.producer.client.pending_replies import PendingReplies
from creditlane.producer.client.redis_exchange import Call
from creditlane.producer.client.reply_stream import ReplyStream
from creditlane.schemas.journal import Announcement

#: How long anything may take, in seconds.
DEADLINE_SECONDS = 10.0


class Seen:
    """What a line would have been given at each point that was passed, as the request's id is."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []
        self.is_there = asyncio.Event()

    def note(self) -> None:
        self.contexts.append(get_contextvars())
        self.is_there.set()


@pytest.fixture(autouse=True)
def _request() -> Iterator[None]:
    with bound_contextvars(request_id="req_7"):
        yield


async def test_a_read_for_all_is_nobody_s() -> None:
    seen = Seen()

    async def read(asked: list[str]) -> dict[str, str]:
        seen.note()
        return dict.fromkeys(asked, "found")

    found = await CoalescedReads[str, str]().find("a", read, asyncio.get_running_loop().time() + DEADLINE_SECONDS)

    assert (found, seen.contexts) == ("found", [{}])


async def test_a_check_of_the_servers_is_nobody_s() -> None:
    async def check() -> dict[str, Any]:
        return get_contextvars()

    assert await SharedRead(check).result() == {}


async def test_listening_is_nobody_s() -> None:
    seen = Seen()

    class Wire:
        async def exchange_once(self, calls: Sequence[Call], deadline: float | None = None) -> list[Any]:  # noqa: ARG002
            if calls[0][0] == "XREAD":
                seen.note()
                await asyncio.Event().wait()
            return [None]

    pending: PendingReplies[Future[Announcement]] = PendingReplies(asyncio.get_running_loop().create_future)
    listener = AsyncListener(Wire(), ReplyStream("replies"), pending)  # type: ignore[arg-type]
    listener.start()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await seen.is_there.wait()
        await listener.stop()

    assert seen.contexts == [{}]


async def test_making_connections_is_nobody_s() -> None:
    """Given a pool that a request opens, when Postgres is away, then that is not logged as the request's."""
    seen = Seen()

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "error connecting" in record.getMessage():
                seen.note()

    handler, logger = Noting(), logging.getLogger("psycopg.pool")
    logger.addHandler(handler)
    pool = AsyncLedgerPool("postgresql://127.0.0.1:1/nowhere", max_size=1, min_size=1)
    try:
        await pool.open()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await seen.is_there.wait()
    finally:
        logger.removeHandler(handler)
        await pool.close()

    assert seen.contexts[0] == {}
