"""Who stops waiting for a result that has gone by leaves nothing behind."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from creditlane import Ticket
from creditlane.lanes.keys import Keys
from creditlane.producer.client._async.waiting import AsyncWaiting
from creditlane.producer.client._sync.waiting import Waiting
from creditlane.producer.client.clocks import Clocks
from creditlane.producer.client.pending_replies import Inbox, PendingReplies
from creditlane.producer.client.replays import Replays
from creditlane.schemas.journal import Announcement

NUMBER = 7
TICKET = Ticket("store_default", "cca_" + "0" * 32, "k", "1-0", "f", False, "producer", NUMBER)


class DeafListener:
    """Hears nothing."""

    def start(self) -> None: ...


def passed(pending: PendingReplies[Any]) -> PendingReplies[Any]:
    """Return the pending after the announcement of the ticket has come, and gone to another reader."""
    pending.subscribe(Inbox(lambda number: number == NUMBER, threading.Event()))
    pending.deliver([Announcement(NUMBER, None)])
    return pending


def test_an_interrupted_lookup_keeps_no_future() -> None:
    class Interrupted:
        def decisions(self, _tickets: object, _seconds: float) -> None:
            raise KeyboardInterrupt

    pending = passed(PendingReplies(Future))
    parts: Any = (None, Interrupted(), pending, DeafListener(), Keys("p"), Replays(Clocks()), None)

    with pytest.raises(KeyboardInterrupt):
        Waiting(*parts).wait_again(TICKET, 10.0)

    assert pending._futures == {}


async def test_a_cancelled_lookup_keeps_no_future() -> None:
    reading = asyncio.Event()

    class Silent:
        async def decisions(self, _tickets: object, _seconds: float) -> None:
            reading.set()
            await asyncio.Event().wait()

    pending = passed(PendingReplies(asyncio.get_running_loop().create_future))
    parts: Any = (None, Silent(), pending, DeafListener(), Keys("p"), Replays(Clocks()), None)
    waiting = asyncio.create_task(AsyncWaiting(*parts).wait_again(TICKET, 10.0))
    await reading.wait()

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert pending._futures == {}
