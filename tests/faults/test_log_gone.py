"""A log that cannot be written does not matter: everything goes on, and stops when it is asked to."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from creditlane import Client
from creditlane.local.servers import EmbeddedRedis
from creditlane.schemas.errors import CreditlaneError
from creditlane.schemas.roles import Part
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.status import living_processes

from ..ports import free_port
from ..roles import settings_of
from .worker_processes import DEADLINE_SECONDS, RUNNER, environment, wait_for

PARTS = {
    "worker": ["-m", "creditlane.worker"],
    "jobs": ["-m", "creditlane.worker.jobs", "--queue", "jobs"],
    "deliveries": ["-m", "creditlane.worker.jobs", "--queue", "deliveries"],
    "api": ["-c", "from creditlane.cli.main import main; main()", "api", "--port"],
}
#: The role of each that is no worker, by a word of its command.
ROLES: dict[str, Part] = {"creditlane.worker.jobs": "jobs", "api": "api"}
OWNED = "select count(*) from leases where worker_id is not null"


class Sink:
    """Where processes write their log, by a descriptor that children inherit."""

    def __init__(self, kind: str) -> None:
        if kind == "full disk":
            self.writing, self._reading = os.open("/dev/full", os.O_WRONLY), -1
            return
        self._reading, self.writing = os.pipe()
        if kind == "reader gone":
            self.lose_reader()
        elif kind == "nobody reads":
            os.set_blocking(self.writing, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(self.writing, b"\n" * 4096)
            os.set_blocking(self.writing, True)

    def lose_reader(self) -> None:
        os.close(self._reading)
        self._reading = -1

    def close(self) -> None:
        for descriptor in {self.writing, self._reading} - {-1}:
            os.close(descriptor)


@pytest.fixture
def own(settings: Settings, own_redis: Callable[[], EmbeddedRedis]) -> tuple[Settings, EmbeddedRedis]:
    """Settings with a Redis that may be killed."""
    server = own_redis()
    return settings.model_copy(
        update={"redis_url": server.url, "lease_seconds": 3.0, "wait_timeout_seconds": 5.0}
    ), server


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts processes whose output goes to a sink; they are gone at the end, by their own id."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(settings: Settings, sink: Sink, *command: str) -> "subprocess.Popen[bytes]":
        part = next((role for word, role in ROLES.items() if word in command), "worker")
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | environment(settings_of(part, settings)),
            stdin=subprocess.DEVNULL,
            stdout=sink.writing,
            stderr=sink.writing,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def commands(port: int) -> dict[str, list[str]]:
    """Return what runs each part, the API on this port."""
    return {**PARTS, "api": [*PARTS["api"], str(port)]}


def status_of(port: int, path: str) -> int | None:
    """Return the status of the API's answer; None if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def applied(client: Client, key: str) -> None:
    """Open an account, however often that takes; under one key it is one account."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            client.open_account(customer_id=key, idempotency_key=key)
        except CreditlaneError:
            assert time.monotonic() < deadline, f"nothing is applied: {key}"
        else:
            return


@pytest.mark.parametrize("kind", ["full disk", "reader gone", "nobody reads", "reader goes"])
def test_every_process_goes_on_without_its_log(
    kind: str, own: tuple[Settings, EmbeddedRedis], start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    """Given a log that cannot be written, from the start or later, when Redis was away, which is worth a warning to
    each part, then every part is at work again, and ends well when it is asked to."""
    settings, server = own
    sink, port = Sink(kind), free_port()
    parts = {name: start(settings, sink, *command) for name, command in commands(port).items()}
    with Client(settings) as client:
        applied(client, "before")
        wait_for(lambda: living_processes(settings, "jobs") and living_processes(settings, "deliveries"), "the jobs")
        wait_for(lambda: status_of(port, "/readyz") == 200, "the API")
        if kind == "reader goes":
            sink.lose_reader()

        server.kill()
        server.start()

        applied(client, "after")
        with redis.Redis.from_url(server.url) as redis_client:
            redis_client.delete(*redis_client.keys("rq:worker*"))
        wait_for(lambda: living_processes(settings, "jobs") and living_processes(settings, "deliveries"), "jobs again")
        # Each answer has its line in the log.
        wait_for(lambda: status_of(port, "/nothing") == 404, "the API again")
        wait_for(lambda: status_of(port, "/readyz") == 200, "the API again")
    assert {name: part.poll() for name, part in parts.items()} == dict.fromkeys(parts)
    for part in parts.values():
        part.send_signal(signal.SIGTERM)
    assert {name: part.wait(DEADLINE_SECONDS) for name, part in parts.items()} == dict.fromkeys(parts, 0)
    sink.close()


@pytest.mark.parametrize("kind", ["full disk", "reader gone"])
@pytest.mark.parametrize("step", ["read", "commit", "announce"])
def test_a_part_that_fails_ends_the_worker_also_without_a_log(
    step: str, kind: str, own: tuple[Settings, EmbeddedRedis], start: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    """Given a worker whose log cannot be written, when one of its threads fails, then it ends and gives its lanes
    back."""
    settings, _ = own
    sink = Sink(kind)
    worker = start(settings, sink, str(RUNNER), "raise", step, "1")
    with Client(settings) as client:
        client.enqueue(opening())

        assert worker.wait(DEADLINE_SECONDS) != 0

    with psycopg.connect(settings.require_database_url()) as connection:
        assert connection.execute(OWNED).fetchone() == (0,)
    sink.close()


def opening() -> Any:
    from creditlane import OpenAccount

    return OpenAccount(customer_id="ann")


def test_what_cannot_be_logged_at_the_end_does_not_change_how_it_ends(
    settings: Settings, start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    """Given settings that are wrong and a full disk, then each part ends with the code that says so."""
    wrong = settings.model_copy(update={"database_url": None})
    sink = Sink("full disk")
    for name, command in commands(free_port()).items():
        assert start(wrong, sink, *command).wait(DEADLINE_SECONDS) == 1, name
    sink.close()
    assert tmp_path.is_dir()
