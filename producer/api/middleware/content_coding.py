"""Bodies come as they are: a compressed one is refused, for what it unpacks to has no bound in what is sent."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ....schemas.errors import UnsupportedEncoding
from ..errors import error_answer, problem_of
from .body_limits import has_body

#: By header, what leaves the body as it is.
_PLAIN = {
    b"content-encoding": frozenset({"", "identity"}),
    b"transfer-encoding": frozenset({"", "chunked", "identity"}),
}


class PlainBodies:
    """An ASGI application around another, which gets no body that is compressed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(scope) or _is_plain(scope):
            await self._app(scope, receive, send)
            return
        problem = problem_of(UnsupportedEncoding())
        # By RFC 9110 it says what would have been taken.
        problem.headers["Accept-Encoding"] = "identity"
        await error_answer(Request(scope), problem)(scope, receive, send)


def _is_plain(scope: Scope) -> bool:
    return all(
        coding.strip().lower() in _PLAIN[name]
        for name, value in scope["headers"]
        if name in _PLAIN
        for coding in value.decode("latin-1").split(",")
    )
