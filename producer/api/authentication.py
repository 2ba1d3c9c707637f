"""Who asks: the key in `x-api-key` decides the store. `authenticated_store` is the dependency of every operation."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from ...schemas.errors import Unauthorized
from .connections import Connections
from .keys import FIND_KEYS, KeyRow, key_id_of, matching
from .read_time import ReadTime
from .rounds import Rounds

API_KEY_HEADER = APIKeyHeader(
    name="x-api-key",
    auto_error=False,
    scheme_name="api_key",
    description="The key decides the store. `creditlane keys create` makes one.",
)


class Store(NamedTuple):
    """The store that a request may see and change."""

    #: `store_…`
    public_id: str
    #: The number that stands for it in the tables.
    store_id: int
    #: The part of the request's key that is no secret.
    key_id: str


class KeyDesk:
    """Looks keys up in Postgres, afresh for every request, in rounds: `app.state.key_desk`."""

    def __init__(self) -> None:
        self._rounds: Rounds[str, list[KeyRow]] = Rounds()

    async def find(self, connections: Connections, key_id: str, until: float) -> list[KeyRow]:
        """Return the keys of this id that work.

        Raises:
            Unavailable: Postgres cannot be asked, or does not answer by then.
        """

        async def look_up(key_ids: list[str]) -> dict[str, list[KeyRow]]:
            found: dict[str, list[KeyRow]] = {}
            for row in map(KeyRow._make, await connections.read(FIND_KEYS, {"key_ids": key_ids})):
                found.setdefault(row.key_id, []).append(row)
            return found

        return await self._rounds.find(key_id, look_up, until) or []


async def authenticated_store(request: Request, key: Annotated[str | None, Security(API_KEY_HEADER)]) -> Store:
    """Return the store of the request's key.

    The key is looked up in Postgres for every request, so that a revocation is effective at once. What the request
    reads afterwards has the time that this leaves: `request.state.read_time`.

    Raises:
        Unauthorized: there is no key, or it is none that works.
        RateLimited: the key makes too many requests.
        Unavailable: Postgres cannot be asked.
    """
    state = request.app.state
    if key is None or (key_id := key_id_of(key)) is None:
        raise Unauthorized
    request.state.read_time = read_time = ReadTime()
    with read_time.taken() as until:
        rows = await state.key_desk.find(state.connections, key_id, until)
    row = matching(key, rows)
    if row is None:
        raise Unauthorized
    request.state.store = store = Store(row.public_id, row.store_id, row.key_id)
    state.limits.buckets.take(row.key_id)
    return store
