"""What an API process takes on at most."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest

from creditlane import Settings
from creditlane.producer.api.middleware import token_buckets
from creditlane.producer.api.middleware.body_limits import STREAMED_PATH, BodyLimits
from creditlane.producer.api.middleware.request_limits import SharedSlots
from creditlane.producer.api.middleware.token_buckets import TokenBuckets
from creditlane.schemas.errors import RateLimited

from .moved_clock import MovedClock

Messages = list[dict[str, Any]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def test_a_name_may_burst_and_then_goes_at_its_rate() -> None:
    clock = MovedClock()
    buckets = TokenBuckets(2.0, 3, clock)
    assert [buckets.try_take("a") for _ in range(4)] == [0, 0, 0, 0.5]

    clock.now += 0.5
    assert [buckets.try_take("a") for _ in range(2)] == [0, 0.5]


def test_one_name_takes_nothing_from_another() -> None:
    buckets = TokenBuckets(1.0, 1, MovedClock())

    assert [buckets.try_take(name) for name in ("a", "b", "a")] == [0, 0, 1]


def test_buckets_that_are_full_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_buckets, "MAX_BUCKETS", 3)
    clock = MovedClock()
    buckets = TokenBuckets(1.0, 2, clock)
    for key in ("a", "b", "c"):
        buckets.try_take(key)
    clock.now += 1.5
    buckets.try_take("c")
    buckets.try_take("c")

    buckets.try_take("d")

    assert set(buckets._levels) == {"c", "d"}


def test_slots_to_wait_are_given_back() -> None:
    room = SharedSlots(1, "requests wait", "wait")
    with room.slot("a"), pytest.raises(RateLimited, match="nothing was accepted"), room.slot("a"):
        pass
    with pytest.raises(ValueError, match="x"), room.slot("a"):
        raise ValueError("x")

    with room.slot("a"):
        assert room._taken.total() == 1
    assert room._taken == {}


def test_however_much_a_store_waits_another_finds_a_slot() -> None:
    """Given a store with all the slots that it gets, then another gets one, and the first no more for it."""
    room = SharedSlots(100, "requests wait", "wait")
    with ExitStack() as waiting:
        for _ in range(75):
            waiting.enter_context(room.slot("a"))
        with pytest.raises(RateLimited, match="75 of the store"), room.slot("a"):
            pass
        for _ in range(15):
            waiting.enter_context(room.slot("b"))
        with pytest.raises(RateLimited), room.slot("a"):
            pass


class Echo:
    """An application that reads its body and says how it came."""

    def __init__(self) -> None:
        self.messages: Messages = []

    async def __call__(self, _scope: Any, receive: Receive, send: Any) -> None:
        while True:
            self.messages.append(await receive())
            if self.messages[-1]["type"] != "http.request" or not self.messages[-1].get("more_body", False):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def giving(*messages: dict[str, Any]) -> Receive:
    """Gives the messages and then nothing, for ever."""
    pending = list(messages)

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.Event().wait()
        return pending.pop(0)

    return receive


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def run(echo: Echo, receive: Receive, path: str = "/x", seconds: float = 5, **headers: str) -> Messages:
    settings = Settings(api_body_bytes=1_024, api_body_seconds=seconds)
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": pairs, "state": {"request_id": "req_1"}}
    answer: Messages = []

    async def send(message: Any) -> None:
        answer.append(message)

    await BodyLimits(echo, settings)(scope, receive, send)  # type: ignore[arg-type]
    return answer


def code_of(answer: Messages) -> tuple[int, str]:
    return answer[0]["status"], json.loads(answer[1]["body"])["error"]["code"]


async def test_a_body_comes_in_one_piece() -> None:
    echo = Echo()

    answer = await run(echo, giving(part(b"ab", more=True), part(b"c", more=False)), transfer_encoding="chunked")

    assert answer[0]["status"] == 200
    assert echo.messages == [part(b"abc", more=False)]


async def test_no_body_is_not_waited_for() -> None:
    echo = Echo()

    await run(echo, giving(part(b"", more=False)), content_length="0")

    assert echo.messages == [part(b"", more=False)]


async def test_what_announces_too_much_is_refused_unread() -> None:
    echo = Echo()

    answer = await run(echo, giving(), content_length="1025")

    assert code_of(answer) == (413, "too_large")
    assert echo.messages == []


async def test_what_turns_out_too_large_is_refused() -> None:
    echo = Echo()
    parts = [part(b"x" * 600, more=True)] * 2

    answer = await run(echo, giving(*parts), transfer_encoding="chunked")

    assert code_of(answer) == (413, "too_large")
    assert echo.messages == []


async def test_a_body_as_large_as_allowed_passes() -> None:
    echo = Echo()

    answer = await run(echo, giving(part(b"x" * 1_024, more=False)), content_length="1024")

    assert answer[0]["status"] == 200


async def test_a_body_that_does_not_come_ends_in_time() -> None:
    echo = Echo()

    answer = await run(echo, giving(part(b"x", more=True)), seconds=0.05, content_length="2")

    assert code_of(answer) == (408, "too_slow")
    assert echo.messages == []


async def test_a_client_that_leaves_is_not_answered() -> None:
    echo = Echo()

    answer = await run(echo, giving(part(b"x", more=True), {"type": "http.disconnect"}), content_length="2")

    assert (answer, echo.messages) == ([], [])


async def test_a_stream_is_passed_on_as_it_comes_however_large_it_is() -> None:
    echo = Echo()
    parts = [part(b"x" * 2_000, more=True), part(b"y", more=False)]

    await run(echo, giving(*parts), STREAMED_PATH, transfer_encoding="chunked")

    assert echo.messages == parts


async def test_a_stream_that_falls_silent_counts_as_left() -> None:
    echo = Echo()

    await run(echo, giving(part(b"x", more=True)), STREAMED_PATH, seconds=0.05, transfer_encoding="chunked")

    assert echo.messages == [part(b"x", more=True), {"type": "http.disconnect"}]
