"""What one API process takes on at most: requests of a store, waits for results, and the size and time of a body."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ....lanes.keys import Keys
from ....schemas.errors import CreditlaneError, InvalidCommand, RateLimited, TooLarge, TooSlow
from ....schemas.fair_shares import share_of
from ....schemas.settings import Settings
from ..errors import error_answer, problem_of
from ..spool import SpoolSpace
from .asking_stores import AskingStores
from .batch_turns import BatchTurns
from .body_fields import check_fields
from .store_rates import StoreRates
from .store_turns import StoreTurns

#: What a request may come back after when every place is taken, in seconds.
PLACES_RETRY_SECONDS = 1.0
#: Streams its body line by line, with limits of its own on lines; only its silence is limited here.
STREAMED_PATH = "/v1/customer-credits/commands"


class SharedPlaces:
    """So many places for what stores do at the same time, of which a store may have its share."""

    def __init__(self, places: int, too_many: str, instead: str) -> None:
        """`too_many` and `instead` are what a refusal says: what there is too much of, and what to do about it."""
        self._places = places
        self._too_many = too_many
        self._instead = instead
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, store_id: str) -> Iterator[None]:
        """Take a place for the store, or raise RateLimited: nothing may have been accepted of the request yet."""
        taken = self._taken.total()
        if taken >= self._places or self._taken[store_id] >= share_of(self._places, taken):
            raise RateLimited(
                f"Too many {self._too_many}: {self._taken[store_id]} of the store, {taken} of the {self._places} there "
                f"may be; nothing was accepted, {self._instead}.",
                retry_after=PLACES_RETRY_SECONDS,
            )
        self._taken[store_id] += 1
        try:
            yield
        finally:
            self._taken[store_id] -= 1
            if not self._taken[store_id]:
                del self._taken[store_id]


class Limits:
    """The limits of one app that requests meet by themselves: `app.state.limits`."""

    def __init__(self, settings: Settings) -> None:
        self.store_rates = StoreRates(settings)
        self.asking_stores = AskingStores(Keys(settings.redis_prefix))
        self.store_turns = StoreTurns(self.asking_stores)
        self.batch_turns = BatchTurns(self.asking_stores)
        self.waits = SharedPlaces(
            settings.api_waits,
            "requests wait for results (CREDITLANE_API_WAITS)",
            "send the same again shortly, or with the header Prefer: respond-async",
        )
        self.batches = SharedPlaces(
            settings.api_batches,
            "batches are under way (CREDITLANE_API_BATCHES)",
            "send the same again shortly, or more lines in fewer batches",
        )
        self.spool_space = SpoolSpace(settings.api_spool_bytes)


@contextmanager
def waiting_place(request: Request) -> Iterator[None]:
    """Be the context to wait for a result in. Enter it before the command is sent.

    Raises, when entered:
        RateLimited: too many requests are waiting.
    """
    limits: Limits = request.app.state.limits
    store_id = request.state.store.public_id
    with limits.waits.place(store_id), limits.store_turns.left(store_id):
        yield


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
            await self._app(scope, _impatient(receive, self._seconds), send)
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
