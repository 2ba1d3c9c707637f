"""Keys are read together, never with an answer that is older than the question."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from creditlane.producer.api.auth import KeyLookup
from creditlane.producer.api.connections import Connections
from creditlane.producer.operations.api_keys import KeyRow
from creditlane.schemas.errors import Unavailable

#: How long whoever asks waits, in seconds.
DEADLINE_SECONDS = 5.0

Row = tuple[str, bytes, str, int]


class Ledger:
    """Stands for Postgres: each read waits to be answered by the test."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self._questions: asyncio.Queue[None] = asyncio.Queue()
        self._answers: list[asyncio.Future[Callable[[], list[Row]]]] = []

    async def read(self, _statement: str, values: dict[str, Any]) -> list[Row]:
        self.asked.append(values["key_ids"])
        answer: asyncio.Future[Callable[[], list[Row]]] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._questions.put_nowait(None)
        return (await answer)()

    def answer(self, *key_ids: str) -> None:
        self._answers.pop(0).set_result(lambda: [(key_id, b"h", "store_a", 1) for key_id in key_ids])

    def fail(self, error: Exception) -> None:
        def raise_it() -> list[Row]:
            raise error

        self._answers.pop(0).set_result(raise_it)

    async def is_asked(self) -> None:
        """Wait for the next question."""
        async with asyncio.timeout(5):
            await self._questions.get()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def row_of(key_id: str) -> KeyRow:
    return KeyRow(key_id, b"h", "store_a", 1)


def until() -> float:
    return time.monotonic() + DEADLINE_SECONDS


async def test_who_comes_during_a_read_shares_the_next_one(ledger: Ledger) -> None:
    lookup, connections = KeyLookup(), cast("Connections", ledger)
    first = asyncio.create_task(lookup.find(connections, "a", until()))
    await ledger.is_asked()
    # The same key again: what is being read may be older than this question.
    later = [asyncio.create_task(lookup.find(connections, key_id, until())) for key_id in ("a", "b", "a", "c")]

    ledger.answer("a")
    assert await first == [row_of("a")]
    await ledger.is_asked()
    ledger.answer("b")

    assert await asyncio.gather(*later) == [[], [row_of("b")], [], []]
    assert ledger.asked == [["a"], ["a", "b", "c"]]


async def test_a_failure_is_answered_to_all_who_wait_and_to_nobody_after_them(ledger: Ledger) -> None:
    lookup, connections = KeyLookup(), cast("Connections", ledger)
    for error in (Unavailable(), RuntimeError("a defect")):
        waiting = [asyncio.create_task(lookup.find(connections, key_id, until())) for key_id in ("a", "b")]
        await ledger.is_asked()
        ledger.fail(error)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]

    after = asyncio.create_task(lookup.find(connections, "a", until()))
    await ledger.is_asked()
    ledger.answer("a")
    assert await after == [row_of("a")]


async def test_a_request_that_ends_takes_nobody_s_answer_away(ledger: Ledger) -> None:
    lookup, connections = KeyLookup(), cast("Connections", ledger)
    leaving, staying = (asyncio.create_task(lookup.find(connections, "a", until())) for _ in range(2))
    await ledger.is_asked()

    leaving.cancel()
    ledger.answer("a")

    assert await staying == [row_of("a")]
    assert leaving.cancelled()


async def test_who_comes_during_a_read_that_hangs_waits_no_longer_than_alone(ledger: Ledger) -> None:
    """Given a Postgres that is silent, then a request's time is counted from its own beginning."""
    lookup, connections = KeyLookup(), cast("Connections", ledger)
    first = asyncio.create_task(lookup.find(connections, "a", until()))
    await ledger.is_asked()

    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(Unavailable):
            await lookup.find(connections, "b", time.monotonic() + 0.05)

    ledger.answer("a")
    assert await first == [row_of("a")]
    await ledger.is_asked()
    ledger.answer("b")
