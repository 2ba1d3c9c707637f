"""Who the processes of the local stack are in its embedded Redis: the users that are shipped, new passwords each time.

They are no wall between processes of one system user, who has the socket; what is shipped is what is used every day.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from ..lanes.redis.users import REDIS_USERS, RedisUser, acl_lines, as_user, hashed, user_name
from ..schemas.roles import Part
from ..schemas.settings import Settings
from .redis_server import EmbeddedRedis

#: What each process is. Clients and operators get the URL of who has the socket, with which everything can be started.
_USERS_OF: Mapping[Part, RedisUser] = {"worker": "worker", "api": "producer", "jobs": "jobs"}


class RedisLogins:
    """The users of one installation on an embedded Redis."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._passwords: dict[RedisUser, str] = {user: secrets.token_hex(24) for user in REDIS_USERS}

    @property
    def acl(self) -> list[str]:
        """The lines of the server's configuration that make them."""
        return acl_lines(self._prefix, {user: hashed(password) for user, password in self._passwords.items()})

    def settings_of_parts(self, settings: Mapping[Part, Settings], server: object) -> dict[Part, Settings]:
        """Return the settings of each part with the URL of its user, if the server is ours and has them."""
        has_users = isinstance(server, EmbeddedRedis) and server.has_users
        return {part: self._as_user(part, own) if has_users else own for part, own in settings.items()}

    def _as_user(self, part: Part, settings: Settings) -> Settings:
        user = _USERS_OF.get(part)
        if user is None:
            return settings
        url = as_user(settings.require_redis_url(), user_name(user, self._prefix), self._passwords[user])
        return settings.model_copy(update={"redis_url": url})
