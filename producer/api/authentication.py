"""Who asks: the key in `x-api-key` decides the store. `authenticated_store` is the dependency of every operation."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import psycopg
from fastapi import Request, Security
from fastapi.security import APIKeyHeader
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ...schemas.errors import Unauthorized, Unavailable
from .keys import FIND_KEYS, KeyRow, key_id_of, matching

API_KEY_HEADER = APIKeyHeader(
    name="x-api-key",
    auto_error=False,
    scheme_name="api_key",
    description="The key decides the store. `creditlane keys create` makes one.",
)

Pool = AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]


class Store(NamedTuple):
    """The store that a request may see and change."""

    #: `store_…`
    public_id: str
    #: The number that stands for it in the tables.
    store_id: int
    #: The part of the request's key that is no secret.
    key_id: str


async def authenticated_store(request: Request, key: Annotated[str | None, Security(API_KEY_HEADER)]) -> Store:
    """Return the store of the request's key.

    The key is looked up in Postgres for every request, so that a revocation is effective at once.

    Raises:
        Unauthorized: there is no key, or it is none that works.
        Unavailable: Postgres cannot be asked.
    """
    if key is None or (key_id := key_id_of(key)) is None:
        raise Unauthorized
    row = matching(key, await _find(request.app.state.pool, [key_id]))
    if row is None:
        raise Unauthorized
    return Store(row.public_id, row.store_id, row.key_id)


async def _find(pool: Pool, key_ids: list[str]) -> list[KeyRow]:
    try:
        async with pool.connection() as connection:
            cursor = await connection.execute(FIND_KEYS, {"key_ids": key_ids})
            return [KeyRow._make(row) for row in await cursor.fetchall()]
    except (psycopg.Error, PoolTimeout) as error:
        raise Unavailable("Postgres cannot be read, so the key cannot be checked; try again shortly") from error
