"""TCP links between the processes of a run, which can fall silent, be cut, or carry half of their connections."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

_T = TypeVar("_T")

#: What is passed on at once, in bytes.
CHUNK = 65_536
#: Address of a server: a host and a port, or the path of a socket.
Address = tuple[str, int] | str


class Network:
    """Carries all links of a run, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    def link(self, target: Callable[[], Address]) -> "Link":
        """Return a new link to whatever address the target has when somebody connects."""
        link = Link(target, self)
        self._servers.append(self.run(link.open()))
        return link

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do the work where the links are, and return what it gives."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def close(self) -> None:
        """End everything."""
        self.run(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_all(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Connection:
    """One connection that passes through a link."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        for writer in self.writers:
            with suppress(RuntimeError):
                writer.transport.abort()


class Link:
    """A port on loopback behind which a server is. Every method may be called from any thread."""

    def __init__(self, target: Callable[[], Address], network: Network) -> None:
        self._target = target
        self._network = network
        self._connections: set[_Connection] = set()
        self._is_silent = False
        self._is_cut = False
        self.port = 0

    async def open(self) -> asyncio.Server:
        """Begin to listen, on a port that is free."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def silence(self) -> None:
        """Let nothing through any more, over what is open or will be; nobody is told."""
        self._network.run(self._set(silent=True, cut=False))

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._network.run(self._set(silent=False, cut=True))

    def heal(self) -> None:
        """Let everything through again, also what was kept back meanwhile."""
        self._network.run(self._set(silent=False, cut=False))

    def silence_one(self, choose: random.Random) -> Callable[[], None]:
        """Let one open connection fall silent while new ones work; the returned function breaks it."""
        return self._network.run(self._silence_one(choose))

    async def _set(self, *, silent: bool, cut: bool) -> None:
        self._is_silent, self._is_cut = silent, cut
        for connection in list(self._connections):
            if cut:
                connection.cut()
            if silent:
                connection.flows.clear()
            else:
                connection.flows.set()

    async def _silence_one(self, choose: random.Random) -> Callable[[], None]:
        connections = sorted(self._connections, key=id)
        if not connections:
            return lambda: None
        chosen = choose.choice(connections)
        chosen.flows.clear()
        return lambda: self._network.run(self._break(chosen))

    @staticmethod
    async def _break(connection: _Connection) -> None:
        connection.cut()
        connection.flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection()
        connection.writers.append(writer)
        if self._is_cut:
            connection.cut()
            return
        if self._is_silent:
            connection.flows.clear()
        self._connections.add(connection)
        try:
            await connection.flows.wait()
            there, back = await self._connect()
            connection.writers.append(back)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(reader, back, connection))
                tasks.create_task(_pass_on(there, writer, connection))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # One side has gone, or the run is over: either way this is the end of the connection.
            pass
        finally:
            connection.cut()
            self._connections.discard(connection)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._target()
        if isinstance(address, str):
            return await asyncio.open_unix_connection(address)
        return await asyncio.open_connection(*address)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection) -> None:
    while data := await reader.read(CHUNK):
        await connection.flows.wait()
        writer.write(data)
        await writer.drain()
    # Both ways end together: none of the protocols here goes on with half a connection.
    raise ConnectionResetError


def address_of(url: str) -> Address:
    """Return the host and port that a URL names."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 0
