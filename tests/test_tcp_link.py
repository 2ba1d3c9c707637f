"""A link does to a connection what a network does: nobody is notified of silence; what was kept back comes afterwards.

And it leaves nothing open, whatever happens while it closes.
"""

import gc
import random
import socket
import socketserver
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import pytest
from psycopg.conninfo import conninfo_to_dict

from creditlane.local.processes import wait_until

from .tcp_link import Address, TcpLink, postgres_address, redis_address

DEADLINE_SECONDS = 20.0
#: How long nothing must come to be called silence, in seconds.
SILENCE_SECONDS = 0.2
#: How often a link is closed while others connect.
CLOSED = 50
NOBODY = ("127.0.0.1", 0)


class Echo(socketserver.BaseRequestHandler):
    #: How often somebody has left.
    left = 0

    def handle(self) -> None:
        with suppress(ConnectionError):
            while data := self.request.recv(100):
                self.request.sendall(data)
        Echo.left += 1


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def server() -> Iterator[Address]:
    Echo.left = 0
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def link(server: Address) -> Iterator[TcpLink]:
    with TcpLink(server) as link:
        yield link


def connected(link: TcpLink) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=DEADLINE_SECONDS)


def echo(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_SECONDS)
    try:
        return connection.recv(100, socket.MSG_PEEK) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(DEADLINE_SECONDS)


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_link_passes_on_what_is_sent(link: TcpLink) -> None:
    with connected(link) as connection:
        assert echo(connection, b"one") == b"one"
        assert echo(connection, b"two") == b"two"
    with connected(link) as connection:
        assert echo(connection, b"three") == b"three"

    assert list(link.greetings) == [b"one", b"three"]
    assert link.connections_made == 2


def test_an_end_is_passed_on(link: TcpLink) -> None:
    with connected(link) as connection:
        echo(connection, b"one")

    assert wait_until(lambda: Echo.left == 1, seconds=DEADLINE_SECONDS)


def test_a_silent_link_keeps_back_what_comes_when_it_is_healed(link: TcpLink) -> None:
    with connected(link) as connection:
        assert echo(connection, b"one") == b"one"
        link.silence()
        connection.sendall(b"two")
        with connected(link) as late:
            late.sendall(b"three")
            assert is_silent(connection)
            assert is_silent(late)
            link.heal()
            assert connection.recv(100) == b"two"
            assert late.recv(100) == b"three"


def test_an_end_is_passed_on_only_when_a_silent_link_is_healed(link: TcpLink) -> None:
    with connected(link) as connection:
        echo(connection, b"one")
        link.silence()
    assert not wait_until(lambda: Echo.left == 1, seconds=SILENCE_SECONDS)

    link.heal()

    assert wait_until(lambda: Echo.left == 1, seconds=DEADLINE_SECONDS)


def test_a_cut_link_ends_its_connections_and_takes_others(link: TcpLink) -> None:
    with connected(link) as connection:
        echo(connection, b"one")
        link.cut()
        assert is_ended(connection)
    with connected(link) as connection:
        assert echo(connection, b"two") == b"two"


def test_a_shut_link_ends_its_connections_and_takes_none_until_it_is_opened_again(link: TcpLink) -> None:
    with connected(link) as connection:
        echo(connection, b"one")
        link.shut()
        assert is_ended(connection)
    with pytest.raises(ConnectionRefusedError):
        connected(link)
    link.reopen()
    with connected(link) as connection:
        assert echo(connection, b"two") == b"two"


def test_one_connection_falls_silent_alone_until_it_is_ended(link: TcpLink) -> None:
    with connected(link) as connection:
        echo(connection, b"one")
        end = link.silence_one(random.Random(1))
        connection.sendall(b"two")
        assert is_silent(connection)
        with connected(link) as other:
            assert echo(other, b"three") == b"three"
        end()
        assert is_ended(connection)


def test_without_a_connection_none_falls_silent(link: TcpLink) -> None:
    assert link.silence_open() == 0
    link.silence_one(random.Random(1))()


def test_open_connections_fall_silent_and_new_ones_work(link: TcpLink) -> None:
    with connected(link) as connection:
        echo(connection, b"one")
        assert link.silence_open() == 1
        connection.sendall(b"two")
        assert is_silent(connection)
        with connected(link) as other:
            assert echo(other, b"three") == b"three"


def test_connections_that_have_sent_a_mark_fall_silent(server: Address) -> None:
    with TcpLink(server, marks=[b"reader"]) as link, connected(link) as reader, connected(link) as other:
        echo(reader, b"a reader here")
        echo(other, b"a writer here")
        assert link.silence_open(b"reader") == 1
        reader.sendall(b"one")
        assert is_silent(reader)
        assert echo(other, b"two") == b"two"


def test_a_link_leads_elsewhere_from_when_it_is_redirected(server: Address) -> None:
    with TcpLink(NOBODY) as link:
        # Nobody is there: it ends, and nothing else happens.
        with connected(link) as connection:
            assert is_ended(connection)
        link.lead_to(lambda: server)
        with connected(link) as connection:
            assert echo(connection, b"one") == b"one"


@pytest.mark.parametrize("is_silenced", [False, True], ids=["flowing", "silent"])
def test_what_is_open_ends_when_the_link_is_closed(server: Address, is_silenced: bool) -> None:
    with TcpLink(server) as link:
        before = connected(link)
        echo(before, b"one")
        if is_silenced:
            link.silence()
            before.sendall(b"two")
        late = connected(link)
    with before, late:
        assert is_ended(before)
        assert is_ended(late)


def test_a_connection_that_has_ended_is_forgotten(link: TcpLink) -> None:
    before = threading.active_count()
    for _ in range(20):
        with connected(link) as connection:
            echo(connection, b"one")

    assert wait_until(lambda: threading.active_count() <= before, seconds=DEADLINE_SECONDS)
    with connected(link) as connection:
        echo(connection, b"one")
        assert len(link._connections) == 1


@pytest.mark.parametrize("address", ["server", "nobody"])
@pytest.mark.parametrize("is_silenced", [False, True], ids=["flowing", "silent"])
def test_nothing_is_left_open_when_somebody_connects_while_a_link_closes(
    server: Address, address: str, is_silenced: bool
) -> None:
    before = threading.active_count()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(CLOSED):
            link = TcpLink(server if address == "server" else NOBODY)
            if is_silenced:
                link.silence()
            with Connecting(link) as connecting:
                assert connecting.goes_on.wait(DEADLINE_SECONDS)
                link.close()
        del link
        gc.collect()

    assert [str(warning.message) for warning in caught] == []
    assert wait_until(lambda: threading.active_count() <= before, seconds=DEADLINE_SECONDS)


class Connecting:
    """Makes connections to a link, one after the other, as long as the block lasts."""

    def __init__(self, link: TcpLink) -> None:
        self._link = link
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._connect)
        #: Set once it has connected.
        self.goes_on = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _connect(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError), connected(self._link) as connection:
                connection.sendall(b"one")
                self.goes_on.set()


def test_a_url_leads_over_the_link_to_the_same_database() -> None:
    with TcpLink(NOBODY) as link:
        for url, address in (
            ("postgresql://me:a%2Fb@/a%20b?host=/run/here&options=-cx%3Dy", "/run/here/.s.PGSQL.5432"),
            ("postgresql://me:a%2Fb@db.example:77/a%20b?options=-cx%3Dy&sslmode=require", ("db.example", 77)),
        ):
            there = conninfo_to_dict(link.postgres_url(url))

            assert postgres_address(url) == address
            assert (there["host"], int(there["port"]), there["sslmode"]) == ("127.0.0.1", link.port, "disable")
            assert [there[name] for name in ("user", "password", "dbname", "options")] == ["me", "a/b", "a b", "-cx=y"]
        for url, address, login, database in (
            ("unix:///run/here?db=3", "/run/here", "", 3),
            ("redis://me:secret@redis.example:77/2", ("redis.example", 77), "me:secret@", 2),
            ("redis://redis.example", ("redis.example", 6379), "", 0),
        ):
            assert redis_address(url) == address
            assert link.redis_url(url) == f"redis://{login}127.0.0.1:{link.port}/{database}"
