"""The fast path of a plain credit or debit, which is nearly every request under load: past the framework.

Finding a route, its dependencies and its parameters costs the framework more than all that the operation does. The
fast path takes only a request that it can judge whole: a POST to an account's credit or debit with a JSON body that the
operation's model takes, and without the headers that change what is answered. It then does what the operation does, by
the same functions. Anything else goes the framework's way, which says what is wrong; a test holds the two together.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ....schemas.errors import CreditlaneError
from ....schemas.kinds import KIND_OF_WORD
from ..auth import Store
from ..errors import Problem, refusal_answer
from ..models.ledger import DebitMovement, Movement
from ..reads import Reads
from ..routes import accounts
from ..writes import Writes

_PATH = re.compile(r"/v1/customer-credits/accounts/(cca_[0-9a-f]{32})/(credit|debit)", re.ASCII)
_JSON = frozenset({b"application/json", b"application/json; charset=utf-8"})
#: With these the answer may be another one.
_SPECIAL_HEADERS = frozenset({b"idempotency-key", b"prefer"})
_MODELS: dict[str, type[Movement]] = {"credit": Movement, "debit": DebitMovement}
#: By name; the request log and the metrics know an operation by its route.
_ROUTES = {getattr(route, "name", ""): route for route in accounts.router.routes}


class _Target(NamedTuple):
    account_id: str
    kind: str


class FastPath:
    """An ASGI application around another, which gets all that is not plain. Both want whole bodies and good keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = _target_of(scope)
        if target is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        body = _body_of(message, _MODELS[target.kind])
        if body is None:
            await self._app(scope, _again(message, receive), send)
            return
        scope["route"] = _ROUTES[f"{target.kind}_account"]
        request = Request(scope)
        try:
            response = await _move(request, target, body)
        except (Problem, CreditlaneError) as error:
            response = await refusal_answer(request, error)
        await response(scope, receive, send)


async def _move(request: Request, target: _Target, body: Movement) -> Response:
    store: Store = request.state.store
    reads = Reads(request.app.state.connections, store, request.state.read_deadline)
    writes = Writes(request, store, None, None)
    return await accounts.move(KIND_OF_WORD[target.kind], target.account_id, body, store, reads, writes)


def _target_of(scope: Scope) -> _Target | None:
    """Return what the head asks for, or None where it asks for anything that is not plain."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
        return None
    match = _PATH.fullmatch(scope["path"])
    if match is None:
        return None
    headers = dict(scope["headers"])
    # A header that came twice is for the framework to read as it does.
    if len(headers) != len(scope["headers"]) or headers.get(b"content-type") not in _JSON:
        return None
    if not _SPECIAL_HEADERS.isdisjoint(headers):
        return None
    return _Target(match[1], match[2])


def _body_of(message: Message, model: type[Movement]) -> Movement | None:
    """Return the body, or None where the framework has to say what is wrong with it."""
    if message["type"] != "http.request" or message.get("more_body", False):
        return None
    try:
        return model.model_validate_json(message.get("body", b""))
    except ValidationError:
        return None


def _again(message: Message, receive: Receive) -> Receive:
    """Return what gives the message once more and then what comes."""
    pending = [message]

    async def give() -> Message:
        return pending.pop() if pending else await receive()

    return give
