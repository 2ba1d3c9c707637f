"""One read is shared by all who ask at the same time."""

import asyncio

import pytest

from creditlane.producer.api.read_once_for_many import SharedRead

WAITERS = 50


class Reading:
    """Counts the reads, which end when they are let."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return number


def test_all_who_ask_while_a_read_is_under_way_get_what_it_finds() -> None:
    async def ask() -> None:
        reading = Reading()
        read = SharedRead(reading)
        waiters = [asyncio.create_task(read.result()) for _ in range(WAITERS)]
        await asyncio.sleep(0)
        reading.may_end.set()
        assert await asyncio.gather(*waiters) == [1] * WAITERS
        assert await read.result() == 2

    asyncio.run(ask())


def test_what_was_found_is_good_for_a_while() -> None:
    async def ask() -> None:
        reading = Reading()
        reading.may_end.set()
        read = SharedRead(reading, good_seconds=60.0)
        assert [await read.result() for _ in range(3)] == [1, 1, 1]

    asyncio.run(ask())


def test_who_stops_waiting_ends_the_read_for_nobody_else() -> None:
    async def ask() -> None:
        reading = Reading()
        read = SharedRead(reading)
        gone, staying = asyncio.create_task(read.result()), asyncio.create_task(read.result())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        reading.may_end.set()
        assert await staying == 1

    asyncio.run(ask())


def test_a_read_that_failed_is_not_good_for_the_next() -> None:
    async def ask() -> None:
        reading = Reading()
        reading.may_end.set()
        reading.error = ValueError("why")
        read = SharedRead(reading, good_seconds=60.0)
        with pytest.raises(ValueError, match="why"):
            await read.result()
        reading.error = None
        assert await read.result() == 2

    asyncio.run(ask())


def test_closing_ends_the_read_that_is_under_way() -> None:
    async def ask() -> None:
        read = SharedRead(Reading())
        waiter = asyncio.create_task(read.result())
        await asyncio.sleep(0)
        await read.close()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    asyncio.run(ask())
