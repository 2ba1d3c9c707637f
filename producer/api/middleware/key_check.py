"""Asks for the key before anything else of a request is read, and holds up who has none that works."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ....schemas.errors import CreditlaneError, Unauthorized
from ..auth import authenticate
from ..errors import refusal_answer
from ..metrics.requests import RequestMetrics
from .address_limits import AddressLimits, address_of_client
from .body_limits import STREAMED_PATH, given
from .request_limits import Limits

#: Every operation of a store is below this path, and nothing else is.
KEYED_PATHS = "/v1/"


class KeyCheck:
    """An ASGI application around another, which gets requests to a store's operations only with a key that works.

    No byte of a body is taken before that. What needs no key is spaced by its address, and so are refusals.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, is_keyed = Request(scope), scope["path"].startswith(KEYED_PATHS)
        try:
            if is_keyed:
                await _check(request)
            else:
                await _take_turn(request)
                # What needs no key takes no body either.
                receive = given(b"", receive)
        except CreditlaneError as error:
            await (await refusal_answer(request, error))(scope, receive, send)
        else:
            async with _turn_of(request) if is_keyed else nullcontext():
                await self._app(scope, receive, send)


def _turn_of(request: Request) -> AbstractAsyncContextManager[None]:
    limits: Limits = request.app.state.limits
    limits.active_stores.keep_up(request.app.state.session.wire)
    # A stream that goes on for minutes gives way by itself, line by line.
    return (
        nullcontext()
        if request.scope["path"] == STREAMED_PATH
        else limits.fair_requests.turn(request.state.store.public_id)
    )


async def _check(request: Request) -> None:
    key = _key_of(request.scope)
    try:
        await authenticate(request, key)
    except Unauthorized:
        metrics: RequestMetrics = request.app.state.request_metrics
        metrics.note_refused_key("missing" if key is None else "wrong")
        # It is slowed in any case; after too many the answer says when to come back instead of why it is refused.
        await _take_turn(request)
        if key is not None:
            _note_wrong_key(request)
        raise


def _note_wrong_key(request: Request) -> None:
    limits: AddressLimits = request.app.state.address_limits
    limits.wrong_keys.note(address_of_client(request.scope))


async def _take_turn(request: Request) -> None:
    limits: AddressLimits = request.app.state.address_limits
    if delay := limits.pace.delay(address_of_client(request.scope)):
        await asyncio.sleep(delay)


def _key_of(scope: Scope) -> str | None:
    """Return what stands in the header; whether it is a key is found out later.

    Of two nobody knows which one a proxy has judged: together they are none.
    """
    keys: list[bytes] = [value for name, value in scope["headers"] if name == b"x-api-key"]
    if not keys:
        return None
    # Of HTTP, not of the key, is white space around it.
    return keys[0].strip(b" \t").decode("latin-1") if len(keys) == 1 else ""
