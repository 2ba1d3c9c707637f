"""API processes share which stores ask, through Redis and beside the requests."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from creditlane import Settings
from creditlane.lanes.keys import Keys
from creditlane.producer.api.middleware.active_stores import ActiveStores
from creditlane.producer.client._async.redis_connection import AsyncRedisWire

DEADLINE_SECONDS = 30.0


@pytest.fixture
async def wire(settings: Settings) -> AsyncIterator[AsyncRedisWire]:
    wire = AsyncRedisWire(settings.require_redis_url())
    yield wire
    await wire.close()


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings.redis_prefix)


async def until(asking: list[ActiveStores], wire: AsyncRedisWire, is_so: Callable[[], bool]) -> None:
    """Have the processes share what they know, while their stores go on asking, until it is so."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            for each in asking:
                each.keep_up(wire)
            await asyncio.sleep(0.01)


async def test_a_process_hears_of_the_stores_that_ask_another(wire: AsyncRedisWire, keys: Keys) -> None:
    """Given a store that asks one process, then another process knows that store a is not alone, and a process that
    nobody asks that b is alone once a has asked nobody for a while."""
    first, second = ActiveStores(keys), ActiveStores(keys)
    assert not second.others_active("store_a")

    def asks() -> bool:
        first.note("store_b")
        return second.others_active("store_a")

    await until([first, second], wire, asks)

    assert not second.others_active_here("store_a")
    assert not second.others_active("store_b")
    assert not first.others_active("store_b")
    await until([first, second], wire, lambda: not second.others_active("store_a"))


async def test_of_many_stores_the_last_two_are_remembered(wire: AsyncRedisWire, keys: Keys) -> None:
    many = [ActiveStores(keys) for _ in range(8)]
    reader = ActiveStores(keys)

    def ask() -> bool:
        for number, each in enumerate(many):
            each.note(f"store_{number}")
        return all(reader.others_active(f"store_{number}") for number in range(8))

    await until([*many, reader], wire, ask)

    standing = await wire.exchange([("GET", keys.asking)], deadline=asyncio.get_running_loop().time() + 1_000_000)
    assert len(bytes(standing[0]).splitlines()) <= 2


@pytest.mark.parametrize("kind", ["a list", "no lines of ours"])
async def test_whatever_stands_under_the_key_is_overwritten(wire: AsyncRedisWire, keys: Keys, kind: str) -> None:
    spoilt = ("RPUSH", keys.asking, "x") if kind == "a list" else ("SET", keys.asking, "store_c tomorrow\nx")
    await wire.exchange([spoilt], deadline=asyncio.get_running_loop().time() + 1_000_000)
    first, second = ActiveStores(keys), ActiveStores(keys)

    def asks() -> bool:
        first.note("store_b")
        return second.others_active("store_a")

    await until([first, second], wire, asks)
