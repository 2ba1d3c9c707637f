"""Who asks: the key in `x-api-key` decides the store. `authenticated_store` is the dependency of every operation."""

from __future__ import annotations

import asyncio
from typing import Annotated, NamedTuple

import structlog
from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from ...schemas.errors import Unauthorized, Unavailable
from .connections import Connections
from .keys import FIND_KEYS, KeyRow, key_id_of, matching

API_KEY_HEADER = APIKeyHeader(
    name="x-api-key",
    auto_error=False,
    scheme_name="api_key",
    description="The key decides the store. `creditlane keys create` makes one.",
)

_log = structlog.get_logger(__name__)


class Store(NamedTuple):
    """The store that a request may see and change."""

    #: `store_…`
    public_id: str
    #: The number that stands for it in the tables.
    store_id: int
    #: The part of the request's key that is no secret.
    key_id: str


class KeyDesk:
    """Looks keys up in Postgres, afresh for every request: `app.state.key_desk`.

    One look-up is under way at a time. Requests that come meanwhile share the next one, so none is answered with what
    was read before it came, and a burst takes one connection.
    """

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[list[KeyRow] | None]] = {}
        self._rounds: asyncio.Task[None] | None = None

    async def find(self, connections: Connections, key_id: str) -> list[KeyRow]:
        """Return the keys of this id that work.

        Raises:
            Unavailable: Postgres cannot be asked.
        """
        answer = self._asked.setdefault(key_id, asyncio.get_running_loop().create_future())
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._serve(connections))
        # Other requests may wait for the same answer: this one's end is not theirs.
        rows = await asyncio.shield(answer)
        if rows is None:
            raise Unavailable
        return rows

    async def _serve(self, connections: Connections) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            found: list[KeyRow] | None = None
            try:
                found = [KeyRow._make(row) for row in await connections.read(FIND_KEYS, {"key_ids": list(asked)})]
            except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever
                _log.warning("keys cannot be looked up", error=str(error).strip())
            for key_id, answer in asked.items():
                answer.set_result(None if found is None else [row for row in found if row.key_id == key_id])


async def authenticated_store(request: Request, key: Annotated[str | None, Security(API_KEY_HEADER)]) -> Store:
    """Return the store of the request's key.

    The key is looked up in Postgres for every request, so that a revocation is effective at once.

    Raises:
        Unauthorized: there is no key, or it is none that works.
        RateLimited: the key makes too many requests.
        Unavailable: Postgres cannot be asked.
    """
    state = request.app.state
    if key is None or (key_id := key_id_of(key)) is None:
        raise Unauthorized
    row = matching(key, await state.key_desk.find(state.connections, key_id))
    if row is None:
        raise Unauthorized
    request.state.store = store = Store(row.public_id, row.store_id, row.key_id)
    state.limits.buckets.take(row.key_id)
    return store
