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
from creditlane.producer.client.pending_replies import Inbox, ReplyDesk
from creditlane.producer.client.repeats import Repeats
from creditlane.schemas.journal import Announcement

NUMBER = 7
TICKET = Ticket("store_default", "cca_" + "0" * 32, "k", "1-0", "f", False, "producer", NUMBER)


class DeafListener:
    """Hears nothing."""

    def start(self) -> None: ...


def passed(desk: ReplyDesk[Any]) -> ReplyDesk[Any]:
    """Return the desk after the announcement of the ticket has come, and gone to another reader."""
    desk.subscribe(Inbox(lambda number: number == NUMBER, threading.Event()))
    desk.deliver([Announcement(NUMBER, None)])
    return desk


def test_an_interrupted_look_up_keeps_no_promise() -> None:
    class Interrupted:
        def decisions(self, _tickets: object, _seconds: float) -> None:
            raise KeyboardInterrupt

    desk = passed(ReplyDesk(Future))
    parts: Any = (None, Interrupted(), desk, DeafListener(), Keys("p"), Repeats(Clocks()), None)

    with pytest.raises(KeyboardInterrupt):
        Waiting(*parts).wait_again(TICKET, 10.0)

    assert desk._promises == {}


async def test_a_cancelled_look_up_keeps_no_promise() -> None:
    looking = asyncio.Event()

    class Silent:
        async def decisions(self, _tickets: object, _seconds: float) -> None:
            looking.set()
            await asyncio.Event().wait()

    desk = passed(ReplyDesk(asyncio.get_running_loop().create_future))
    parts: Any = (None, Silent(), desk, DeafListener(), Keys("p"), Repeats(Clocks()), None)
    waiting = asyncio.create_task(AsyncWaiting(*parts).wait_again(TICKET, 10.0))
    await looking.wait()

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert desk._promises == {}
