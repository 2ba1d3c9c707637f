"""While other stores ask, the batches of a store go by short parts, one at a time, and rest between them."""

import asyncio
import contextlib
from typing import Any, cast

import pytest

from creditlane.lanes.keys import Keys
from creditlane.producer.api.middleware import fair_batches
from creditlane.producer.api.middleware.active_stores import ACTIVE_SECONDS, ActiveStores
from creditlane.producer.api.middleware.fair_batches import ALONE, BESIDE_OTHERS, FairBatches
from creditlane.schemas.errors import Unavailable

from .moved_clock import MovedClock


class NoWire:
    """Redis is away."""

    async def exchange(self, *_arguments: Any, **_options: Any) -> list[Any]:
        raise Unavailable


WIRE = cast("Any", NoWire())


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests that were taken. A turn takes seven seconds, by the clock of the turns."""
    rests: list[float] = []
    sleep = asyncio.sleep
    moments = iter(range(0, 10_000, 7))

    async def noted(seconds: float) -> None:
        if seconds:
            rests.append(seconds)
        await sleep(0)

    monkeypatch.setattr(fair_batches.asyncio, "sleep", noted)
    monkeypatch.setattr(fair_batches.time, "perf_counter", lambda: float(next(moments)))
    return rests


async def most_at_once(turns: FairBatches, stores: list[str]) -> int:
    """Send a part of each of these at the same time; return how many were on their way at once."""
    at_work = most = 0

    async def send(store: str) -> None:
        nonlocal at_work, most
        async with turns.turn(store, WIRE):
            at_work += 1
            most = max(most, at_work)
            for _ in range(5):
                await asyncio.sleep(0)
            at_work -= 1

    await asyncio.gather(*map(send, stores))
    return most


async def test_a_store_that_asks_alone_sends_as_much_as_it_can(rests: list[float]) -> None:
    asking = ActiveStores(Keys())
    turns = FairBatches(asking)
    asking.note("a")

    assert turns.part_size("a") == ALONE
    assert await most_at_once(turns, ["a"] * 5) == 5
    assert rests == []


async def test_beside_others_a_store_has_one_short_part_at_a_time_and_rests_after_it(
    rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_batches, "MOST_REST_SECONDS", 60.0)
    asking = ActiveStores(Keys())
    turns = FairBatches(asking)
    asking.note("b")

    assert turns.part_size("a") == BESIDE_OTHERS
    assert await most_at_once(turns, ["a"] * 5) == 1
    assert rests == [7.0] * 5
    assert await most_at_once(turns, ["a", "c", "d"]) == 3


@pytest.mark.usefixtures("rests")
async def test_who_comes_again_while_others_wait_waits_as_well() -> None:
    """Given batches that each have part after part, then never more than one part is on its way."""
    asking = ActiveStores(Keys())
    turns = FairBatches(asking)
    asking.note("b")
    at_work = most = 0

    async def stream() -> None:
        nonlocal at_work, most
        for _ in range(5):
            async with turns.turn("a", WIRE):
                at_work += 1
                most = max(most, at_work)
                await asyncio.sleep(0)
                at_work -= 1

    await asyncio.gather(*(stream() for _ in range(4)))

    assert most == 1


async def test_a_rest_is_never_long(rests: list[float]) -> None:
    """Given a part that waited long for room on a lane, then its store rests no longer for it."""
    asking = ActiveStores(Keys())
    asking.note("b")

    await most_at_once(FairBatches(asking), ["a"])

    assert rests == [fair_batches.MOST_REST_SECONDS]


@pytest.mark.usefixtures("rests")
async def test_after_a_while_without_others_it_sends_as_much_as_it_can_again() -> None:
    clock = MovedClock()
    asking = ActiveStores(Keys(), clock)
    turns = FairBatches(asking)
    asking.note("b")
    clock.now += ACTIVE_SECONDS + 1

    assert turns.part_size("a") == ALONE
    assert await most_at_once(turns, ["a"] * 5) == 5


@pytest.mark.usefixtures("rests")
async def test_a_turn_that_fails_is_the_next_ones() -> None:
    asking = ActiveStores(Keys())
    turns = FairBatches(asking)
    asking.note("b")

    with contextlib.suppress(Unavailable):
        async with turns.turn("a", WIRE):
            raise Unavailable

    async with asyncio.timeout(30):
        assert await most_at_once(turns, ["a", "a"]) == 1


@pytest.mark.usefixtures("rests")
async def test_a_part_that_waits_for_room_leaves_its_turn_to_the_next() -> None:
    """Given a part that finds no room on its lane, then another of the store is sent while it waits, and it goes on
    when nobody has the turn: again one at a time, the one that came later first."""
    asking = ActiveStores(Keys())
    turns = FairBatches(asking)
    asking.note("b")
    full, sent, order = asyncio.Event(), asyncio.Event(), list[str]()

    async def without_room() -> None:
        async with turns.turn("a", WIRE) as pause:
            full.set()
            while not sent.is_set():
                await pause(0.001)
            order.append("first")

    async def with_room() -> None:
        await full.wait()
        async with turns.turn("a", WIRE):
            sent.set()
            for _ in range(20):
                await asyncio.sleep(0)
            order.append("second")

    async with asyncio.timeout(30):
        await asyncio.gather(without_room(), with_room())

    assert order == ["second", "first"]


async def test_a_part_rests_before_it_waits_for_room_and_counts_no_waiting(
    rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given parts that are refused again and again, then each attempt is followed by a rest as long as it took: many
    batches on a full lane are no more work for the process than others."""
    monkeypatch.setattr(fair_batches, "MOST_REST_SECONDS", 60.0)
    asking = ActiveStores(Keys())
    asking.note("b")

    async with FairBatches(asking).turn("a", WIRE) as pause:
        await pause(1.0)
        await pause(2.0)

    assert rests == [7.0, 1.0, 7.0, 2.0, 7.0]


@pytest.mark.usefixtures("rests")
async def test_who_ends_while_it_waits_for_room_takes_no_turn_of_others() -> None:
    """Given a client that leaves while its part waits for room and another part has the turn, then the turn stays
    that one's: a third is not sent beside it."""
    asking = ActiveStores(Keys())
    turns = FairBatches(asking)
    asking.note("b")
    waits = asyncio.Event()

    async def without_room() -> None:
        async with turns.turn("a", WIRE) as pause:
            waits.set()
            while True:
                await pause(0.001)

    async def second() -> None:
        async with turns.turn("a", WIRE):
            leaving.cancel()
            await asyncio.wait((leaving,))
            third = asyncio.create_task(most_at_once(turns, ["a"]))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not third.done()
        await third

    leaving = asyncio.create_task(without_room())
    await waits.wait()
    async with asyncio.timeout(30):
        await second()

    assert turns._locks._locks == {}
