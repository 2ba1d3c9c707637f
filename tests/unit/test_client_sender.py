"""What is said where an enqueue ends without an answer: nothing is said not to be accepted that may have been."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.exceptions import NoScriptError

from creditlane import Debit, OutcomeUnknown, Settings, Unavailable
from creditlane.producer.api.fair_session import FairSender
from creditlane.producer.api.redis_memory import RedisMemory
from creditlane.producer.client._async.enqueue_many import enqueue_many as async_enqueue_many
from creditlane.producer.client._async.redis_connection import AsyncRedisWire
from creditlane.producer.client._async.sender import AsyncSender
from creditlane.producer.client._sync.enqueue_many import enqueue_many
from creditlane.producer.client._sync.redis_connection import RedisWire
from creditlane.producer.client._sync.sender import Sender
from creditlane.producer.client.chunks import chunk_of
from creditlane.producer.client.clocks import Clocks
from creditlane.producer.client.identity import CommandNumbers

URL = "redis://localhost:1/0"
COMMAND = Debit(account_id="cca_" + "0" * 31 + "1", amount=1, reference="r", idempotency_key="k")
SETTINGS = Settings(lane_limit=9)
#: How long a call may take, in seconds.
DEADLINE_SECONDS = 2.0

#: What Redis does with one request after the other. After the last of them nobody takes connections any more.
SILENT = ConnectionResetError("the connection ended before the answer")
NO_SCRIPT = NoScriptError("No matching script")
LOADED = b"0" * 40
FULL = 9

CASES = {
    "the script is gone, and Redis with it": [SILENT, NO_SCRIPT],
    "the script is loaded, and Redis gone": [SILENT, NO_SCRIPT, LOADED],
    "the script is forgotten again and again": [SILENT, *[NO_SCRIPT, LOADED] * 6, NO_SCRIPT],
    "the lane is full, and Redis gone": [SILENT, FULL],
}


class Connection:
    """A connection of redis-py to a Redis that does what is in the script."""

    def __init__(self, script: list[Any]) -> None:
        self._script = script
        self._sock = self

    def settimeout(self, _seconds: float) -> None: ...

    def connect(self) -> None:
        if not self._script:
            raise ConnectionRefusedError

    def can_read(self) -> bool:
        return False

    def pack_commands(self, _calls: object) -> list[bytes]:
        return [b""]

    def send_packed_command(self, _packed: object) -> None: ...

    def read_response(self) -> Any:
        answer = self._script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def disconnect(self) -> None: ...


class AsyncConnection(Connection):
    """The same for asyncio."""

    async def send_packed_command(self, _packed: object) -> None:  # type: ignore[override]
        ...

    async def read_response(self) -> Any:
        return super().read_response()

    async def disconnect(self, *, nowait: bool = False) -> None:  # type: ignore[override]
        ...


class Maker:
    """Makes such connections, as a pool of redis-py does."""

    connection_kwargs: dict[str, Any]

    def __init__(self, make: Callable[[], Any]) -> None:
        self.connection_class = make
        self.connection_kwargs = {}

    async def ensure_connection(self, connection: Any) -> None:
        connection.connect()


def blocking(script: list[Any]) -> Sender:
    wire = RedisWire(URL)
    wire._maker = Maker(lambda: Connection(script))
    return Sender(wire, SETTINGS, "producer", CommandNumbers())


def asynchronous(script: list[Any]) -> AsyncSender:
    wire = AsyncRedisWire(URL)
    wire._maker = Maker(lambda: AsyncConnection(script))
    return AsyncSender(wire, SETTINGS, "producer", CommandNumbers())


class NoBound:
    """A Redis that has room for whatever a store sends."""

    def has_share(self, _store_id: str) -> bool:
        return False


def fair(script: list[Any]) -> FairSender:
    wire = AsyncRedisWire(URL)
    wire._maker = Maker(lambda: AsyncConnection(script))
    return FairSender(wire, SETTINGS, "producer", CommandNumbers(), Clocks(), memory=cast("RedisMemory", NoBound()))


async def send_one(sender: Any) -> None:
    sent = sender.send(
        chunk_of(COMMAND, "store_default", 8), 1, keep=True, deadline=time.monotonic() + DEADLINE_SECONDS
    )
    if inspect.isawaitable(sent):
        await sent


async def send_all(sender: Any) -> None:
    enqueue = async_enqueue_many if isinstance(sender, AsyncSender) else enqueue_many
    sent: Any = enqueue(sender, [COMMAND], 8, keep=False, stall_seconds=DEADLINE_SECONDS, on_progress=None)
    if inspect.isawaitable(sent):
        await sent


async def deliver(sender: Any) -> None:
    enqueue = sender.unannounced(chunk_of(COMMAND, "store_default", 8))
    await sender.deliver(enqueue, DEADLINE_SECONDS)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("_async", "_sync"):
        monkeypatch.setattr(f"creditlane.producer.client.{kind}.redis_connection.RETRY_PAUSES", (0.0, 0.0))


WAYS = [(blocking, send_one), (blocking, send_all), (asynchronous, send_one), (asynchronous, send_all)]


@pytest.mark.parametrize("script", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("make", "send"), [*WAYS, (fair, send_one), (fair, deliver)], ids=lambda part: part.__name__)
async def test_after_an_attempt_without_an_answer_nothing_says_that_nothing_was_accepted(
    make: Callable[[list[Any]], Any], send: Callable[[Any], Awaitable[None]], script: list[Any]
) -> None:
    with pytest.raises(OutcomeUnknown):
        await send(make(list(script)))


@pytest.mark.parametrize("script", [[], [NO_SCRIPT], [NO_SCRIPT, LOADED], [NO_SCRIPT, LOADED] * 7], ids=len)
@pytest.mark.parametrize(("make", "send"), WAYS, ids=lambda part: part.__name__)
async def test_where_every_attempt_was_answered_what_was_not_accepted_is_unavailable(
    make: Callable[[list[Any]], Any], send: Callable[[Any], Awaitable[None]], script: list[Any]
) -> None:
    with pytest.raises(Unavailable):
        await send(make(list(script)))
