"""RQ processes of the tests' own, and what they read."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
import redis
from rq import Queue

from creditlane.lanes.postgres import sessions as postgres_sessions
from creditlane.schemas.settings import Settings
from creditlane.worker.connections import connect_redis
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.entrypoints import ENTRY_POINTS, EntryPoint
from creditlane.worker.jobs.queues import open_queue

from ...redis_users import redis_url_of
from ...roles import url_of
from .tried_work import TESTS_REDIS_URL, install

#: How long anything may take before the test fails: far more than it takes, since the machine may be busy.
DEADLINE_SECONDS = 40.0
#: What jobs call that call `len`.
LENGTH = "creditlane.worker.jobs.length_of_the_tests.length"
RUNNER = Path(__file__).with_name("tried_work.py")

StartJobs = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """A connection of the kind that the work has, but of who may do everything: tests prepare with it."""
    with postgres_sessions.connect(settings.require_database_url(), name="test") as opened:
        yield opened


@pytest.fixture
def client_of_redis(settings: Settings) -> Iterator[redis.Redis]:
    with connect_redis(settings.require_redis_url()) as client:
        yield client


@pytest.fixture
def jobs_queue(settings: Settings, client_of_redis: redis.Redis) -> Queue:
    return open_queue(settings, "jobs", client_of_redis)


@pytest.fixture
def length_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that jobs may call, in this process: `len`, of a list of numbers."""
    module = ModuleType("creditlane.worker.jobs.length_of_the_tests")
    vars(module)["length"] = len
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = EntryPoint("jobs.length_of_the_tests", "length", tuple[list[int]])
    monkeypatch.setitem(ENTRY_POINTS, LENGTH, entry)


@pytest.fixture
def environment(
    settings: Settings, environment_of: Callable[[Settings], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment in which this process and others have the test's settings."""
    values = environment_of(settings)
    for name, value in values.items():
        if name.startswith("CREDITLANE_"):
            monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def effects(database_url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """The tests' own kinds of jobs, here too; gives what they brought about, in order of the due times."""
    assert environment
    install(monkeypatch.setitem)
    with psycopg.connect(database_url) as opened:
        opened.execute("create table effects (name text not null, due_at timestamptz not null)")
        opened.execute("grant all on effects to public")

    def read() -> list[Any]:
        with psycopg.connect(database_url) as opened:
            return opened.execute("select name, due_at from effects order by due_at").fetchall()

    return read


@pytest.fixture
def start_jobs(environment: dict[str, str]) -> Iterator[StartJobs]:
    """Starts RQ processes, with the tests' kinds when they are `tried`; they are gone at the end, by their own id."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(queue: str = "jobs", *failpoint: str, tried: bool = True) -> "subprocess.Popen[bytes]":
        real = ["-m", "creditlane.worker.jobs", "--queue", queue]
        command = [sys.executable, *([str(RUNNER), queue, *failpoint] if tried else real)]
        path = os.pathsep.join([str(RUNNER.parent), *sys.path])
        redis_url = redis_url_of("jobs", environment["CREDITLANE_REDIS_URL"], environment["CREDITLANE_REDIS_PREFIX"])
        own = {
            **environment,
            TESTS_REDIS_URL: environment["CREDITLANE_REDIS_URL"],
            "CREDITLANE_REDIS_URL": redis_url,
            "CREDITLANE_DATABASE_URL": url_of("jobs", environment["CREDITLANE_DATABASE_URL"]),
            "PYTHONPATH": path,
        }
        process = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def rq(redis_url: str, redis_prefix: str) -> Callable[..., str]:
    """Runs RQ's own command line on the test's Redis."""
    url = redis_url_of("operator", redis_url, redis_prefix)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "rq.cli", *arguments, "--url", url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS).stdout

    return run
