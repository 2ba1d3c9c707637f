"""The roles that everything under test connects as, so that a grant that is missing fails a test.

Tests read and prepare as the role of `database_url`, which may do everything. What they test connects as its own role:
sessions in this process by their name, processes by their settings.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from creditlane.lanes.postgres.migrate import migrate
from creditlane.lanes.postgres.role_setup import RoleSetup
from creditlane.lanes.postgres.sessions import AsyncPostgresSession, PostgresSession
from creditlane.lanes.redis.users import RedisUser
from creditlane.local.postgres_server import ROLE
from creditlane.schemas.postgres_urls import as_role
from creditlane.schemas.roles import PARTS, Part, role_name
from creditlane.schemas.settings import Settings

from .redis_users import as_redis_user

#: What connects under these names, of which the first words are compared.
PARTS_OF_SESSIONS: dict[str, Part] = {
    "creditlane-worker": "worker",
    "creditlane-jobs": "jobs",
    "creditlane-api": "api",
    "creditlane-client": "client",
    "creditlane-verify": "client",
    "creditlane-cli": "owner",
}
#: Who is which user of Redis.
REDIS_USERS_OF: dict[Part, RedisUser] = {
    "owner": "operator",
    "worker": "worker",
    "api": "producer",
    "jobs": "jobs",
    "client": "producer",
}


class Roles(NamedTuple):
    """The roles of one server."""

    prefix: str = "creditlane"
    #: None: they need none.
    password: str | None = None

    @property
    def setup(self) -> RoleSetup:
        return RoleSetup(self.prefix, dict.fromkeys(PARTS, self.password) if self.password else {})


#: By who prepares and reads: the embedded servers' role, and on a given server the one of its URL.
_roles: dict[str, Roles] = {ROLE: Roles()}


@contextmanager
def roles_on(url: str) -> Iterator[None]:
    """Have roles of this run's own on a server that is given, beside any others, and remove them afterwards."""
    user = urlsplit(url).username or ""
    _roles[user] = roles = Roles(f"test_{secrets.token_hex(6)}", secrets.token_hex(12))
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            for part in PARTS:
                name = sql.Identifier(role_name(part, roles.prefix))
                connection.execute(sql.SQL("drop role if exists {}").format(name))


def migrate_with_roles(url: str, partitions: int) -> None:
    """Make a ledger with roles, which tests may read."""
    migrate(url, partitions=partitions, roles=setup_of(url))
    let_tests_read(url)


def setup_of(url: str) -> RoleSetup:
    """Return the roles of this server."""
    return _roles[str(conninfo_to_dict(url)["user"])].setup


def let_tests_read(url: str) -> None:
    """Let the role of the URL look into the sessions of the others and end them."""
    setup = setup_of(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for name in setup.names().values():
            connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(name)))


def url_of(part: Part, url: str) -> str:
    """Return the URL with which this part reaches the database."""
    roles = _roles.get(str(conninfo_to_dict(url).get("user")))
    if roles is None:
        return url
    theirs = as_role(url, role_name(part, roles.prefix))
    return theirs.replace("@", f":{quote(roles.password)}@", 1) if roles.password else theirs


def settings_of(part: Part, settings: Settings) -> Settings:
    """Return the settings of a process of this part, with its role in Postgres and its user of Redis."""
    settings = as_redis_user(REDIS_USERS_OF[part], settings)
    if settings.database_url is None:
        return settings
    return settings.model_copy(update={"database_url": url_of(part, settings.database_url)})


@pytest.fixture(autouse=True)
def _sessions_as_their_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every session of this process that is one of Creditlane's parts connect as that part's role."""
    connect, connect_async = PostgresSession.connect.__func__, AsyncPostgresSession.connect.__func__  # type: ignore[attr-defined]

    def as_its_part(cls: Any, conninfo: str = "", **options: Any) -> Any:
        return connect(cls, conninfo, **_with_role(conninfo, options))

    async def as_its_part_async(cls: Any, conninfo: str = "", **options: Any) -> Any:
        return await connect_async(cls, conninfo, **_with_role(conninfo, options))

    monkeypatch.setattr(PostgresSession, "connect", classmethod(as_its_part))
    monkeypatch.setattr(AsyncPostgresSession, "connect", classmethod(as_its_part_async))


def _with_role(conninfo: str, options: dict[str, Any]) -> dict[str, Any]:
    part = PARTS_OF_SESSIONS.get(str(options.get("application_name")).partition(" ")[0])
    roles = _roles.get(str(conninfo_to_dict(conninfo).get("user")))
    if part is None or roles is None:
        return options
    own = {"user": role_name(part, roles.prefix), "password": roles.password}
    return {**options, **{name: value for name, value in own.items() if value}}
