"""Clients of both kinds behind one face, and a real worker process."""

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest

from creditlane import AsyncClient, Client, Settings

from ..roles import settings_of
from ..tcp_link import TcpLink, postgres_address

#: How long a worker process may take to stop, in seconds.
STOP_SECONDS = 20.0


class Part:
    """A part of an AsyncTwin, like its webhooks."""

    def __init__(self, twin: "AsyncTwin", part: Any) -> None:
        self._twin = twin
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return self._twin.blocking(getattr(self._part, name))


class AsyncTwin:
    """An AsyncClient on an event loop in a thread, behind the blocking client's face."""

    def __init__(self, settings: Settings) -> None:
        self._client = AsyncClient(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        return self.blocking(member) if callable(member) else Part(self, member)

    def blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._run(self._call(method, args, kwargs))

    def __repr__(self) -> str:
        return repr(self._client)

    def close(self) -> None:
        self._run(self._client.close())

    def end(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _call(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        outcome = method(*args, **kwargs)
        if inspect.isawaitable(outcome):
            return await outcome
        return self._pull(outcome)

    def _pull(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        done = object()
        while (item := self._run(_next_of(items, done))) is not done:
            yield item

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def _next_of(items: AsyncIterator[Any], done: object) -> Any:
    return await anext(items, done)


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(request: pytest.FixtureRequest) -> Iterator[Callable[[Settings], Client]]:
    """Makes clients, closed at the end. Each test that uses it runs for both kinds."""
    made: list[Client | AsyncTwin] = []

    def make(settings: Settings) -> Client:
        client = Client(settings) if request.param == "blocking" else AsyncTwin(settings)
        made.append(client)
        return cast("Client", client)

    yield make
    for client in made:
        client.end() if isinstance(client, AsyncTwin) else client.close()


@pytest.fixture
def client(make_client: Callable[[Settings], Client], settings: Settings) -> Client:
    """A client of the test's settings, of each kind in turn."""
    return make_client(settings)


@pytest.fixture
def link(database_url: str) -> Iterator[TcpLink]:
    """A way to Postgres that can go silent, be cut, or shut."""
    with TcpLink(postgres_address(database_url)) as link:
        yield link


@pytest.fixture
def far_url(link: TcpLink, database_url: str) -> str:
    """The URL of the database over the link."""
    return link.postgres_url(database_url)


@pytest.fixture
def far_settings(settings: Settings, far_url: str) -> Settings:
    """Settings whose way to Postgres is the link."""
    return settings.model_copy(update={"database_url": far_url})


@pytest.fixture
def far_client(make_client: Callable[[Settings], Client], far_settings: Settings) -> Client:
    """A client that reaches Postgres over the link, of each kind in turn."""
    return make_client(far_settings)


@pytest.fixture
def environment_of() -> Callable[[Settings], dict[str, str]]:
    """Gives the environment in which a child process has the given settings."""

    def environment(settings: Settings) -> dict[str, str]:
        values = settings.model_dump(exclude_none=True)
        return {**os.environ, **{f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}}

    return environment


@pytest.fixture
def start_worker(
    settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts worker processes with the test's settings; they stop at the end, by their own process id."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "creditlane.worker"]
        environment = environment_of(settings_of("worker", settings))
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(STOP_SECONDS)


@pytest.fixture
def running_worker(start_worker: Callable[[], "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
    """A worker process of the test's own."""
    return start_worker()
