"""A real HTTP server that takes webhooks, on an event loop in a thread, and answers as the test wants."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

#: How long a test waits for what must happen, in seconds.
DEADLINE_SECONDS = 15.0


@dataclass(frozen=True)
class Received:
    """One request, byte for byte."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = msgspec.json.decode(self.body)
        return event

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


#: Writes an answer, or none.
Answer = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


def plain(status: int, body: bytes = b"ok", **headers: str) -> Answer:
    """Answer at once."""
    extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body)
        await writer.drain()

    return answer


async def hang(_writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


class Receiver:
    """Answers 200 to everything, unless a path is set otherwise: one answer after another, the last one for ever."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self._answers: dict[str, list[Answer]] = {}
        self._changed = threading.Condition()
        self._let_go = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_error: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, *answers: Answer) -> None:
        self._answers[path] = list(answers)

    async def hold(self, writer: asyncio.StreamWriter) -> None:
        """Answer when the test lets go."""
        await self._let_go.wait()
        await plain(200)(writer)

    def let_go(self) -> None:
        """Let everything that is held be answered."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def at(self, path: str) -> list[Received]:
        return [each for each in list(self.received) if each.path == path]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when it holds after a request, or fail."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_SECONDS), [each.path for each in self.received]

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while True:
                await self._serve_one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split(" ")[1]
        answers = self._answers.get(path, [plain(200)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        with self._changed:
            self.received.append(Received(path, headers, body))
            self._changed.notify_all()
        await answer(writer)
