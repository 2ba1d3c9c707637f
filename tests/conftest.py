"""Servers, databases and key prefixes for the tests; every run, and every process of a run, has its own.

With CREDITLANE_TEST_DATABASE_URL and CREDITLANE_TEST_REDIS_URL the same tests run against servers that are there
already: the role needs CREATEDB and CREATEROLE, and nothing but databases, roles and keys of the tests' own making is
touched.
"""

import os
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import structlog

from creditlane.lanes.keys import Keys
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.schemas import redaction
from creditlane.schemas.settings import Settings

from .api_processes import serve_api
from .redis_users import _producers_as_their_user, admit, dismiss, lines_for, note_server
from .roles import _sessions_as_their_roles, migrate_with_roles, roles_on
from .scheduling import in_order, scheduler

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

__all__ = ["_producers_as_their_user", "_sessions_as_their_roles", "serve_api"]

#: Few enough that several accounts share a lane in every test.
PARTITIONS = 8


class DatabaseServer(Protocol):
    """What the fixtures need from a Postgres, embedded or given."""

    def create_database(self, name: str, *, template: str = "template1") -> str: ...

    def drop_database(self, name: str) -> None: ...


class GivenPostgres:
    """A Postgres that somebody else runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create_database(self, name: str, *, template: str = "template1") -> str:
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()

    def drop_database(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let long tests start first where several processes share them."""
    if hasattr(config, "workerinput"):
        in_order(items)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadFileScheduling | None":
    """Keep together what shares something costly."""
    return scheduler(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A directory of this test process: short, so that sockets fit, and not pytest's, which only its user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="creditlane-test-"))
    # As root: for the user of Postgres to pass through.
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server(workspace: Path) -> Iterator[EmbeddedPostgres]:
    """The embedded Postgres of this test process."""
    with EmbeddedPostgres(workspace / "postgres") as server:
        # The roles are the server's, and there also for a database in which nothing is migrated.
        migrate_with_roles(server.url, PARTITIONS)
        yield server
        server.stop(immediate=True)


@pytest.fixture(scope="session")
def redis_server(workspace: Path) -> Iterator[EmbeddedRedis]:
    """The embedded Redis of this test process."""
    with EmbeddedRedis(workspace / "redis") as server:
        yield server


@pytest.fixture
def own_postgres(workspace: Path) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Starts a Postgres that the test may stop and kill."""
    servers: list[EmbeddedPostgres] = []

    def start() -> EmbeddedPostgres:
        server = EmbeddedPostgres(workspace / f"own-{uuid.uuid4().hex[:12]}" / "postgres")
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop(immediate=True)
        shutil.rmtree(server.data_dir.parent)


@pytest.fixture
def own_redis(workspace: Path, own_prefix: str) -> Iterator[Callable[[], EmbeddedRedis]]:
    """Starts a Redis that the test may stop and kill, with the users of its prefix and of the prefix left out."""
    servers: list[EmbeddedRedis] = []

    def start() -> EmbeddedRedis:
        directory = workspace / f"own-{uuid.uuid4().hex[:12]}" / "redis"
        server = EmbeddedRedis(directory, acl=lines_for(Keys().prefix, own_prefix))
        servers.append(server)
        server.start()
        if server.has_users:
            note_server(server.url)
        return server

    yield start
    for server in servers:
        server.kill()
        shutil.rmtree(server.data_dir.parent)


@pytest.fixture(scope="session")
def database_server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    given = os.environ.get("CREDITLANE_TEST_DATABASE_URL")
    if given:
        with roles_on(given):
            yield GivenPostgres(given)
        return
    server: EmbeddedPostgres = request.getfixturevalue("postgres_server")
    yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    given = os.environ.get("CREDITLANE_TEST_REDIS_URL")
    if given:
        return given
    server: EmbeddedRedis = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture(scope="session")
def template_database(database_server: DatabaseServer) -> Iterator[str]:
    """The name of a migrated database; copying it takes a tenth of migrating another."""
    name = f"creditlane_template_{uuid.uuid4().hex}"
    try:
        url = database_server.create_database(name)
        migrate_with_roles(url, PARTITIONS)
        yield name
    finally:
        database_server.drop_database(name)


@pytest.fixture
def database_url(database_server: DatabaseServer, template_database: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"creditlane_test_{uuid.uuid4().hex}"
    yield database_server.create_database(name, template=template_database)
    database_server.drop_database(name)


@pytest.fixture
def empty_database_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database of the test's own with nothing in it."""
    name = f"creditlane_empty_{uuid.uuid4().hex}"
    yield database_server.create_database(name)
    database_server.drop_database(name)


@pytest.fixture
def own_prefix() -> str:
    """A start of keys of the test's own."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def redis_prefix(redis_url: str, own_prefix: str) -> Iterator[str]:
    """The same on the server of `redis_url`, with users of its own.

    The users, the keys, and RQ's that name it, are deleted afterwards, and no others.
    """
    prefix = own_prefix
    with redis.Redis.from_url(redis_url) as client:
        admit(client, redis_url, prefix)
    yield prefix
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"*{prefix}*", count=1_000):
            client.delete(key)
        client.srem("rq:queues", *(f"rq:queue:{prefix}-{queue}" for queue in ("deliveries", "jobs")))
        dismiss(client, redis_url, prefix)


@pytest.fixture
def settings(redis_url: str, database_url: str, redis_prefix: str) -> Settings:
    """Settings that reach this test's database and keys."""
    return Settings(redis_url=redis_url, database_url=database_url, redis_prefix=redis_prefix, partitions=PARTITIONS)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's own CREDITLANE_... variables, and the stack they name, out of the tests."""
    for name in os.environ:
        if name.startswith("CREDITLANE_") and not name.startswith("CREDITLANE_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _fresh_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what a test's URLs had for passwords: some are words that others' messages have, too."""
    monkeypatch.setattr(redaction, "_known", redaction._known)
    monkeypatch.setattr(redaction, "_any_known", redaction._any_known)


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """Forget what a test's command set up: the stream that it logs to is closed with the test."""
    standard_error, uncaught, uncaught_of_thread = sys.stderr, sys.excepthook, threading.excepthook
    yield
    structlog.reset_defaults()
    sys.stderr, sys.excepthook, threading.excepthook = standard_error, uncaught, uncaught_of_thread
