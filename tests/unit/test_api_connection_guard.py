"""One connection cannot take more than its share: sizes, counts and times have an end before there is a request."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from creditlane import Settings
from creditlane.producer.api.metrics.requests import RequestMetrics
from creditlane.producer.api.middleware import connection_guard, connection_limits
from creditlane.producer.api.middleware.connection_guard import (
    MAX_HEADERS,
    MAX_SURPLUS_BYTES,
    MAX_URL_BYTES,
    GuardedProtocol,
)
from creditlane.producer.api.middleware.connection_limits import ConnectionLimits
from creditlane.schemas.networks import parse_networks

#: How long anything here may take, in seconds; the machine may be busy.
DEADLINE_SECONDS = 30.0
GET = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"
MEBIBYTE = 1_048_576


class App:
    """An application whose answers say how long the body was; `/unread` answers without it, `/held` when released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.answered: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        length = 0
        if scope["path"] == "/held":
            await self.released.wait()
        elif scope["path"] != "/unread":
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return
                length += len(message.get("body", b""))
                more = message.get("more_body", False)
        self.answered.append(scope["path"])
        if scope["path"] == "/large":
            await self._send(send, b"x" * MEBIBYTE * 64)
        else:
            await self._send(send, b"%d\n" % length)

    @staticmethod
    async def _send(send: Any, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(body), 65_536):
            part = body[start : start + 65_536]
            await send({"type": "http.response.body", "body": part, "more_body": start + 65_536 < len(body)})


class Peer(asyncio.Protocol):
    """A client that sends what it likes, and keeps what it got also where the connection was cut off afterwards."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.has_ended = False
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # there before anything else
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        self._changed.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.has_ended = True
        self._changed.set()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the body of the next answer."""
        head = await self._take(lambda: self.got.find(b"\r\n\r\n") + 4)
        lines = head.lower().split(b"\r\n")
        (length,) = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
        return int(head.split()[1]), await self._take(lambda: length if len(self.got) >= length else 3)

    async def refusal(self) -> tuple[int, str]:
        """Return the status and the code of an answer that ends the connection."""
        status, body = await self.answer()
        assert await self.ended() == b""
        return status, json.loads(body)["error"]["code"]

    async def ended(self) -> bytes:
        """Return what still comes until the server ends the connection."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.has_ended:
                self._changed.clear()
                await self._changed.wait()
        return bytes(self.got)

    async def _take(self, length: Callable[[], int]) -> bytes:
        """Return so many bytes as soon as they are there; 3 says that they are not."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (size := length()) == 3:
                assert not self.has_ended, bytes(self.got)
                self._changed.clear()
                await self._changed.wait()
        taken = bytes(self.got[:size])
        del self.got[:size]
        return taken


class Served:
    """A server of guarded connections."""

    def __init__(
        self, app: App, limits: ConnectionLimits, metrics: RequestMetrics, port: int, connections: set[Any]
    ) -> None:
        self.app = app
        self._connections = connections
        self.limits = limits
        self._metrics = metrics
        self._port = port
        self._peers: list[Peer] = []

    async def connect(self) -> Peer:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(Peer, "127.0.0.1", self._port)
        self._peers.append(peer)
        return peer

    async def asked(self, data: bytes) -> Peer:
        peer = await self.connect()
        peer.send(data)
        return peer

    def hurry(self) -> None:
        """Let the times of heads be over at once: what a test waits for first may take as long as it takes."""
        self.limits.head = self.limits.head._replace(head_seconds=0.05)

    def heard(self) -> bool:
        """Return whether something has come that is no whole head yet."""
        return any(connection._overhead_bytes for connection in self._connections)

    def refused(self, limit: str) -> bool:
        return f'refused_connections_total{{limit="{limit}"}} ' in self._metrics.exposition().decode()

    def close(self) -> None:
        for peer in self._peers:
            if not peer.has_ended:
                peer.transport.abort()


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(autouse=True)
def _check_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(connection_guard, "LINGER_SECONDS", 0.2)


@pytest.fixture
def serve() -> Serve:
    """Serves guarded connections with these settings."""

    @asynccontextmanager
    async def serving(trusted: str = "", descriptors: int = 10_000, **settings: Any) -> AsyncIterator[Served]:
        app, metrics = App(), RequestMetrics()
        limits = ConnectionLimits(Settings(**settings), parse_networks(trusted), metrics, descriptors)
        config = Config(app, lifespan="off", log_config=None, ws="none")  # type: ignore[arg-type]
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: GuardedProtocol(config, state, {}, limits=limits), "127.0.0.1", 0
        )
        served = Served(app, limits, metrics, server.sockets[0].getsockname()[1], state.connections)
        try:
            yield served
        finally:
            app.released.set()
            served.close()
            server.close()
            await until(lambda: not state.connections)

    return serving


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - nothing announces what is waited for
            await asyncio.sleep(0.01)


def head_of(*headers: bytes, path: bytes = b"/x", method: bytes = b"GET") -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path), b"host: x", *headers, b"", b""])


async def test_requests_are_answered_one_after_the_other_on_one_connection(serve: Serve) -> None:
    async with serve() as served:
        peer = await served.asked(GET)
        assert await peer.answer() == (200, b"0\n")
        peer.send(head_of(b"content-length: 5", method=b"POST") + b"hel")
        peer.send(b"lo")
        assert await peer.answer() == (200, b"5\n")


@pytest.mark.parametrize(
    ("data", "status", "limit"),
    [
        (head_of(b"h: " + b"x" * 40_000), 431, "head_bytes"),
        (b"GET /x HTTP/1.1\r\nh: " + b"x" * 8 * MEBIBYTE, 431, "head_bytes"),
        (b"\r\n" * 20_000 + GET, 431, "head_bytes"),
        (head_of(path=b"/" + b"x" * MAX_URL_BYTES), 414, "url"),
        (b"GET /" + b"x" * 8 * MEBIBYTE, 414, "url"),
        (head_of(*[b"h: x"] * MAX_HEADERS), 431, "headers"),
        (b"GET /x HTTP/1.1\r\n" + b"h:\r\n" * MEBIBYTE, 431, "headers"),
    ],
)
async def test_a_head_has_a_size(serve: Serve, data: bytes, status: int, limit: str) -> None:
    async with serve() as served:
        peer = await served.connect()
        peer.send(data)

        assert await peer.refusal() == (status, "too_large")

        assert served.refused(limit)
        assert served.app.answered == []


async def test_a_head_of_the_largest_size_is_taken(serve: Serve) -> None:
    async with serve() as served:
        for data in (
            head_of(b"h: " + b"x" * 32_600),
            head_of(path=b"/" + b"x" * (MAX_URL_BYTES - 1)),
            head_of(*[b"h: x"] * (MAX_HEADERS - 1)),
        ):
            assert (await (await served.asked(data)).answer())[0] == 200


async def test_lines_after_a_body_are_headers_too(serve: Serve) -> None:
    async with serve() as served:
        head = head_of(b"transfer-encoding: chunked", method=b"POST")
        peer = await served.asked(head + b"0\r\n" + b"h: x\r\n" * MAX_HEADERS)

        await peer.ended()

        assert served.refused("headers")


async def test_what_comes_with_a_body_and_is_none_has_a_size(serve: Serve) -> None:
    """Given a chunk whose extension never ends, then the connection does; the request is not answered as if whole."""
    async with serve() as served:
        peer = await served.asked(head_of(b"transfer-encoding: chunked", method=b"POST") + b"1;")
        peer.send(b"x" * MEBIBYTE)

        await peer.ended()

        assert served.refused("head_bytes")
        assert served.app.answered == []


@pytest.mark.parametrize("data", [b"G", b"GET /x HTTP/1.1\r\nh", b"\r\n"])
async def test_a_head_has_a_time(serve: Serve, data: bytes) -> None:
    async with serve() as served:
        peer = await served.asked(data)
        await until(served.heard)
        served.hurry()

        if data == b"\r\n":
            assert await peer.ended() == b""
        else:
            assert await peer.refusal() == (408, "too_slow")


async def test_a_head_that_comes_byte_by_byte_has_no_more_time(serve: Serve) -> None:
    async with serve() as served:
        peer = await served.asked(b"GET /x HTTP/1.1\r\nh: ")
        await until(served.heard)

        async def trickle() -> None:
            while not peer.has_ended:
                peer.send(b"x")
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        served.hurry()

        assert (await peer.answer())[0] == 408
        trickling.cancel()


async def test_a_connection_that_sends_nothing_is_closed(serve: Serve) -> None:
    async with serve(api_head_seconds=0.1) as served:
        peer = await served.connect()

        assert await peer.ended() == b""
        assert served.refused("idle")


async def test_a_connection_without_another_request_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a connection that keeps itself alive with empty lines, then its time is over all the same."""
    monkeypatch.setattr(connection_guard, "KEEP_ALIVE_SECONDS", 0.1)
    async with serve() as served:
        peer = await served.asked(GET + b"\r\n")

        assert (await peer.ended()).endswith(b"0\n")


async def test_who_has_waited_longest_makes_room(serve: Serve) -> None:
    async with serve(api_connections_per_address=3) as served:
        silent = await served.connect()
        await until(lambda: served.limits._count == 1)
        used = await served.asked(GET)
        assert await used.answer() == (200, b"0\n")
        held = await served.asked(head_of(path=b"/held"))
        await until(lambda: len(served.limits._waiting) == 2)

        later = await served.asked(GET)

        assert await later.answer() == (200, b"0\n")
        assert await silent.ended() == b""
        assert served.refused("address_connections")
        used.send(GET)
        assert await used.answer() == (200, b"0\n")
        served.app.released.set()
        assert await held.answer() == (200, b"0\n")


async def test_where_all_are_being_answered_one_more_is_turned_away(serve: Serve) -> None:
    async with serve(api_connections=2) as served:
        busy = [await served.asked(head_of(path=b"/held")) for _ in range(2)]
        await until(lambda: served.limits._count == 2 and not served.limits._waiting)

        turned_away = await served.asked(GET)

        assert await turned_away.ended() == b""
        assert served.refused("address_connections")
        served.app.released.set()
        for peer in busy:
            assert await peer.answer() == (200, b"0\n")
        assert await (await served.asked(GET)).answer() == (200, b"0\n")


async def test_a_trusted_proxy_has_the_room_of_all(serve: Serve) -> None:
    async with serve(trusted="loopback", api_connections_per_address=1, api_connections=3) as served:
        peers = [await served.asked(GET) for _ in range(3)]
        for peer in peers:
            assert await peer.answer() == (200, b"0\n")
            peer.send(GET)
            assert await peer.answer() == (200, b"0\n")

        assert await (await served.asked(GET)).answer() == (200, b"0\n")
        assert served.refused("connections")
        assert not served.refused("address_connections")


async def test_fewer_connections_are_taken_where_fewer_files_may_be_open(serve: Serve) -> None:
    async with serve(descriptors=8) as served:
        peers = [await served.asked(GET) for _ in range(4)]
        for peer in peers:
            await peer.answer()

        assert await (await served.asked(GET)).answer() == (200, b"0\n")
        assert await peers[0].ended() == b""


async def test_requests_sent_ahead_are_answered_in_order(serve: Serve) -> None:
    count = 5_000
    async with serve() as served:
        peer = await served.connect()
        peer.send(b"".join(head_of(path=b"/%d" % n) for n in range(count)))
        for _ in range(count):
            assert await peer.answer() == (200, b"0\n")

        assert served.app.answered == [f"/{number}" for number in range(count)]


async def test_a_body_sent_ahead_comes_whole(serve: Serve) -> None:
    """Given the heads of two requests in one piece and the second's body in the next, then both are answered."""
    body = b"x" * 300_000
    async with serve() as served:
        peer = await served.asked(head_of(path=b"/held") + head_of(b"content-length: 300000", method=b"POST"))
        peer.send(body + GET)
        await asyncio.sleep(0)
        served.app.released.set()

        assert [await peer.answer() for _ in range(3)] == [(200, b"0\n"), (200, b"300000\n"), (200, b"0\n")]


@pytest.mark.parametrize("chunk_bytes", [1, 1_000, 100_000, MEBIBYTE])
async def test_a_long_body_comes_whole(serve: Serve, chunk_bytes: int) -> None:
    count = 100_000 if chunk_bytes == 1 else 8 * MEBIBYTE // chunk_bytes
    chunk = b"%x\r\n%b\r\n" % (chunk_bytes, b"x" * chunk_bytes)
    async with serve() as served:
        peer = await served.asked(head_of(b"transfer-encoding: chunked", method=b"POST"))
        peer.send(chunk * count + b"0\r\n\r\n" + GET)

        assert await peer.answer() == (200, b"%d\n" % (count * chunk_bytes))
        assert await peer.answer() == (200, b"0\n")


async def test_who_does_not_read_the_answer_is_cut_off(serve: Serve) -> None:
    async with serve(api_body_seconds=0.2) as served:
        peer = await served.asked(head_of(path=b"/large"))
        peer.transport.pause_reading()

        await until(lambda: served.refused("unread_answer"))
        await until(lambda: served.limits._count == 0)
        assert len(peer.got) < 64 * MEBIBYTE


async def test_the_rest_of_a_body_that_nobody_wants_is_taken_up_to_a_size(serve: Serve) -> None:
    async with serve() as served:
        peer = await served.asked(head_of(b"content-length: 500000", path=b"/unread", method=b"POST"))
        assert await peer.answer() == (200, b"0\n")
        peer.send(b"x" * 500_000 + GET)
        assert await peer.answer() == (200, b"0\n")

        other = await served.asked(head_of(b"content-length: 99999999", path=b"/unread", method=b"POST"))
        assert await other.answer() == (200, b"0\n")
        other.send(b"x" * MAX_SURPLUS_BYTES * 10)
        await until(lambda: served.limits._count == 1)
        await other.ended()


async def test_chunks_that_nobody_asks_for_are_not_parsed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a body in chunks of a byte whose request is held up, then it is parsed a piece ahead, and no further."""
    parsed: list[int] = []
    on_body = GuardedProtocol.on_body
    monkeypatch.setattr(GuardedProtocol, "on_body", lambda self, body: parsed.append(1) or on_body(self, body))
    async with serve() as served:
        peer = await served.asked(head_of(b"transfer-encoding: chunked", path=b"/held", method=b"POST"))
        peer.send(b"1\r\nx\r\n" * 200_000)
        other = await served.asked(GET)
        assert await other.answer() == (200, b"0\n")

        served.app.released.set()
        assert await peer.answer() == (200, b"0\n")
        assert await peer.ended() == b""
        assert len(parsed) <= 2 * connection_guard.PIECE_BYTES


async def test_the_rest_of_a_body_that_nobody_wants_has_a_time(serve: Serve) -> None:
    async with serve() as served:
        peer = await served.asked(head_of(b"content-length: 500", path=b"/unread", method=b"POST"))
        assert await peer.answer() == (200, b"0\n")
        served.hurry()

        assert await peer.ended() == b""
        assert served.refused("slow_body")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET x\r\n\r\n", GET[:-2] + b"no header\r\n\r\n"])
async def test_what_is_no_request_gets_the_one_error_body(serve: Serve, data: bytes) -> None:
    async with serve() as served:
        assert await (await served.asked(data)).refusal() == (400, "validation_error")
        assert served.refused("malformed")


async def test_a_request_to_speak_another_protocol_is_answered_as_without(serve: Serve) -> None:
    async with serve() as served:
        for protocol in (b"h2c", b"websocket"):
            peer = await served.asked(head_of(b"connection: Upgrade", b"upgrade: " + protocol) + b"\x00" * 100)

            assert await peer.answer() == (200, b"0\n")
            assert await peer.ended() == b""


async def test_a_connection_of_which_the_rest_is_never_read_ends(serve: Serve) -> None:
    """Given a client that sends on and on what was refused, then it is cut off."""
    async with serve() as served:
        peer = await served.asked(b"no request\r\n\r\n")
        while not peer.has_ended:
            peer.send(b"x" * 65_536)
            await asyncio.sleep(0.001)

        # The client may hear of it before the server has counted it out.
        await until(lambda: not served.limits._count)


def test_a_host_without_an_address_is_counted_too() -> None:
    limits = ConnectionLimits(Settings(), parse_networks("10.0.0.0/8"))

    assert limits.counted_as(None) == "local"
    assert limits.counted_as("no address") == "no address"
    assert limits.counted_as("10.1.2.3") == ""
    assert limits.counted_as("11.1.2.3") == "11.1.2.3"
