"""What a client does not read yet is kept in order: a little in memory, the rest in a file that is emptied again."""

import asyncio
import random

from creditlane.producer.api import response_spool as module
from creditlane.producer.api.response_spool import Spool, SpoolSpace


async def read_all(spool: Spool) -> bytes:
    parts = []
    while part := await spool.take():
        parts.append(part)
    return b"".join(parts)


async def test_what_is_put_comes_out_in_order_however_late_it_is_read() -> None:
    parts = [random.Random(number).randbytes(50_000) for number in range(100)]
    with Spool(SpoolSpace(2**60), "store_a") as spool:
        for part in parts:
            spool.put(part)
        spool.end()

        assert spool._memory_bytes <= module.MAX_MEMORY_BYTES
        assert await read_all(spool) == b"".join(parts)
        assert spool._file is not None
        assert spool._file.seek(0, 2) == 0


async def test_reading_and_writing_may_take_turns_in_any_way() -> None:
    numbers = random.Random(5)
    parts = [numbers.randbytes(numbers.randrange(1, 200_000)) for _ in range(200)]
    got = []
    with Spool(SpoolSpace(2**60), "store_a") as spool:
        for part in parts:
            spool.put(part)
            if numbers.random() < 0.6:
                got.append(await spool.take())
        spool.end()
        got.append(await read_all(spool))

    assert b"".join(got) == b"".join(parts)


async def test_a_store_has_so_much_room_in_all_its_spools_and_another_its_own() -> None:
    """Given spools that have as much as a store may have, then there is room again for it once something is read, or a
    spool is given up, and another store's has room all the while."""
    space = SpoolSpace(100)
    with Spool(space, "store_a") as first, Spool(space, "store_b") as other:
        with Spool(space, "store_a") as second:
            first.put(b"x" * 60)
            second.put(b"x" * 60)
            assert not await first.room(0.01)
            assert await other.room(0.01)

            waiting = asyncio.ensure_future(first.room(30))
            await asyncio.sleep(0)
            await second.take()
            assert await waiting

            second.put(b"x" * 60)
            waiting = asyncio.ensure_future(first.room(30))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await waiting
        await first.take()
    assert space._used == {}


async def test_a_reader_waits_for_what_comes_and_learns_of_the_end() -> None:
    with Spool(SpoolSpace(2**60), "store_a") as spool:
        reading = asyncio.ensure_future(read_all(spool))
        await asyncio.sleep(0)
        assert not reading.done()
        spool.put(b"late")
        await asyncio.sleep(0)
        spool.end()

        assert await reading == b"late"
