"""The asyncio client's listener ends when it is stopped, whatever becomes of its cancellation."""

import asyncio
from asyncio import Future
from collections.abc import Sequence
from typing import Any

from creditlane.producer.client._async.listener import AsyncListener
from creditlane.producer.client.pending_replies import PendingReplies
from creditlane.producer.client.redis_exchange import Call, ExchangeFailed
from creditlane.producer.client.reply_stream import ReplyStream
from creditlane.schemas.journal import Announcement

#: How long the listener may take to end, in seconds.
DEADLINE_SECONDS = 10.0


class DeafWire:
    """A Redis whose time-out comes just when the task is cancelled, as asyncio lets it happen."""

    def __init__(self) -> None:
        self.listening = asyncio.Event()
        self.calls: list[str] = []

    async def exchange_once(self, calls: Sequence[Call], deadline: float | None = None) -> list[Any]:  # noqa: ARG002
        name = str(calls[0][0])
        self.calls.append(name)
        if name == "XREAD":
            self.listening.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ExchangeFailed(TimeoutError("no answer"), sent=True) from None
        return [None]


async def test_a_listener_whose_cancellation_is_lost_ends_all_the_same() -> None:
    wire = DeafWire()
    pending: PendingReplies[Future[Announcement]] = PendingReplies(asyncio.get_running_loop().create_future)
    listener = AsyncListener(wire, ReplyStream("replies"), pending)  # type: ignore[arg-type]
    listener.start()
    await wire.listening.wait()

    async with asyncio.timeout(DEADLINE_SECONDS):
        await listener.stop()

    assert wire.calls == ["XREAD", "DEL"]
