"""What one API process holds open: a pool for reading Postgres, and one session with Redis for all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from fastapi import FastAPI

from ...lanes.postgres.sessions import Row
from ...schemas.errors import Unavailable
from ...schemas.networks import network_rules
from ...schemas.settings import Settings
from ...schemas.webhook_secrets import secret_keys
from ..client._async.ledger_pool import AsyncLedgerPool
from ..ledger.read_limits import read_until
from ..ledger.watermark import Watermark
from .fair_session import FairSession
from .known_accounts import KnownAccounts
from .read_deadline import UNREAD

#: Most connections to Postgres; requests that find all of them taken wait for one, as long as a read may take.
MAX_CONNECTIONS = 16
#: Connections that are kept open, so that the first requests after a quiet time need not wait.
MIN_CONNECTIONS = 2
#: What the sessions are called in Postgres.
SESSION_NAME = "creditlane-api"


class Connections:
    """Made inside the event loop that uses it, see `opened`."""

    def __init__(self, settings: Settings) -> None:
        url = settings.require_database_url()
        self.settings = settings
        # A key that is none ends the start, and not the first request that needs it.
        secret_keys(settings)
        network_rules(settings)
        self.known_accounts: KnownAccounts = KnownAccounts(self.read)
        self.watermark: Watermark = Watermark()
        #: Sends commands and hears their results, whichever store they are of: one reply stream a process.
        self.session: FairSession = FairSession(settings)
        self.pool: AsyncLedgerPool = AsyncLedgerPool(
            url, min_size=MIN_CONNECTIONS, max_size=MAX_CONNECTIONS, name=SESSION_NAME
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls, app: FastAPI, settings: Settings) -> AsyncIterator[Self]:
        """Hold the connections open and show them to the requests as `app.state`. Starts also while servers are down.

        Raises:
            ConfigurationError: a URL is missing or wrong, or a setting of webhooks.
        """
        connections = cls(settings)
        await connections.pool.open()
        try:
            app.state.connections = connections
            app.state.session = connections.session
            yield connections
        finally:
            await connections.session.close()
            await connections.pool.close()

    async def read(self, statement: str, values: Mapping[str, Any], until: float | None = None) -> list[Row]:
        """Return the rows of a statement that only reads, by then, or within the time of one read.

        Raises:
            ConfigurationError: the database is none that can hold a ledger.
            NotMigrated: the database has no ledger.
            Unavailable: Postgres cannot be reached, or did not answer in time.
        """
        try:
            return await self.pool.rows(statement, values, read_until() if until is None else until)
        except Unavailable as error:
            raise Unavailable(UNREAD) from error
