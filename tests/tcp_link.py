"""A port on loopback that leads to a server: it can go silent, end its connections, refuse them, lead elsewhere.

So do networks, poolers and load balancers. What is said over it is no matter of this module: of Postgres and Redis it
knows only where they are.

No socket is left open, whatever races: each is closed by one thread, the one that carries its connection, and others
only shut it down. Hence nobody ever shuts down a descriptor that has become another's.
"""

import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

from psycopg.conninfo import conninfo_to_dict

LOOPBACK = "127.0.0.1"
#: What is passed on at once, in bytes.
CHUNK = 65_536
#: How long a server may take to accept a connection, in seconds: as long may closing take, and no longer.
CONNECT_SECONDS = 5.0
#: How many greetings are kept: a link may be open for hours.
GREETINGS_KEPT = 100
#: Address of a server: a host and a port, or the path of a socket.
Address = tuple[str, int] | str
#: The same, or what gives it each time that somebody connects.
Target = Address | Callable[[], Address]


class TcpLink:
    """A port behind which a server is. Every method may be called from any thread.

    Args:
        target: Where the connections lead to.
        marks: What connections can be distinguished by, once a client has sent it: see silence_open.
    """

    def __init__(self, target: Target, *, marks: Collection[bytes] = ()) -> None:
        self._target = target
        self._marks = marks
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._is_silent = False
        self._is_shut = False
        #: How many connections were made so far.
        self.connections_made = 0
        #: What the latest clients have sent first.
        self.greetings: deque[bytes] = deque(maxlen=GREETINGS_KEPT)
        # Bound and never listening: nobody else is given the port while the link refuses connections.
        self._reserved = _bound()
        self.port: int = self._reserved.getsockname()[1]
        self.reopen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def postgres_url(self, url: str) -> str:
        """Return the URL of the same database through this link."""
        given = {name: value for name, value in conninfo_to_dict(url).items() if name != "hostaddr"}
        # The start comes first then, and not the question whether it may be encrypted.
        plain = {"host": LOOPBACK, "port": self.port, "sslmode": "disable", "gssencmode": "disable"}
        return f"postgresql://?{urlencode(given | plain, quote_via=quote)}"

    def redis_url(self, url: str) -> str:
        """Return the URL of the same database of a Redis through this link."""
        parts = urlsplit(url)
        database = parts.query.removeprefix("db=") if parts.scheme == "unix" else parts.path.strip("/")
        login, at, _server = parts.netloc.rpartition("@")
        return f"redis://{login}{at}{LOOPBACK}:{self.port}/{database or 0}"

    def silence(self) -> None:
        """Let nothing through any more, over what is open or will be; nobody notices, also not an end.

        What is sent after this has returned is kept back.
        """
        with self._lock:
            self._is_silent = True
            for connection in self._connections:
                connection.silence()

    def silence_open(self, mark: bytes = b"") -> int:
        """Let the open connections over which this mark was sent be silent, while new ones work.

        Returns how many there are.
        """
        found = [connection for connection in self._open() if not mark or mark in connection.marks]
        for connection in found:
            connection.silence()
        return len(found)

    def silence_one(self, choose: random.Random) -> Callable[[], None]:
        """Let one open connection be silent, while new ones work; the returned function ends it."""
        connections = self._open()
        if not connections:
            return lambda: None
        chosen = choose.choice(connections)
        chosen.silence()
        return chosen.end

    def heal(self) -> None:
        """Let everything through again, also what was kept back meanwhile."""
        with self._lock:
            self._is_silent = False
            for connection in self._connections:
                connection.heal()

    def cut(self) -> None:
        """End every connection, as a restart of the server does; new ones can be made."""
        for connection in self._open():
            connection.end()

    def shut(self) -> None:
        """End every connection and refuse new ones, as while the server is down."""
        with self._lock:
            self._is_shut = True
        if self._accepting.is_alive():
            # Whoever connects wakes it up; that the listener is shut down does so on Linux only.
            with suppress(OSError), socket.create_connection((LOOPBACK, self.port), CONNECT_SECONDS):
                pass
        self._accepting.join()
        self._listener.close()
        self.cut()

    def reopen(self) -> None:
        """Take connections again after they were refused."""
        self._is_shut = False
        self._listener = _bound(self.port)
        self._listener.listen()
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), name="link", daemon=True)
        self._accepting.start()

    def lead_to(self, target: Target) -> None:
        """Let every connection that is made from now on lead there."""
        self._target = target

    def close(self) -> None:
        """End everything. Once this returns nothing of the link is open or runs."""
        self.shut()
        for connection in self._connections:
            connection.join()
        self._connections.clear()
        self._reserved.close()

    def _open(self) -> list["_Connection"]:
        with self._lock:
            return [connection for connection in self._connections if connection.is_open]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _address = listener.accept()
            with self._lock:
                if self._is_shut:
                    client.close()
                    return
                self.connections_made += 1
                self._add(_Connection(client, self._target, self._marks, self.greetings))

    def _add(self, connection: "_Connection") -> None:
        # Those that have ended are forgotten when the next one comes: until then their threads can be joined.
        self._connections = [other for other in self._connections if other.is_running]
        self._connections.append(connection)
        if self._is_silent:
            connection.silence()
        connection.start()


class _Connection:
    """A client's connection and the one to the server that belongs to it.

    Its own thread connects, passes on what the client sends, and closes both; a second one passes on the answers.
    """

    def __init__(
        self, client: socket.socket, target: Target, marks: Collection[bytes], greetings: deque[bytes]
    ) -> None:
        self._client = client
        self._target = target
        self._looked_for = marks
        self._greetings = greetings
        self._has_greeted = False
        #: Those that the client has sent.
        self.marks: set[bytes] = set()
        self.is_open = True
        self._lock = threading.Lock()
        self._sockets = [client]
        self._flows = threading.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._carry, name="link connection", daemon=True)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def silence(self) -> None:
        """Keep back what comes after now, unless it has ended."""
        with self._lock:
            if self.is_open:
                self._flows.clear()

    def heal(self) -> None:
        """Pass on what was kept back."""
        self._flows.set()

    def end(self) -> None:
        """Close both sides, and pass nothing on any more."""
        with self._lock:
            self.is_open = False
            for end in self._sockets:
                # It may not be connected yet, or no more.
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._flows.set()

    def _carry(self) -> None:
        try:
            # A server that is down, or that has gone meanwhile, is an end as any other.
            with suppress(OSError):
                self._serve()
        finally:
            self.end()
            with self._lock:
                for end in self._sockets:
                    end.close()
                self._sockets.clear()

    def _serve(self) -> None:
        self._flows.wait()
        if not self.is_open:
            return
        server = self._connect()
        answers = threading.Thread(target=self._pass_on, args=(server, self._client), name="link answers", daemon=True)
        answers.start()
        self._pass_on(self._client, server)
        answers.join()

    def _connect(self) -> socket.socket:
        address = self._target() if callable(self._target) else self._target
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        server = socket.socket(family)
        with self._lock:
            self._sockets.append(server)
        server.settimeout(CONNECT_SECONDS)
        server.connect(address)
        server.settimeout(None)
        for end in (self._client, server):
            if end.family == socket.AF_INET:
                # Else small messages would wait for those before them to be acknowledged.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if source is self._client:
                    self._note(data)
                self._flows.wait()
                # Also if it was ended while the server was being connected to.
                if not self.is_open:
                    break
                sink.sendall(data)
        # An end is not passed on while there is silence; then both ways end together: none of the protocols here goes
        # on with half a connection.
        self._flows.wait()
        self.end()

    def _note(self, request: bytes) -> None:
        if not self._has_greeted:
            self._has_greeted = True
            self._greetings.append(request)
        self.marks.update(mark for mark in self._looked_for if mark in request)


def postgres_address(url: str) -> Address:
    """Return where the Postgres of a URL is."""
    parts = conninfo_to_dict(url)
    host, port = str(parts.get("host") or LOOPBACK), int(parts.get("port") or 5432)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def redis_address(url: str) -> Address:
    """Return where the Redis of a URL is."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else (parts.hostname or LOOPBACK, parts.port or 6379)


def _bound(port: int = 0) -> socket.socket:
    """Return a socket with this port, which it shares with others of ours, or with one that nobody has."""
    made = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    made.bind((LOOPBACK, port))
    return made
