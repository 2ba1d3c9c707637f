"""A way to a server that can go silent: open, accepting, and passing nothing on, as a stuck pooler leaves it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict


class SilentProxy:
    """Passes bytes from a port of its own to the server of a database and back, while it is not silent."""

    def __init__(self, database_url: str) -> None:
        self._server = conninfo_to_dict(database_url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        #: What clients have sent first.
        self.greetings: list[bytes] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_error: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The URL of the database through this."""
        user, password = self._server.get("user"), self._server.get("password")
        given = f"{quote(str(user), safe='')}{f':{quote(str(password), safe=str())}' if password else ''}"
        # The start comes first then, and not the question whether it may be encrypted.
        plain = "sslmode=disable&gssencmode=disable"
        return f"postgresql://{given}@127.0.0.1:{self.port}/{quote(str(self._server['dbname']), safe='')}?{plain}"

    def freeze(self) -> None:
        """Be silent: connections stay, and new ones are taken, but nothing comes through."""
        self._run(self._set(self._flowing.clear))

    def thaw(self) -> None:
        """Let through again what was sent meanwhile, and what comes."""
        self._run(self._set(self._flowing.set))

    def cut(self) -> None:
        """End every connection, as a restart of the server does."""
        self._run(self._close_all())

    def shut(self) -> None:
        """End every connection and refuse new ones, as while the server is down."""
        self._run(self._shut())

    def reopen(self) -> None:
        """Take connections again."""
        self._run(self._listen())

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        await self._listen()

    async def _shut(self) -> None:
        self._listener.close()
        await self._close_all()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _set(self, change: Callable[[], None]) -> None:
        change()

    async def _close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        self._writers.clear()

    async def _stop(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Afterwards, as they may have connected meanwhile; and what was closed on the way is so with the next round.
        await self._close_all()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        try:
            with suppress(OSError, asyncio.CancelledError):
                to_reader, to_writer = await self._connect()
                self._writers.append(to_writer)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, to_writer, self.greetings))
                    both.create_task(self._pump(to_reader, writer))
        finally:
            # Also of one that came in while all were being ended.
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._server["host"]), int(self._server.get("port") or 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: list[bytes] | None = None
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if first is not None:
                    first.append(data)
                    first = None
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            writer.close()
