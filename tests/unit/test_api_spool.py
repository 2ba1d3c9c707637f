"""What a client does not read yet is kept in order: a little in memory, the rest in a file that is emptied again."""

import asyncio
import random

from creditlane.producer.api import spool as module
from creditlane.producer.api.spool import Spool


async def read_all(spool: Spool) -> bytes:
    parts = []
    while part := await spool.take():
        parts.append(part)
    return b"".join(parts)


async def test_what_is_put_comes_out_in_order_however_late_it_is_read() -> None:
    parts = [random.Random(number).randbytes(50_000) for number in range(100)]
    with Spool() as spool:
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
    with Spool() as spool:
        for part in parts:
            spool.put(part)
            if numbers.random() < 0.6:
                got.append(await spool.take())
        spool.end()
        got.append(await read_all(spool))

    assert b"".join(got) == b"".join(parts)


async def test_a_reader_waits_for_what_comes_and_learns_of_the_end() -> None:
    with Spool() as spool:
        reading = asyncio.ensure_future(read_all(spool))
        await asyncio.sleep(0)
        assert not reading.done()
        spool.put(b"late")
        await asyncio.sleep(0)
        spool.end()

        assert await reading == b"late"
