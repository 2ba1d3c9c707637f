"""A way to a server on which connections can go silent: they stay open, and nothing passes in either direction.

So does a stuck pooler or load balancer leave them, and keepalives of the operating system are answered all the while.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from creditlane.schemas.settings import Settings

#: What only the connections of one thread of a worker carry.
READER = b"XREAD"
ANNOUNCER = b"XADD"
APPLIER = b"creditlane-worker "
KEEPER = b"creditlane-worker\0"

_CHUNK = 65_536


class _Connection:
    """Two sockets, and what the client has sent of what can be recognised."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.marks: set[bytes] = set()
        self.is_silent = False
        self._closed = threading.Event()
        self._ends = (client, server)
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, target, source is client), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if is_request:
                    self.marks |= {mark for mark in (READER, ANNOUNCER, APPLIER, KEEPER) if mark in data}
                if self.is_silent:
                    self._closed.wait()
                    return
                target.sendall(data)
        # An end that closes is not told on by a connection that is silent.
        if not self.is_silent:
            self.close()

    def close(self) -> None:
        self._closed.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Way:
    """Passes connections on to a server, until some of them are told to be silent."""

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self._family = family
        self._address = address
        self._connections: list[_Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, mark: bytes) -> int:
        """Let the connections that have carried this mark be silent for ever. Returns how many there were."""
        found = [connection for connection in self._connections if mark in connection.marks]
        for connection in found:
            connection.is_silent = True
        return len(found)

    def close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(self._family)
                server.connect(self._address)
                self._connections.append(_Connection(client, server))


class Ways:
    """The ways of one worker to both servers."""

    def __init__(self, settings: Settings) -> None:
        self.postgres = Way(*_postgres_address(settings.require_database_url()))
        self.redis = Way(*_redis_address(settings.require_redis_url()))
        url = urlsplit(settings.require_redis_url())
        database = url.query.removeprefix("db=") if url.scheme == "unix" else url.path.strip("/")
        login = f"{url.netloc.rpartition('@')[0]}@" if "@" in url.netloc else ""
        self.settings = settings.model_copy(
            update={
                "database_url": make_conninfo(
                    settings.require_database_url(), host="127.0.0.1", port=self.postgres.port, sslmode="disable"
                ),
                "redis_url": f"redis://{login}127.0.0.1:{self.redis.port}/{database or 0}",
            }
        )

    def silence(self, mark: bytes) -> int:
        """Let the connections of one thread be silent for ever. Returns how many there were."""
        return self.postgres.silence(mark) + self.redis.silence(mark)


@contextlib.contextmanager
def ways_of(settings: Settings) -> Iterator[Ways]:
    """Give the ways for a worker, with the settings that lead over them; they end with the block."""
    ways = Ways(settings)
    try:
        yield ways
    finally:
        ways.postgres.close()
        ways.redis.close()


def _postgres_address(url: str) -> tuple[socket.AddressFamily, Any]:
    parts = conninfo_to_dict(url)
    host, port = str(parts.get("host") or "127.0.0.1"), int(str(parts.get("port") or 5432))
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host}/.s.PGSQL.{port}"
    return socket.AF_INET, (host, port)


def _redis_address(url: str) -> tuple[socket.AddressFamily, Any]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return socket.AF_UNIX, parts.path
    return socket.AF_INET, (parts.hostname or "127.0.0.1", parts.port or 6379)
