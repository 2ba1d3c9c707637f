"""Links do to a connection what a network does: nothing is told of silence, and what was kept back comes afterwards."""

import random
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from .links import Link, Network

DEADLINE_SECONDS = 20.0
#: How long nothing must come to be called silence, in seconds.
SILENCE_SECONDS = 0.2


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(100):
            self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def link() -> Iterator[Link]:
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        network = Network()
        yield network.link(lambda: ("127.0.0.1", server.server_address[1]))
        network.close()
        server.shutdown()
        thread.join()


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=DEADLINE_SECONDS)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_SECONDS)
    try:
        return connection.recv(100, socket.MSG_PEEK) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(DEADLINE_SECONDS)


def test_a_link_passes_on_what_is_sent(link: Link) -> None:
    with connected(link) as connection:
        connection.sendall(b"one")
        assert connection.recv(100) == b"one"


def test_a_silent_link_keeps_back_what_comes_when_it_is_healed(link: Link) -> None:
    with connected(link) as connection:
        connection.sendall(b"one")
        assert connection.recv(100) == b"one"
        link.silence()
        connection.sendall(b"two")
        with connected(link) as late:
            late.sendall(b"three")
            assert is_silent(connection)
            assert is_silent(late)
            link.heal()
            assert connection.recv(100) == b"two"
            assert late.recv(100) == b"three"


def test_a_cut_link_ends_its_connections_and_takes_none(link: Link) -> None:
    with connected(link) as connection:
        connection.sendall(b"one")
        assert connection.recv(100) == b"one"
        link.cut()
        assert is_ended(connection)
    with connected(link) as refused:
        assert is_ended(refused)
    link.heal()
    with connected(link) as connection:
        connection.sendall(b"two")
        assert connection.recv(100) == b"two"


def test_one_connection_falls_silent_alone_until_it_is_broken(link: Link) -> None:
    with connected(link) as connection:
        connection.sendall(b"one")
        assert connection.recv(100) == b"one"
        end = link.silence_one(random.Random(1))
        connection.sendall(b"two")
        assert is_silent(connection)
        with connected(link) as other:
            other.sendall(b"three")
            assert other.recv(100) == b"three"
        end()
        assert is_ended(connection)


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True
