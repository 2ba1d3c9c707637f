"""Over https a certificate proves the name of the URL, and the connection goes to the address that was judged."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from creditlane.schemas.networks import NetworkRules, parse_networks
from creditlane.worker.webhooks.attempt import AttemptClient, Outcome
from creditlane.worker.webhooks.targets import TargetPolicy

#: For receiver.test, made for this test, with its key.
CERTIFICATE = Path(__file__).with_name("receiver_test.pem")


class TlsReceiver:
    """Answers every request, and remembers the name that was asked for and the head of the request."""

    def __init__(self) -> None:
        self.port = 0
        self.names: list[str | None] = []
        self.heads: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[TlsReceiver]:
    receiver = TlsReceiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _socket, name, _context: receiver.names.append(name)
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


async def send(host: str, port: int, *, trusting: bool = True) -> Outcome:
    async def lookup(_host: str, _port: int, _family: int) -> list[tuple[int, str]]:
        return [(socket.AF_INET, "127.0.0.1")]

    context = ssl.create_default_context()
    if trusting:
        context.load_verify_locations(CERTIFICATE)
    policy = TargetPolicy(NetworkRules(parse_networks("loopback")))
    async with AttemptClient(policy, timeout_seconds=5.0, lookup=lookup, ssl_context=context) as client:
        return await client.send(f"https://{host}:{port}/hook", {"webhook-id": "evt_1"}, b"{}")


async def test_the_name_is_in_the_handshake_and_in_the_request(receiver: TlsReceiver) -> None:
    outcome = await send("receiver.test", receiver.port)

    assert (outcome.succeeded, outcome.response_body) == (True, "ok")
    assert receiver.names == ["receiver.test"]
    assert f"host: receiver.test:{receiver.port}".encode() in receiver.heads[0].lower()


@pytest.mark.parametrize(("host", "trusting"), [("other.test", True), ("receiver.test", False)])
async def test_a_certificate_that_proves_nothing_gets_nothing(receiver: TlsReceiver, host: str, trusting: bool) -> None:
    outcome = await send(host, receiver.port, trusting=trusting)

    assert not outcome.succeeded
    assert "Certificate" in str(outcome.error)
    assert receiver.heads == []
