"""What each client waits with, by hand, does the same in both: waits end, slots are given back, work begins once."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from creditlane.producer.client._async import concurrency as asynchronous
from creditlane.producer.client._sync import concurrency as blocking

#: How long anything may take that happens, in seconds.
DEADLINE_SECONDS = 30.0
#: How long nothing is waited for in vain, in seconds.
SHORT_SECONDS = 0.02

both = pytest.mark.parametrize("kind", [blocking, asynchronous], ids=["blocking", "asyncio"])


async def value_of(result: Any) -> Any:
    """Return the result of a call of either kind."""
    return await result if inspect.isawaitable(result) else result


@both
async def test_a_future_is_waited_for_as_long_as_was_said(kind: Any) -> None:
    empty, full = kind.new_future(), kind.new_future()
    full.set_result("announced")

    assert await value_of(kind.outcome_within(empty, SHORT_SECONDS)) is None
    assert await value_of(kind.outcome_within(full, 0.0)) == "announced"
    # It is as it was, for who waits for it again
    assert not empty.done()


@both
async def test_an_event_is_waited_for_as_long_as_was_said(kind: Any) -> None:
    event = kind.Event()

    await value_of(kind.wait_for_event(event, SHORT_SECONDS))
    event.set()
    await value_of(kind.wait_for_event(event, DEADLINE_SECONDS))

    assert event.is_set()


@both
async def test_who_finds_no_slot_goes_without_one(kind: Any) -> None:
    slots = kind.Slots(2)

    taken = [await value_of(slots.take(seconds)) for seconds in (0.0, DEADLINE_SECONDS, 0.0, SHORT_SECONDS)]
    slots.give_back()

    assert taken == [True, True, False, False]
    assert await value_of(slots.take(0.0))


async def test_who_waits_for_a_slot_gets_the_one_that_is_given_back() -> None:
    slots = asynchronous.Slots(1)
    await slots.take(0.0)
    waiting = asyncio.create_task(slots.take(DEADLINE_SECONDS))
    await asyncio.sleep(0)

    slots.give_back()

    assert await waiting


def test_a_thread_that_waits_for_a_slot_gets_the_one_that_is_given_back() -> None:
    slots, taken = blocking.Slots(1), []
    slots.take(0.0)
    waiting = threading.Thread(target=lambda: taken.append(slots.take(DEADLINE_SECONDS)))
    waiting.start()

    slots.give_back()
    waiting.join(DEADLINE_SECONDS)

    assert taken == [True]


async def test_a_task_in_the_background_is_begun_once_and_cancelled() -> None:
    begun, task = asyncio.Event(), asynchronous.BackgroundTask("test")
    runs = []

    async def work() -> None:
        runs.append("begun")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            runs.append("ended")

    async def wake() -> None:
        raise AssertionError("a task needs no waking")

    task.begin(work)
    task.begin(work)
    await asyncio.wait_for(begun.wait(), DEADLINE_SECONDS)

    assert await task.stop(wake, DEADLINE_SECONDS)
    assert runs == ["begun", "ended"]


def test_a_thread_in_the_background_is_begun_once_and_woken() -> None:
    woken, thread = threading.Event(), blocking.BackgroundTask("test")
    runs = []

    def work() -> None:
        runs.append(threading.current_thread())
        woken.wait(DEADLINE_SECONDS)
        # Does not last: the work was stopped
        thread.pause(DEADLINE_SECONDS)

    thread.begin(work)
    thread.begin(work)

    assert thread.stop(woken.set, DEADLINE_SECONDS)
    assert [(run.daemon, run.is_alive()) for run in runs] == [(True, False)]


@both
async def test_what_was_not_begun_is_not_waited_for(kind: Any) -> None:
    task = kind.BackgroundTask("test")

    assert not await value_of(task.stop(lambda: None, DEADLINE_SECONDS))
    assert task.is_stopping


def test_each_event_loop_has_a_value_of_its_own() -> None:
    scoped = asynchronous.Scoped(object)

    async def twice() -> tuple[object, object]:
        return scoped.get(), scoped.get()

    async def taken() -> tuple[object, object | None, object | None]:
        return scoped.get(), scoped.take(), scoped.take()

    first, again = asyncio.run(twice())
    other, given, none = asyncio.run(taken())

    assert first is again
    assert other is not first
    assert (given, none) == (other, None)
    # What belongs to a loop that has ended is not given to the next one
    asyncio.run(twice())
    assert asyncio.run(value_of_call(scoped.take)) is None


async def value_of_call(function: Callable[[], Any]) -> Any:
    return function()


def test_each_process_has_a_value_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scoped = blocking.Scoped(object)
    parents = scoped.get()
    assert scoped.get() is parents

    # When the process is a forked child
    monkeypatch.setattr(blocking, "os", SimpleNamespace(getpid=lambda: 1))
    childs = scoped.get()

    # Then it takes its own, and its parent's is left alone
    assert childs is not parents
    assert scoped.take() is childs
    assert scoped.take() is None
    monkeypatch.undo()
    assert scoped.take() is parents


def test_threads_that_come_together_get_the_same_value() -> None:
    gate, got = threading.Barrier(8), []
    scoped = blocking.Scoped(object)

    def get() -> None:
        gate.wait(DEADLINE_SECONDS)
        got.append(scoped.get())

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert len(got) == 8
    assert len(set(map(id, got))) == 1
