"""What a body may be at most, in bytes and in time, and its fields, before anything of it is worked on."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ....schemas.errors import CreditlaneError, InvalidCommand, TooLarge, TooSlow
from ....schemas.settings import Settings
from ..errors import error_answer, problem_of
from .body_fields import check_fields

#: Streams its body line by line, with limits of its own on lines; only its silence is limited here.
STREAMED_PATH = "/v1/customer-credits/commands"


class BodyLimits:
    """An ASGI application around another, which gets every body but a streamed one complete, or not at all."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._most_bytes = settings.api_body_bytes
        self._seconds = settings.api_body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
        elif scope["path"] == STREAMED_PATH:
            await self._app(scope, _with_timeout(receive, self._seconds), send)
        else:
            await self._pass_whole(scope, receive, send)

    async def _pass_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._whole(scope, receive)
            if body:
                check_fields(body)
        except TimeoutError:
            await _refuse(TooSlow(), scope, receive, send)
        except (TooLarge, InvalidCommand) as error:
            await _refuse(error, scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, given(body, receive), send)

    async def _whole(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, or None if the client has left; raise TooLarge as soon as that is certain."""
        if (announced := _announced_bytes(scope)) is not None and announced > self._most_bytes:
            raise TooLarge(f"The body may have {self._most_bytes} bytes and has {announced}; send less at once.")
        parts, length, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            more = message.get("more_body", False)
            if length > self._most_bytes:
                raise TooLarge(f"The body may have {self._most_bytes} bytes and has more; send less at once.")
        return b"".join(parts)


async def _refuse(error: CreditlaneError, scope: Scope, receive: Receive, send: Send) -> None:
    await error_answer(Request(scope), problem_of(error))(scope, receive, send)


def has_body(scope: Scope) -> bool:
    """Return whether a body was announced; without that there is none, by HTTP's rules."""
    return any(name in {b"content-length", b"transfer-encoding"} and value != b"0" for name, value in scope["headers"])


def _announced_bytes(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None


def given(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body in one piece and then whatever else comes: the client's leaving."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return pending.pop() if pending else await receive()

    return give


def _with_timeout(receive: Receive, seconds: float) -> Receive:
    """Return what takes a client that sends nothing for so long as gone, while its body is not complete."""
    is_complete = False

    async def take() -> Message:
        nonlocal is_complete
        try:
            async with asyncio.timeout(None if is_complete else seconds):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return take
