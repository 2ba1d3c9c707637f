"""Who asks: the key in `x-api-key` decides the store, before anything else of the request is read.

`key_check` asks `authenticate` before the body is read; `authenticated_store` is how an operation learns of the store.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from ...schemas.errors import Unauthorized
from ..ledger.read_limits import read_until
from ..operations.api_keys import FIND_KEYS, KeyRow, key_id_of, matching
from .coalescing import CoalescedReads
from .connections import Connections
from .read_deadline import ReadDeadline

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


class KeyLookup:
    """Looks keys up in Postgres, afresh for every request, many at once: `app.state.key_lookup`."""

    def __init__(self) -> None:
        self._reads: CoalescedReads[str, list[KeyRow]] = CoalescedReads()

    async def find(self, connections: Connections, key_id: str, until: float) -> list[KeyRow]:
        """Return the keys of this id that work.

        Raises:
            Unavailable: Postgres cannot be asked, or does not answer by then.
        """

        async def read(key_ids: list[str]) -> dict[str, list[KeyRow]]:
            found: dict[str, list[KeyRow]] = {}
            for row in map(KeyRow._make, await connections.read(FIND_KEYS, {"key_ids": key_ids})):
                found.setdefault(row.key_id, []).append(row)
            return found

        return await self._reads.find(key_id, read, until) or []


async def authenticate(request: Request, key: str | None) -> None:
    """Let the request be its key's store's, or raise. `authenticated_store` gives the store.

    The key is looked up in Postgres for every request, so that a revocation is effective at once. What the request
    reads afterwards has the time that this leaves: `request.state.read_deadline`.

    Raises:
        Unauthorized: there is no key, or it is none that works.
        RateLimited: the store makes too many requests.
        Unavailable: Postgres cannot be asked.
    """
    state = request.app.state
    if key is None or (key_id := key_id_of(key)) is None:
        raise Unauthorized
    request.state.key_id = key_id
    request.state.read_deadline = read_deadline = ReadDeadline()
    with read_deadline.taken() as until:
        rows = await state.key_lookup.find(state.connections, key_id, until)
    row = matching(key, rows)
    if row is None:
        raise Unauthorized
    request.state.key_row = row
    request.state.store = Store(row.public_id, row.store_id, row.key_id)
    await state.limits.rate_limits.take(row.public_id, state.session.wire)


async def authenticated_store(request: Request, _shown: Annotated[str | None, Security(API_KEY_HEADER)]) -> Store:
    """Return the store whose key the request has shown; where none was asked for there is none, which is a defect."""
    store: Store = request.state.store
    return store


async def check_again(request: Request) -> None:
    """Let a request that has gone on for a while go on if its key works still.

    Raises:
        Unauthorized: it was revoked meanwhile.
        Unavailable: Postgres cannot be asked.
    """
    state, row = request.app.state, request.state.key_row
    if row not in await state.key_lookup.find(state.connections, row.key_id, read_until()):
        raise Unauthorized
