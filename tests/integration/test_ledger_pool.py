"""A session with Postgres is not given out, and not spoilt, for who has no time left to use it."""

import time

import pytest

from creditlane import Unavailable
from creditlane.producer.client._async.ledger_pool import AsyncLedgerPool
from creditlane.producer.client._sync.ledger_pool import LedgerPool

WHO = "select pg_backend_pid()"
#: How long a read may take, in seconds.
SECONDS = 10.0


def test_a_read_without_any_time_leaves_the_session_to_others(database_url: str) -> None:
    pool = LedgerPool(database_url, max_size=1)
    pool.open()
    try:
        before = pool.rows(WHO, {}, time.monotonic() + SECONDS)
        with pytest.raises(Unavailable):
            pool.rows(WHO, {}, time.monotonic() - SECONDS)

        assert pool.rows(WHO, {}, time.monotonic() + SECONDS) == before
    finally:
        pool.close()


async def test_a_read_without_any_time_leaves_the_session_to_other_tasks(database_url: str) -> None:
    pool = AsyncLedgerPool(database_url, max_size=1)
    await pool.open()
    try:
        before = await pool.rows(WHO, {}, time.monotonic() + SECONDS)
        with pytest.raises(Unavailable):
            await pool.rows(WHO, {}, time.monotonic() - SECONDS)

        assert await pool.rows(WHO, {}, time.monotonic() + SECONDS) == before
    finally:
        await pool.close()
