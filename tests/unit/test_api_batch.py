"""Who sends lines and reads no answers is not let go on for ever, and takes no more room than its store may have."""

import asyncio
import json
from typing import Any

import pytest

from creditlane import Settings
from creditlane.lanes.keys import Keys
from creditlane.producer.api.auth import Store
from creditlane.producer.api.fair_session import FairSession
from creditlane.producer.api.middleware.active_stores import ActiveStores
from creditlane.producer.api.middleware.fair_batches import FairBatches
from creditlane.producer.api.middleware.request_limits import Limits
from creditlane.producer.api.response_spool import Spool, SpoolSpace
from creditlane.producer.api.routes.batch import WRONG_LINES, WRONG_PAUSE_SECONDS, BatchResponse, Intake

STORE = Store("store_a", 1, "key")
#: What the answers of a store may be, in bytes.
MOST_BYTES = 200_000
#: How long nothing may be read, in seconds.
SECONDS = 0.2


class Client:
    """Sends wrong lines without an end, and reads when it is let."""

    def __init__(self) -> None:
        self.sent = 0
        self.reads = asyncio.Event()
        self.got: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        self.sent += 500
        return {"type": "http.request", "body": b"x\n" * 500, "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await self.reads.wait()
            self.got.append(message["body"])


async def works() -> None:
    """The key is as it was."""


def response(space: SpoolSpace) -> BatchResponse:
    settings = Settings(api_body_seconds=SECONDS)
    # No line is a command, so nothing is sent to any lane.
    session = FairSession(Settings(redis_url="redis://127.0.0.1:1/0"))
    return BatchResponse(session, settings, STORE, 8, Spool(space, "store_a"), Limits(settings), works)


def fair_batches() -> FairBatches:
    return FairBatches(ActiveStores(Keys()))


async def answer(space: SpoolSpace, client: Client) -> None:
    async with asyncio.timeout(60):
        await response(space)({"type": "http"}, client.receive, client.send)  # type: ignore[arg-type]


async def test_who_never_reads_is_left_and_its_room_is_free_again() -> None:
    space, client = SpoolSpace(MOST_BYTES), Client()

    await answer(space, client)

    assert client.got == []
    # What stood in the spool at most, at a hundred bytes an answer, beside two parts.
    assert client.sent < MOST_BYTES / 100 + 6_000
    assert await Spool(space, "store_a").room(0)


async def test_who_reads_late_learns_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a client that reads only once nothing more is taken of it, then it gets an answer to every line that was
    taken, and to the next one that answers must be read."""
    space, client = SpoolSpace(MOST_BYTES), Client()
    room = Spool.room

    async def then_reads(spool: Spool, seconds: float) -> bool:
        has_room = await room(spool, seconds)
        if not has_room:
            client.reads.set()
        return has_room

    monkeypatch.setattr(Spool, "room", then_reads)

    await answer(space, client)

    answers = [json.loads(line) for line in b"".join(client.got).splitlines()]
    assert [each["line"] for each in answers] == list(range(1, len(answers) + 1))
    assert {each["error"]["code"] for each in answers[:-1]} == {"validation_error"}
    assert answers[-1]["error"]["code"] == "too_slow"


async def test_wrong_lines_leave_time_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a client that sends thousands of wrong lines at once, then there is a pause after every few of them, and
    whoever else has something to do is not kept from it until they are done."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    intake = Intake("store_a", 8, 10**9, fair_batches())
    parts = [
        {"type": "http.request", "body": b"x\n" * 1_000, "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    await intake.read(receive)  # type: ignore[arg-type]

    assert pauses.count(WRONG_PAUSE_SECONDS) == 1_000 // WRONG_LINES
