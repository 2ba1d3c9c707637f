"""The servers of a run: given by URL, or started for it in a temporary directory. Makes and removes databases."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import psycopg
import redis
from psycopg import sql
from sqlalchemy import make_url

from ..local.servers import EmbeddedPostgres, EmbeddedRedis
from ..schemas.errors import ConfigurationError

#: Keys that are removed in one go.
KEYS_PER_CALL = 5_000


class DatabaseServer(Protocol):
    """What a run needs of a Postgres, embedded or given."""

    def create_database(self, name: str, *, template: str = "template1") -> str: ...

    def drop_database(self, name: str) -> None: ...


class GivenPostgres:
    """A Postgres that somebody else runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database and return its URL.

        Raises:
            ConfigurationError: the role may not.
        """
        statement = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        try:
            self._execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigurationError(
                "The benchmark measures in databases of its own: give CREDITLANE_DATABASE_URL a role with CREATEDB, "
                "or leave it unset to have a Postgres started."
            ) from None
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, name: str) -> None:
        """Drop a database, if it is there, and with it every connection to it."""
        self._execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers, and the name that everything of this run carries on them."""

    postgres: DatabaseServer
    redis_url: str
    run_name: str

    def prefix(self, label: str) -> str:
        """Return the start of the Redis keys of one part of the run."""
        return f"{self.run_name}-{label}"

    def database_name(self, label: str) -> str:
        """Return the name of the database of one part of the run."""
        return f"{self.run_name}-{label}"

    @contextmanager
    def keys(self, label: str) -> Iterator[None]:
        """Remove the Redis keys of one part of the run afterwards."""
        try:
            yield
        finally:
            with redis.Redis.from_url(self.redis_url, protocol=2) as client:
                # A staged backlog's keys begin with the prefix and a dot, all others with the prefix and a colon.
                keys = client.scan_iter(match=f"{self.prefix(label)}[.:]*", count=KEYS_PER_CALL)
                while part := list(islice(keys, KEYS_PER_CALL)):
                    client.unlink(*part)

    @contextmanager
    def database(self, label: str, *, template: str = "template1") -> Iterator[str]:
        """Give the URL of a new database, and drop it afterwards."""
        name = self.database_name(label)
        url = self.postgres.create_database(name, template=template)
        try:
            yield url
        finally:
            self.postgres.drop_database(name)


@contextmanager
def running_servers(database_url: str | None, redis_url: str | None) -> Iterator[Servers]:
    """Give the servers of these URLs, started here where there is none, and stop what was started."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="creditlane-bench-"))
        # As root: for the user of Postgres to pass through.
        directory.chmod(0o711)
        stack.callback(shutil.rmtree, directory)
        postgres: DatabaseServer
        if database_url is None:
            embedded = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
            # What is in it is thrown away, so its last checkpoint can be spared.
            stack.callback(embedded.stop, immediate=True)
            postgres = embedded
        else:
            postgres = GivenPostgres(database_url)
        if redis_url is None:
            redis_url = stack.enter_context(EmbeddedRedis(directory / "redis")).url
        yield Servers(postgres, redis_url, f"bench-{secrets.token_hex(6)}")
