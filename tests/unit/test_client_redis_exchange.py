"""An exchange with Redis over connections that break in any way: it ends in one kind of failure, and nothing leaks."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, ReadOnlyError, ResponseError

from creditlane import OutcomeUnknown, Unavailable
from creditlane.producer.client._async.redis_connection import AsyncRedisWire
from creditlane.producer.client._sync.redis_connection import RedisWire
from creditlane.producer.client.redis_exchange import MAX_CONNECTIONS, is_of_server

URL = "redis://localhost:1/0"
#: More exchanges than a client has connections.
MANY = MAX_CONNECTIONS + 8
#: What is raised when a connection is dead: by redis-py, asyncio, uvloop, or as another thread has closed it.
DEAD = [
    RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
    AttributeError("'NoneType' object has no attribute 'sendall'"),
    InvalidResponse("Protocol error"),
    ConnectionResetError(104, "reset"),
    EOFError(),
    TimeoutError(),
]


class BrokenConnection:
    """A connection of redis-py of which the steps named fail, and which cannot be closed either."""

    def __init__(self, *, error: BaseException, fails_at: str) -> None:
        self._error, self._fails_at = error, fails_at
        self._sock = self

    def settimeout(self, _seconds: float) -> None: ...

    def connect(self) -> None:
        self._fail("connect")

    def can_read(self) -> bool:
        return False

    def pack_commands(self, _calls: object) -> list[bytes]:
        return [b""]

    def send_packed_command(self, _packed: object) -> None:
        self._fail("send")

    def read_response(self) -> Any:
        self._fail("read")

    def disconnect(self) -> None:
        raise self._error

    def _fail(self, step: str) -> None:
        if step == self._fails_at:
            raise self._error


class AsyncBrokenConnection(BrokenConnection):
    """The same for asyncio."""

    async def send_packed_command(self, _packed: object) -> None:  # type: ignore[override]
        self._fail("send")

    async def read_response(self) -> Any:
        self._fail("read")

    async def disconnect(self, *, nowait: bool = False) -> None:  # type: ignore[override]  # noqa: ARG002
        raise self._error


class Maker:
    """Makes such connections, as a pool of redis-py does."""

    connection_kwargs: dict[str, Any]

    def __init__(self, make: Callable[[], Any]) -> None:
        self.connection_class = make
        self.connection_kwargs = {}

    async def ensure_connection(self, connection: Any) -> None:
        connection.connect()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("_async", "_sync"):
        monkeypatch.setattr(f"creditlane.producer.client.{kind}.redis_connection.RETRY_PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("error", DEAD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("step", "expected"), [("connect", Unavailable), ("send", OutcomeUnknown), ("read", OutcomeUnknown)]
)
def test_whatever_a_dead_connection_raises_is_a_failed_exchange_and_gives_its_slot_back(
    error: BaseException, step: str, expected: type[Exception]
) -> None:
    wire = RedisWire(URL)
    wire._maker = Maker(lambda: BrokenConnection(error=error, fails_at=step))

    for _ in range(MANY):
        with pytest.raises(expected) as caught:
            wire.exchange([("PING",)], changes_something=True)
        assert "in use" not in str(caught.value)


@pytest.mark.parametrize("error", DEAD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("step", "expected"), [("connect", Unavailable), ("send", OutcomeUnknown), ("read", OutcomeUnknown)]
)
async def test_whatever_a_dead_connection_raises_is_a_failed_exchange_for_asyncio_too(
    error: BaseException, step: str, expected: type[Exception]
) -> None:
    wire = AsyncRedisWire(URL)
    wire._maker = Maker(lambda: AsyncBrokenConnection(error=error, fails_at=step))

    for _ in range(MANY):
        with pytest.raises(expected) as caught:
            await wire.exchange([("PING",)], changes_something=True)
        assert "in use" not in str(caught.value)


class SlowConnection(AsyncBrokenConnection):
    """A connection that answers when it may."""

    def __init__(self, answering: asyncio.Event) -> None:
        super().__init__(error=RuntimeError(), fails_at="")
        self._answering = answering

    async def read_response(self) -> Any:
        await self._answering.wait()
        return b"PONG"

    async def disconnect(self, *, nowait: bool = False) -> None:  # type: ignore[override]
        ...


async def test_cancelled_exchanges_give_their_slots_back() -> None:
    answering = asyncio.Event()
    wire = AsyncRedisWire(URL)
    wire._maker = Maker(lambda: SlowConnection(answering))
    # Given exchanges that hold every connection, and one that waits for a connection
    holding = [asyncio.create_task(wire.exchange([("PING",)])) for _ in range(MANY)]
    await asyncio.sleep(0)

    # When all are cancelled
    for task in holding:
        task.cancel()
    await asyncio.wait(holding)
    answering.set()

    # Then as many can be made again
    answers = await asyncio.gather(*(wire.exchange([("PING",)]) for _ in range(MANY)))
    assert answers == [[b"PONG"]] * MANY


async def test_who_finds_every_connection_taken_waits_until_its_own_deadline() -> None:
    wire = AsyncRedisWire(URL)
    wire._maker = Maker(lambda: SlowConnection(asyncio.Event()))
    holding = [asyncio.create_task(wire.exchange([("PING",)])) for _ in range(MAX_CONNECTIONS)]
    await asyncio.sleep(0)
    started = time.monotonic()

    with pytest.raises(Unavailable, match="in use"):
        await wire.exchange([("PING",)], deadline=started + 0.3)

    assert time.monotonic() - started < 2
    for task in holding:
        task.cancel()
    await asyncio.wait(holding)


@pytest.mark.parametrize(
    ("answer", "is_so"),
    [
        (ReadOnlyError("You can't write against a read only replica."), True),
        (BusyLoadingError("Redis is loading"), True),
        (AuthenticationError("Authentication required."), True),
        (ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), True),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (ResponseError("Error running script (call to f_x): @user_script:9: -READONLY You can't write"), True),
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), False),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), False),
        (b"READONLY", False),
    ],
    ids=str,
)
def test_an_error_of_the_server_is_distinguished_from_one_of_the_command(answer: Any, *, is_so: bool) -> None:
    assert is_of_server(answer) is is_so
