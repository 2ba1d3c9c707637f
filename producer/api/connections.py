"""What one API process holds open: a pool for reading Postgres, and one session with Redis for all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import psycopg
from fastapi import FastAPI, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ...schemas.errors import NotMigrated, Unavailable
from ...schemas.settings import Settings
from ..async_session import AsyncSession
from ..postgres import CONNECT_TIMEOUT_SECONDS, IDLE_SECONDS, connection_options
from .known_accounts import KnownAccounts

#: Most connections to Postgres; requests that find all of them taken wait for one, as long as connecting may take.
MAX_CONNECTIONS = 16
#: Connections that are kept open, so that the first requests after a quiet time need not wait.
MIN_CONNECTIONS = 2
#: How long the pool tries to replace a lost connection before it pauses until the next request, in seconds.
RECONNECT_SECONDS = 30.0

Pool = AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]
Row = tuple[Any, ...]


class Connections:
    """Made inside the event loop that uses it, see `opened`."""

    def __init__(self, settings: Settings) -> None:
        url = settings.require_database_url()
        self.settings = settings
        self.known_accounts = KnownAccounts(self.read)
        #: Sends commands and hears their results, whichever store they are of: one reply stream a process.
        self.session = AsyncSession(settings)
        self.pool: Pool = AsyncConnectionPool(
            url,
            kwargs=connection_options(url),
            min_size=MIN_CONNECTIONS,
            max_size=MAX_CONNECTIONS,
            max_idle=IDLE_SECONDS,
            timeout=CONNECT_TIMEOUT_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            open=False,
            name="creditlane-api",
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls, app: FastAPI, settings: Settings) -> AsyncIterator[Self]:
        """Hold the connections open and show them to the requests as `app.state`. Starts also while servers are down.

        Raises:
            ConfigurationError: a URL is missing or wrong.
        """
        connections = cls(settings)
        await connections.pool.open(wait=False)
        try:
            app.state.connections = connections
            app.state.pool = connections.pool
            app.state.session = connections.session
            yield connections
        finally:
            await connections.session.close()
            await connections.pool.close()

    async def read(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        """Return the rows of a statement that only reads.

        Raises:
            NotMigrated: the database has no ledger.
            Unavailable: Postgres cannot be reached, or did not answer in time.
        """
        try:
            return await self._read(statement, values)
        except psycopg.errors.UndefinedTable as error:
            raise NotMigrated from error
        except (psycopg.errors.QueryCanceled, PoolTimeout) as error:
            raise Unavailable("Postgres does not answer in time; try again shortly") from error
        except psycopg.OperationalError:
            return await self._read_afresh(statement, values)

    async def _read(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall()

    async def _read_afresh(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        """Read once more, after every idle connection that a restart of Postgres has cut was thrown away."""
        try:
            await self.pool.check()
            return await self._read(statement, values)
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise Unavailable("Postgres cannot be read; try again shortly") from error


def connections_of(request: Request) -> Connections:
    """Return the connections of the process: a dependency of the operations."""
    connections: Connections = request.app.state.connections
    return connections
