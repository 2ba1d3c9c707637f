"""Puts the API together: connections, operations, errors, and middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI

from ... import __version__
from ...schemas.amounts import MAX_AMOUNT_DIGITS
from ...schemas.commands import MAX_ENTRIES
from ...schemas.settings import Settings
from ..background_tasks import begin_in_background
from .connections import Connections
from .console.pages import add_docs
from .errors import add_error_handlers
from .middleware.stack import add_middleware
from .openapi.document import CONTACT, LICENSE, SERVERS, TAGS, describe
from .paging import MAX_PAGE_ITEMS
from .routes import accounts, batch, commands, holds, limits, transactions, webhooks
from .routes.monitoring import Watch
from .unknown_input import only_known_bodies, only_known_parameters

_DESCRIPTION = """
Give each customer a balance in any unit, add to it when something good happens, take from it as it is used.

* **Keys.** Send your key as the header `x-api-key`; it decides the store, and nothing of another store can be seen.
* **Amounts** are strings of up to {digits} decimal digits, never JSON numbers.
* **Idempotency.** A write with an `idempotency_key` has one effect, however often it is sent, for ever. A repeated
  request gets the first answer again, also a refusal, with the header `X-Idempotent-Replay: true`. Only 400, 401,
  404, 408, 413, 429 and 503 leave the key unused.
* **Order.** What is accepted for one account is applied in the order in which it was accepted.
* **Slow results.** A write whose result does not come in {wait:g} s answers 503 `timeout`: it is accepted and nothing
  is lost, and its id is in `error.command_id` and `Location`. With `Prefer: respond-async` a write answers 202 at once.
* **Limits.** A body has at most {body_bytes} bytes; a store makes at most {per_second:g} requests a second, {burst}
  at once; a page has at most {page} items, a transaction {entries} entries, an amount {digits} digits.
* **Errors** all have one body; `code` is stable, `message` says what to do next, `request_id` finds it in the log.
"""


def create_app(settings: Settings) -> FastAPI:
    """Return the API as an ASGI application. It starts and recovers by itself while its servers are down.

    Raises:
        ConfigurationError: the URL of a server is missing; raised when the application starts.
    """
    app = FastAPI(
        title="Creditlane",
        summary="A self-hosted customer-credits ledger.",
        version=__version__,
        description=_DESCRIPTION.format(
            wait=settings.wait_timeout_seconds,
            body_bytes=settings.api_body_bytes,
            per_second=settings.api_requests_per_second,
            burst=settings.api_burst,
            page=MAX_PAGE_ITEMS,
            entries=MAX_ENTRIES,
            digits=MAX_AMOUNT_DIGITS,
        ),
        openapi_tags=TAGS,
        servers=SERVERS,
        contact=CONTACT,
        license_info=LICENSE,
        lifespan=partial(_running, settings),
        redirect_slashes=False,
        # Its own pages load scripts from elsewhere, and its document is made anew for everybody who asks.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    describe(app)
    add_docs(app)
    add_error_handlers(app)
    for module in (accounts, limits, transactions, holds, commands, webhooks):
        app.include_router(module.router, dependencies=[Depends(only_known_parameters), Depends(only_known_bodies)])
    app.include_router(batch.router, dependencies=[Depends(only_known_parameters)])
    add_middleware(app, settings)
    return app


@asynccontextmanager
async def _running(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    """Hold open what the requests need, and watch the servers, for as long as the application runs."""
    async with Connections.opened(app, settings) as connections:
        app.state.watch = watch = Watch(connections, app.state.request_metrics)
        started = begin_in_background(watch.log_start())
        try:
            yield
        finally:
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            await watch.close()
