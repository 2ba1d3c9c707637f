"""What operations ask the framework for: the store of the request, its reads and its writes, by `Annotated` types.

All of them are asynchronous, or each would take a thread of a pool for every request.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Request

from ..client._async.webhooks import AsyncWebhooks
from .auth import Store, authenticated_store
from .connections import Connections
from .idempotency_header import KeyHeader, key_of_header
from .models.ledger import DRY_RUN_TEXT
from .reads import Reads
from .writes import Writes

#: The store whose key the request has shown.
RequestStore = Annotated[Store, Depends(authenticated_store)]

PreferHeader = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`respond-async`: answer 202 as soon as the command is durably accepted, without its result.",
        examples=["respond-async"],
    ),
]


async def _reads(request: Request, store: RequestStore) -> Reads:
    return Reads(request.app.state.connections, store, request.state.read_deadline)


async def _writes(
    request: Request, store: RequestStore, _shown: KeyHeader = None, prefer: PreferHeader = None
) -> Writes:
    return Writes(request, store, key_of_header(request), prefer)


async def _writes_by_body(request: Request, store: RequestStore, prefer: PreferHeader = None) -> Writes:
    return Writes(request, store, key_of_header(request), prefer)


async def _writes_without_key(request: Request, store: RequestStore, prefer: PreferHeader = None) -> Writes:
    return Writes(request, store, None, prefer)


async def _webhooks(request: Request, store: RequestStore) -> AsyncWebhooks:
    connections: Connections = request.app.state.connections
    return AsyncWebhooks(connections.settings, lambda: connections.session, store.public_id)


#: What an operation that reads the ledger gets.
RequestReads = Annotated[Reads, Depends(_reads)]
#: Of operations that take no body: whether it is one.
DryRunParameter = Annotated[bool, Query(description=DRY_RUN_TEXT)]
#: What an operation that writes gets.
RequestWrites = Annotated[Writes, Depends(_writes)]
#: The same where the key is a field of the body.
BodyWrites = Annotated[Writes, Depends(_writes_by_body)]
#: The same where the command makes its key itself: a reversal has one of its own for each attempt.
KeylessWrites = Annotated[Writes, Depends(_writes_without_key)]
#: What an operation on webhooks gets.
RequestWebhooks = Annotated[AsyncWebhooks, Depends(_webhooks)]
