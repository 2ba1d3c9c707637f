"""A whole stack of a run's own: servers, workers, APIs, clients, and a link between each of them and each server."""

import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg

from creditlane import Client
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.producer.operations.api_keys import create_key
from creditlane.schemas.roles import Part
from creditlane.schemas.settings import Settings

from ..api_address import address_printed
from ..redis_users import lines_for, note_server, redis_url_of
from ..roles import REDIS_USERS_OF, migrate_with_roles, settings_of, url_of
from ..tcp_link import Address, Target, TcpLink, postgres_address, redis_address

ROOT = Path(__file__).parents[2]
PARTITIONS = 24
#: How long processes may take to start and to stop, in seconds; the machine may be busy.
DEADLINE_SECONDS = 60.0
_WORKER = ("-m", "creditlane.worker")
_API = ("-c", "from creditlane.cli.main import main; main()", "api", "--port", "0")
_OWNED = "select count(*) from leases where worker_id is null"


class Process:
    """One process of the run, which can be ended and started again; each start has a log of its own."""

    def __init__(
        self, name: str, arguments: Callable[[int], tuple[str, ...]], directory: Path, *, speaks: bool = False
    ) -> None:
        self.name = name
        self._speaks = speaks
        self._arguments = arguments
        self._directory = directory
        self._environment: Mapping[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        #: How often it was started.
        self.starts = 0
        self.links: dict[str, TcpLink] = {}

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it with these variables, or with those that it had before."""
        self._environment = self._environment if environment is None else environment
        self.starts += 1
        with (self._directory / f"{self.name}-{self.starts}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments(self.starts)],
                env=os.environ | self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._speaks else subprocess.DEVNULL,
                stderr=log,
                text=True,
            )

    def first_line(self) -> str:
        """Return what it says first, once it has."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> bool:
        """Ask it to end, and return whether it did in time; if not, it is killed."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        ended = wait_until(lambda: not self.is_running, seconds=DEADLINE_SECONDS)
        self.kill()
        return ended

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


class Stack:
    """The servers and processes of a run; gone when the block ends."""

    def __init__(self, directory: Path, *, workers: int, apis: int, lease_seconds: float, timeout: float) -> None:
        self.directory = directory
        self.timeout = timeout
        self.lease_seconds = lease_seconds
        self.postgres = EmbeddedPostgres(directory / "postgres")
        self.redis = EmbeddedRedis(directory / "redis", acl=lines_for(Keys().prefix))
        self.workers = [Process(f"worker-{number}", lambda _: _WORKER, directory) for number in range(workers)]
        self.apis = [Process(f"api-{number}", lambda _: _API, directory, speaks=True) for number in range(apis)]
        self.clients: list[Process] = []
        self.api_key = ""
        #: Where the servers are, also while they are not there.
        self.database_url = self.redis_url = ""
        self._api_urls: dict[str, str] = {}
        self._api_links: list[TcpLink] = []
        self._exit = ExitStack()
        # Those of clients are added when much runs already, and all of them end only after all processes.
        self._links = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()

    @property
    def settings(self) -> Settings:
        """Settings that reach the servers without a link."""
        return self._settings(self.database_url, self.redis_url)

    @property
    def api_urls(self) -> list[str]:
        """Where the APIs are, however often they were started."""
        return [f"http://127.0.0.1:{link.port}" for link in self._api_links]

    def start_api(self, api: Process, environment: Mapping[str, str] | None = None) -> None:
        """Start an API; its link leads to it once it has said where it is."""
        api.start(environment)
        threading.Thread(target=self._note_address, args=(api,), daemon=True).start()

    def _note_address(self, api: Process) -> None:
        # Empty if it was killed before it said anything.
        if line := api.first_line():
            self._api_urls[api.name] = address_printed(line)

    def add_client(self, name: str, arguments: Callable[[int], tuple[str, ...]]) -> None:
        """Start a client process."""
        client = Process(name, arguments, self.directory)
        self.clients.append(client)
        more = {"HISTORY_API_URLS": ",".join(self.api_urls), "HISTORY_API_KEY": self.api_key}
        client.start(self._environment_of(client, "client") | more)

    def stop_clients(self) -> None:
        """Let every client finish what it is about, and end."""
        for client in self.clients:
            client.signal(signal.SIGTERM)
        for client in self.clients:
            client.stop()

    def processes(self) -> Iterator[Process]:
        yield from (*self.workers, *self.apis, *self.clients)

    def _start(self) -> None:
        self._exit.callback(self._stop_servers)
        self.database_url, self.redis_url = self.postgres.start(), self.redis.start()
        if self.redis.has_users:
            note_server(self.redis_url)
        migrate_with_roles(self.database_url, PARTITIONS)
        with Client(settings_of("client", self.settings)) as client:
            # Nothing is sent, since no jobs run: what the workers publish stays in the outbox.
            client.webhooks.create(url="https://example.com/hook")
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            self.api_key = create_key(connection, self.settings.store, "histories")
        self._exit.callback(self._links.close)
        self._exit.callback(self._stop_processes)
        for worker in self.workers:
            worker.start(self._environment_of(worker, "worker"))
        for api in self.apis:
            self.start_api(api, self._environment_of(api, "api"))
            self._api_links.append(self._link(partial(self._api_address, api.name)))
        assert wait_until(self._is_ready, seconds=DEADLINE_SECONDS), "workers and APIs did not start"

    def _is_ready(self) -> bool:
        with psycopg.connect(self.database_url) as connection:
            unowned = connection.execute(_OWNED).fetchone()
        return unowned == (0,) and all(map(is_answering, self.api_urls))

    def _environment_of(self, process: Process, part: Part) -> dict[str, str]:
        """Return the settings of a process that reaches the servers over links of its own."""
        postgres = self._link(lambda: postgres_address(self.database_url))
        redis = self._link(lambda: redis_address(self.redis_url))
        process.links = {"postgres": postgres, "redis": redis}
        url = postgres.postgres_url(url_of(part, self.database_url))
        settings = self._settings(
            url, redis.redis_url(redis_url_of(REDIS_USERS_OF[part], self.redis_url, Keys().prefix))
        )
        values = settings.model_dump(exclude_none=True)
        return {f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}

    def _link(self, target: Target) -> TcpLink:
        return self._links.enter_context(TcpLink(target))

    def _api_address(self, name: str) -> Address:
        """Return where the API is, or has been last; nowhere before it has said so."""
        parts = urlsplit(self._api_urls.get(name, ""))
        return parts.hostname or "127.0.0.1", parts.port or 0

    def _settings(self, database_url: str, redis_url: str) -> Settings:
        return Settings(
            database_url=database_url,
            redis_url=redis_url,
            partitions=PARTITIONS,
            lease_seconds=self.lease_seconds,
            wait_timeout_seconds=self.timeout,
            log_format="json",
        )

    def _stop_processes(self) -> None:
        for process in self.processes():
            process.kill()

    def _stop_servers(self) -> None:
        self.redis.kill()
        self.postgres.stop(immediate=True)


def is_answering(url: str) -> bool:
    """Return whether the API serves its operations."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310 - an address of the run's own
            return True
    except (urllib.error.URLError, OSError):
        return False
