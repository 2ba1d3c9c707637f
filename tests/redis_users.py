"""The users of Redis that everything under test connects as, so that a command or key that is missing fails a test.

Tests read and prepare as the user of `redis_url`, who may do everything. What they test connects as its own: sessions
of producers in this process, and processes by their settings.
"""

import secrets
from typing import Any

import pytest
import redis

from creditlane.lanes.redis.users import REDIS_USERS, RedisUser, acl_lines, as_user, hashed, user_name
from creditlane.producer.client._async.session import AsyncSession
from creditlane.producer.client._sync.session import Session
from creditlane.producer.operations import lane_status
from creditlane.schemas.settings import Settings

#: No words: logs do not show passwords, wherever these come up.
PASSWORDS: dict[RedisUser, str] = {user: secrets.token_hex(16) for user in REDIS_USERS}
#: Where the rules that are shipped can be had.
FIRST_VERSION = (7, 0)

#: The servers that have the users.
_servers: set[str] = set()


def lines_for(*prefixes: str) -> list[str]:
    """Return the lines of an ACL file with the users of these installations."""
    digests = {user: hashed(password) for user, password in PASSWORDS.items()}
    return [line for prefix in prefixes for line in acl_lines(prefix, digests)]


def note_server(url: str) -> None:
    """Note that this server has users."""
    _servers.add(url)


def has_users(url: str) -> bool:
    """Return whether this server has users."""
    return url in _servers


def admit(client: redis.Redis, url: str, prefix: str) -> None:
    """Make the users of an installation on a server that runs, if it is not too old for them."""
    version = str(client.info("server")["redis_version"]).split(".")
    if (int(version[0]), int(version[1])) >= FIRST_VERSION:
        for line in lines_for(prefix):
            client.execute_command("ACL", "SETUSER", *line.split()[1:])
        note_server(url)


def dismiss(client: redis.Redis, url: str, prefix: str) -> None:
    """Remove the users of an installation, and fail if one of them was refused anything."""
    if url not in _servers:
        return
    names = {user_name(user, prefix) for user in REDIS_USERS}
    refused = [entry for entry in client.acl_log() if entry["username"] in names and entry["reason"] != "auth"]
    client.acl_deluser(*names)
    assert refused == [], f"Redis has refused what a part needs; see lanes/redis/users.py: {refused}"


def redis_url_of(user: RedisUser, url: str, prefix: str) -> str:
    """Return the URL with which this user reaches the server."""
    return as_user(url, user_name(user, prefix), PASSWORDS[user]) if url in _servers else url


def as_redis_user(user: RedisUser, settings: Settings) -> Settings:
    """Return the settings of a process that is this user in Redis."""
    if settings.redis_url is None:
        return settings
    url = redis_url_of(user, settings.redis_url, settings.redis_prefix)
    return settings.model_copy(update={"redis_url": url})


@pytest.fixture(autouse=True)
def _producers_as_their_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every client and API of this process, and `status`, connect as the users that they are meant for."""
    for session in (Session, AsyncSession):
        monkeypatch.setattr(session, "__init__", _as_producer(session.__init__))
    ask = lane_status._ask_redis
    monkeypatch.setattr(
        lane_status, "_ask_redis", lambda settings, rest: ask(as_redis_user("operator", settings), rest)
    )


def _as_producer(initialise: Any) -> Any:
    def initialised(self: Any, settings: Settings, *arguments: Any, **options: Any) -> None:
        initialise(self, as_redis_user("producer", settings), *arguments, **options)

    return initialised
