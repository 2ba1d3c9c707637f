"""While several stores ask, a few requests of each are worked on at a time, and none is held up for long."""

import asyncio

import pytest

from creditlane.lanes.keys import Keys
from creditlane.producer.api.middleware import fair_requests
from creditlane.producer.api.middleware.active_stores import ACTIVE_SECONDS, ActiveStores
from creditlane.producer.api.middleware.fair_requests import MOST_AT_WORK, FairRequests

from .moved_clock import MovedClock

#: Long enough that nothing goes on by itself while a test runs.
LONG_SECONDS = 600.0
#: Requests of both stores where none is held up.
ALL = 11


@pytest.fixture(autouse=True)
def long_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_requests, "MOST_DELAY_SECONDS", LONG_SECONDS)


class Requests:
    """Requests that are worked on until they are ended."""

    def __init__(self, turns: FairRequests) -> None:
        self._turns = turns
        self._tasks: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.Event] = []
        self.at_work: list[str] = []
        self.all_at_work = asyncio.Event()

    async def come(self, store: str, count: int) -> None:
        for _ in range(count):
            end = asyncio.Event()
            self._ends.append(end)
            self._tasks.append(asyncio.create_task(self._work(store, end)))
        await settle()

    async def end(self, position: int) -> None:
        self._ends[position].set()
        await settle()

    async def leave(self, position: int) -> None:
        self._tasks[position].cancel()
        await settle()

    async def end_all(self) -> None:
        for end in self._ends:
            end.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, store: str, end: asyncio.Event) -> None:
        async with self._turns.turn(store):
            self.at_work.append(store)
            if len(self.at_work) == ALL:
                self.all_at_work.set()
            await end.wait()
            self.at_work.remove(store)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_store_that_asks_alone_is_not_held_up() -> None:
    requests = Requests(FairRequests(ActiveStores(Keys())))

    await requests.come("a", 20)

    assert requests.at_work == ["a"] * 20
    await requests.end_all()


async def test_of_each_of_several_stores_a_few_are_worked_on_and_the_next_when_one_ends() -> None:
    requests = Requests(FairRequests(ActiveStores(Keys())))
    await requests.come("b", 1)

    await requests.come("a", 10)
    await requests.come("b", 1)
    assert sorted(requests.at_work) == ["a"] * MOST_AT_WORK + ["b"] * 2

    await requests.end(1)
    assert sorted(requests.at_work) == ["a"] * MOST_AT_WORK + ["b"] * 2
    await requests.end_all()
    assert requests.at_work == []


async def test_who_left_while_it_waited_takes_no_turn() -> None:
    requests = Requests(FairRequests(ActiveStores(Keys())))
    await requests.come("b", 1)
    await requests.come("a", MOST_AT_WORK + 2)

    await requests.leave(MOST_AT_WORK + 1)
    await requests.end(1)

    assert sorted(requests.at_work) == ["a"] * MOST_AT_WORK + ["b"]
    await requests.end_all()


async def test_after_a_while_without_another_store_nothing_is_held_up() -> None:
    clock = MovedClock()
    requests = Requests(FairRequests(ActiveStores(Keys(), clock)))
    await requests.come("b", 1)
    clock.now += ACTIVE_SECONDS + 1

    await requests.come("a", 10)

    assert len(requests.at_work) == ALL
    await requests.end_all()


async def test_what_only_waits_leaves_its_turn_to_others() -> None:
    turns = FairRequests(ActiveStores(Keys()))
    requests = Requests(turns)
    await requests.come("b", 1)
    await requests.come("a", MOST_AT_WORK + 1)

    with turns.left("a"):
        await settle()
        assert sorted(requests.at_work) == ["a"] * (MOST_AT_WORK + 1) + ["b"]

    await requests.end_all()


async def test_nobody_is_held_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_requests, "MOST_DELAY_SECONDS", 0.01)
    requests = Requests(FairRequests(ActiveStores(Keys())))
    await requests.come("b", 1)

    await requests.come("a", 10)
    async with asyncio.timeout(20):
        await requests.all_at_work.wait()

    assert len(requests.at_work) == ALL
    await requests.end_all()
