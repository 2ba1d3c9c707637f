"""What one API process takes on at most: requests of a key, waits for results, and the size and time of a body."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...schemas.errors import CreditlaneError, InvalidCommand, RateLimited, TooLarge, TooSlow
from ...schemas.settings import Settings
from .body_fields import MAX_FIELDS, has_too_many_fields
from .errors import error_answer, problem_of
from .spool import SpoolSpace

#: Buckets that are kept before the full ones, which mean nothing, are thrown away.
MAX_BUCKETS = 10_000
#: What a request may come back after when every place to wait is taken, in seconds.
WAITS_RETRY_SECONDS = 1.0
#: Streams its body line by line, with limits of its own on lines; only its silence is limited here.
STREAMED_PATH = "/v1/customer-credits/commands"


class TokenBuckets:
    """Lets each key make so many requests a second, and so many at once. Knows the keys of this process only."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        #: What was left of each key's bucket, and when.
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str) -> None:
        """Take a token of the key, or raise RateLimited with the time until there is one."""
        now = self._clock()
        level = self._level(key_id, now)
        if level < 1:
            raise RateLimited(retry_after=math.ceil((1 - level) / self._per_second))
        if len(self._levels) >= MAX_BUCKETS and key_id not in self._levels:
            self._levels = {key: at for key, at in self._levels.items() if self._level(key, now) < self._burst}
        self._levels[key_id] = (level - 1, now)

    def _level(self, key_id: str, now: float) -> float:
        level, at = self._levels.get(key_id, (self._burst, now))
        return min(self._burst, level + (now - at) * self._per_second)


class WaitingRoom:
    """Has a place for so many requests that wait for a result."""

    def __init__(self, places: int) -> None:
        self._free = places

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place, or raise RateLimited: nothing may have been accepted of the request yet."""
        if self._free < 1:
            raise RateLimited(
                "Too many requests wait for results; nothing was accepted, send the same again shortly, "
                "or with the header Prefer: respond-async.",
                retry_after=WAITS_RETRY_SECONDS,
            )
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Limits:
    """The limits of one app that requests meet by themselves: `app.state.limits`."""

    def __init__(self, settings: Settings) -> None:
        self.buckets = TokenBuckets(settings.api_requests_per_second, settings.api_burst)
        self.waiting_room = WaitingRoom(settings.api_waits)
        self.spool_space = SpoolSpace(settings.api_spool_bytes)


def waiting_place(request: Request) -> AbstractContextManager[None]:
    """Return the context to wait for a result in. Enter it before the command is sent.

    Raises, when entered:
        RateLimited: too many requests are waiting.
    """
    limits: Limits = request.app.state.limits
    return limits.waiting_room.place()


class BodyLimits:
    """An ASGI application around another, which gets every body but a streamed one complete, or not at all."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._most_bytes = settings.api_body_bytes
        self._seconds = settings.api_body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
        elif scope["path"] == STREAMED_PATH:
            await self._app(scope, _impatient(receive, self._seconds), send)
        else:
            await self._pass_whole(scope, receive, send)

    async def _pass_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._whole(scope, receive)
        except TimeoutError:
            await _refuse(TooSlow(), scope, receive, send)
        except TooLarge as error:
            await _refuse(error, scope, receive, send)
        else:
            if body is not None and has_too_many_fields(body):
                await _refuse(InvalidCommand(f"The body has more than {MAX_FIELDS} fields."), scope, receive, send)
            elif body is not None:
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


def _has_body(scope: Scope) -> bool:
    """Tell whether a body was announced; without that there is none, by HTTP's rules."""
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


def _impatient(receive: Receive, seconds: float) -> Receive:
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
