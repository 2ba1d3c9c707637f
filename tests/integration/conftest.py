"""Clients of every kind behind one face, and a real worker process."""

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
from creditlane.schemas.commands import Command
from creditlane.schemas.results import Result
from creditlane.testing import AsyncFakeClient, FakeClient, FakeLedger

from ..roles import settings_of
from ..tcp_link import TcpLink, postgres_address
from .direct_store import DirectStore, add_store

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
    """An asynchronous client on an event loop in a thread, behind the blocking client's face."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
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


#: Makes a client of each kind, given the ledger that the fakes of a test share.
KINDS: dict[str, Callable[[Settings, FakeLedger], Client | AsyncTwin]] = {
    "blocking": lambda settings, _: Client(settings),
    "asyncio": lambda settings, _: AsyncTwin(AsyncClient(settings)),
    "fake": lambda settings, ledger: FakeClient(settings, ledger=ledger),
    "asyncio fake": lambda settings, ledger: AsyncTwin(AsyncFakeClient(settings, ledger=ledger)),
}
FAKES = frozenset({"fake", "asyncio fake"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of clients for both kinds, and for both fakes if it is about behaviour alone."""
    if "make_client" in metafunc.fixturenames:
        is_shared = metafunc.definition.get_closest_marker("conformance") is not None
        kinds = [kind for kind in KINDS if is_shared or kind not in FAKES]
        metafunc.parametrize("make_client", kinds, indirect=True)


def is_fake(request: pytest.FixtureRequest) -> bool:
    """Return whether the test has clients without servers."""
    parameters = getattr(request.node, "callspec", None)
    return parameters is not None and parameters.params.get("make_client") in FAKES


@pytest.fixture
def fake_ledger() -> FakeLedger:
    """What the fakes of one test share."""
    return FakeLedger()


@pytest.fixture
def make_client(request: pytest.FixtureRequest, fake_ledger: FakeLedger) -> Iterator[Callable[[Settings], Client]]:
    """Makes clients, closed at the end. Each test that uses it runs for every kind that it is about."""
    made: list[Client | AsyncTwin] = []

    def make(settings: Settings) -> Client:
        made.append(KINDS[request.param](settings, fake_ledger))
        return cast("Client", made[-1])

    yield make
    for client in made:
        client.end() if isinstance(client, AsyncTwin) else client.close()


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """Settings that reach this test's database and keys; without servers, ones that reach nothing."""
    real: Settings = Settings() if is_fake(request) else request.getfixturevalue("settings")
    return real


@pytest.fixture
def make_store(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Makes a store; in a ledger in memory every one is there."""
    if is_fake(request):
        return lambda _: None
    database_url: str = request.getfixturevalue("database_url")
    return lambda store: add_store(database_url, store)


class BooksInMemory:
    """Applies commands to the ledger that the fakes of a test share, as `DirectStore` does to Postgres."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._client = FakeClient(ledger=ledger)

    def apply(self, *commands: Command) -> list[Result]:
        return [self._client.wait(ticket) for ticket in self._client.enqueue_many(commands)]


@pytest.fixture
def books(request: pytest.FixtureRequest, fake_ledger: FakeLedger) -> Iterator[DirectStore | BooksInMemory]:
    """The ledger of the test's clients, written to without any worker."""
    if is_fake(request):
        yield BooksInMemory(fake_ledger)
        return
    with DirectStore(request.getfixturevalue("database_url")) as store:
        yield store


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
def running_worker(request: pytest.FixtureRequest) -> "subprocess.Popen[bytes] | None":
    """A worker process of the test's own; none beside clients without servers."""
    if is_fake(request):
        return None
    start: Callable[[], subprocess.Popen[bytes]] = request.getfixturevalue("start_worker")
    return start()
