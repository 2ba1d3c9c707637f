"""A pool of sessions with Postgres in which every wait has an end, for the asyncio client.

Importing this imports the driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ....lanes.deadlines import seconds_until
from ....lanes.postgres.errors import no_session, translated, was_cut
from ....lanes.postgres.sessions import AsyncPostgresSession, Attempts, Row, session_options
from ....schemas.errors import OutcomeUnknown
from ...ledger.read_limits import IDLE_SECONDS, SESSION_NAME
from ..ledger_sessions import (
    ASK_AGAIN_SECONDS,
    COMMIT_UNANSWERED,
    POOL_WORKERS,
    RECONNECT_SECONDS,
    STOP_SECONDS,
    read_limits,
)
from .concurrency import Lock, abandon, call_apart


class AsyncLedgerPool:
    """Sessions that are made when they are needed, and thrown away when Postgres does not answer in time.

    Any number of tasks may use it. Deadlines are moments on the clock of `time.monotonic`. Every method raises
    Unavailable when Postgres does not answer by then or cannot be reached, NotMigrated when it has no ledger, and
    ConfigurationError when it is none that can hold one.
    """

    def __init__(self, url: str, *, max_size: int, min_size: int = 0, name: str = SESSION_NAME) -> None:
        self._making = Attempts()
        self._attempts = max_size
        self._opening = Lock()
        self._pool: AsyncConnectionPool[AsyncPostgresSession] = AsyncConnectionPool(
            url,
            connection_class=AsyncPostgresSession,
            kwargs={
                **session_options(url, name),
                "autocommit": True,
                "limits": read_limits(),
                "attempts": self._making,
            },
            min_size=min_size,
            max_size=max_size,
            max_idle=IDLE_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            num_workers=POOL_WORKERS,
            open=False,
            name=name,
        )

    async def open(self) -> None:
        """Make the connections that are always kept; of a pool that is open, nothing. Needed before anything else."""
        if self._pool.closed:
            async with self._translated(), self._opening:
                # What it starts makes connections for everybody.
                await call_apart(self._pool.open, wait=False)

    async def rows(self, statement: str, values: Mapping[str, Any], until: float) -> list[Row]:
        """Return the rows of a statement that only reads."""
        async with self._translated():
            # Each session that a restart of Postgres has cut is found out by a read, which is tried with the next one.
            for _ in range(self._attempts):
                async with self._session(until) as session:
                    try:
                        cursor = await session.execute(statement, values)
                        return await cursor.fetchall()
                    except psycopg.OperationalError as error:
                        if not was_cut(session, error):
                            raise
            async with self._session(until) as session:
                cursor = await session.execute(statement, values)
                return await cursor.fetchall()

    @asynccontextmanager
    async def transaction(self, until: float) -> AsyncIterator[AsyncPostgresSession]:
        """Give a session within a transaction that may write; it is committed at the end.

        Raises:
            OutcomeUnknown: Postgres did not answer to the commit.
        """
        is_done = False
        async with self._translated(), self._live_session(until) as session:
            await session.set_read_only(None)
            try:
                async with session.transaction():
                    yield session
                    is_done = True
            except psycopg.OperationalError as error:
                if is_done and session.closed:
                    raise OutcomeUnknown(COMMIT_UNANSWERED) from error
                raise

    async def close(self) -> None:
        """Close every connection; those that are being made are not waited for."""
        await self._pool.close(timeout=STOP_SECONDS)
        await abandon(self._making.under_way)

    @asynccontextmanager
    async def _session(self, until: float) -> AsyncIterator[AsyncPostgresSession]:
        session = await self._taken(until)
        # Set anew for each use: also what the pool itself asks of it afterwards has an end.
        session.deadline = until
        try:
            yield session
        finally:
            await self._pool.putconn(session)

    async def _taken(self, until: float) -> AsyncPostgresSession:
        while seconds_until(until) > ASK_AGAIN_SECONDS:
            try:
                return await self._pool.getconn(timeout=ASK_AGAIN_SECONDS)
            except PoolTimeout:
                if self._making.error is None:
                    # All of them are in use: whoever asks again goes to the end of the queue.
                    break
        return await self._pool.getconn(timeout=seconds_until(until))

    @asynccontextmanager
    async def _live_session(self, until: float) -> AsyncIterator[AsyncPostgresSession]:
        """Give a session that has just answered: what may write is not tried again with another one."""
        for _ in range(self._attempts):
            async with self._session(until) as session:
                if await self._answers(session):
                    yield session
                    return
        async with self._session(until) as session:
            yield session

    async def _answers(self, session: AsyncPostgresSession) -> bool:
        try:
            await session.execute("select")
        except psycopg.OperationalError as error:
            if not was_cut(session, error):
                raise
            return False
        return True

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Raise what goes wrong in the words of the ledger."""
        with translated("client", "api", only_reads=True):
            try:
                yield
            except PoolTimeout as error:
                raise no_session(self._making) from error
