"""What a run of deliveries works on: stores with endpoints, events in the outbox, a receiver, delivering processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from uuid import UUID, uuid4

import psycopg

from ..lanes.encoding import PlainCommand, decode_command, encode_command
from ..local.processes import wait_until
from ..schemas.commands import OpenAccount
from ..schemas.events import new_secret
from ..schemas.settings import Settings
from ..worker.store.transaction import LedgerStore
from .plan import BenchmarkFailed
from .worker_processes import environment_of

#: Accounts of each store, and commands that are decided in one transaction.
ACCOUNTS = 100
BATCH_COMMANDS = 1_000
#: How long a child may take to be there, in seconds.
START_SECONDS = 20.0

_PACKAGE = __name__.rpartition(".benchmarks.")[0]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: its path, its store, and how it answers."""

    path: str
    store_id: int
    endpoint_id: UUID

    @property
    def is_healthy(self) -> bool:
        """Whether it answers 200."""
        return self.path.startswith("/healthy/")


class Children:
    """The processes of a run: each started alone, killed alone, and all gone at the end."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory = directory
        self._environment = {**environment_of(settings), "CREDITLANE_WEBHOOK_ALLOWED_NETWORKS": "loopback"}
        self._logs: list[IO[bytes]] = []
        self.jobs: list[subprocess.Popen[bytes]] = []
        self.receiver: subprocess.Popen[bytes] | None = None
        self.port: int = _free_port()
        self.received_path: Path = directory / "received.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The receiver first: what is being waited for ends with it.
        self.kill_receiver()
        for process in self.jobs:
            process.terminate()
        for process in self.jobs:
            _end(process)
        for log in self._logs:
            log.close()

    def start_receiver(self) -> None:
        """Start the receiver, on the same port and with the same log as the one before."""
        self.receiver = self._start("benchmarks.webhook_receiver", str(self.port), str(self.received_path))
        if not wait_until(self._is_reachable, seconds=START_SECONDS):
            raise BenchmarkFailed("the receiver does not start")

    def start_jobs(self) -> None:
        """Start a process that delivers."""
        self.jobs.append(self._start("worker.jobs", "--queue", "deliveries"))

    def kill_receiver(self) -> None:
        """End the receiver as a crash would."""
        if self.receiver is not None:
            self.receiver.kill()
            self.receiver.wait()

    def kill_jobs(self) -> None:
        """End the oldest delivering process as a crash would, and start another."""
        process = self.jobs.pop(0)
        process.kill()
        process.wait()
        self.start_jobs()

    def check(self) -> None:
        """Raise BenchmarkFailed if one of them has ended by itself."""
        if any(process.poll() is not None for process in self.jobs):
            raise BenchmarkFailed(f"a delivering process ended by itself; see {self._directory}/children.log")

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self._directory / "children.log").open("ab")
        self._logs.append(log)
        return subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE}.{module}", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _is_reachable(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass(slots=True)
class Received:
    """What the receiver has written down, by path; read again and again while it grows."""

    path: Path
    ids: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    repeated: int = 0
    disagreeing: int = 0
    _offset: int = 0

    def read(self) -> None:
        """Take in what was written since the last read."""
        if not self.path.exists():
            return
        with self.path.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            path, identifier, agrees = line.split(" ")
            known = self.ids[path]
            self.repeated += identifier in known
            self.disagreeing += agrees != "1"
            known.add(identifier)


def make_endpoints(database_url: str, port: int, stores: int, kinds: Sequence[str]) -> list[Endpoint]:
    """Make stores, and deal endpoints of these kinds out to them."""
    endpoints = []
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into stores (public_id, name) select 'store_load_' || n, 'load' from generate_series(1, %s) as n",
            [stores],
        )
        found = connection.execute("select store_id from stores where public_id like 'store_load_%'").fetchall()
        for number, kind in enumerate(kinds):
            endpoint = Endpoint(f"/{kind}/{number}", found[number % stores][0], uuid4())
            endpoints.append(endpoint)
            connection.execute(
                "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, events, secret) "
                "values (%s, %s, 1, 1, %s, '{credits.granted}', %s)",
                [endpoint.store_id, endpoint.endpoint_id, f"http://127.0.0.1:{port}{endpoint.path}", new_secret()],
            )
        connection.execute("update installation set subscriptions_version = subscriptions_version + 1")
    return endpoints


def make_events(database_url: str, events: int) -> None:
    """Let so many credits happen, spread over the stores of the run, by the ledger's own code."""
    with psycopg.connect(database_url, prepare_threshold=None) as connection:
        stores = connection.execute(
            "select store_id, public_id from stores where public_id like 'store_load_%' order by store_id"
        ).fetchall()
        connection.commit()
        ledger = LedgerStore(connection, "load")
        for position, (store_id, public_id) in enumerate(stores):
            accounts = [f"cca_{store_id:016x}{number:016x}" for number in range(ACCOUNTS)]
            for account in accounts:
                command = OpenAccount(account_id=account, idempotency_key=account, customer_id="c", name=account)
                ledger.transact([((store_id, account), decode_command(encode_command(command, public_id)))], {})
            count = events // len(stores) + (position < events % len(stores))
            for start in range(0, count, BATCH_COMMANDS):
                numbers = range(start, min(start + BATCH_COMMANDS, count))
                ledger.transact([_credit(store_id, public_id, accounts, number) for number in numbers], {})


def _credit(
    store_id: int, public_id: str, accounts: Sequence[str], number: int
) -> tuple[tuple[int, str], PlainCommand]:
    account = accounts[number % len(accounts)]
    return (store_id, account), PlainCommand("credit", public_id, account, f"credit {number}", 1, f"order {number}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
