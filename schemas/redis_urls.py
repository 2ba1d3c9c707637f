"""URLs of Redis: read by a stricter reader than the driver's, so that no error repeats a part of a password.

The driver takes what is written after a password with a / or # in it for the port, the database or the path, and says
so in its error, or connects to something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis.connection import parse_url
from redis.exceptions import RedisError

from .errors import ConfigurationError

FORM = (
    "CREDITLANE_REDIS_URL must be like redis://host:6379/0, rediss://host:6379/0 or "
    "unix:///path/to/socket; percent-encode what is no letter or digit in a password"
)
OPTION = "CREDITLANE_REDIS_URL has an option after its ? that a connection to Redis does not take"

#: A host or none, in brackets an IPv6 address, and a port or none.
_ADDRESS = re.compile(r"(?:[^\s@:/?#\[\]]*|\[[0-9A-Fa-f:.%\w]+\])(?::\d{0,5})?")
_DATABASE = re.compile(r"/?|/\d+")


def check_redis_url(url: str) -> None:
    """Read the URL.

    Raises:
        ConfigurationError: it is no URL of Redis.
    """
    if not _is_redis_url(url):
        raise ConfigurationError(FORM)
    try:
        parse_url(url)  # type: ignore[no-untyped-call]  # redis-py is only partly typed
    except ValueError:
        raise ConfigurationError(FORM) from None


@contextmanager
def readable_redis_url(url: str) -> Iterator[None]:
    """Read the URL, then turn what the driver raises of it into an error that does not repeat it.

    Raises:
        ConfigurationError: it is no URL of Redis, or a connection does not take it.
    """
    check_redis_url(url)
    try:
        yield
    except ValueError:
        raise ConfigurationError(FORM) from None
    except (RedisError, TypeError):
        # What makes a connection of the library does not know an option, or not its value.
        raise ConfigurationError(OPTION) from None


def _is_redis_url(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    target, _, _ = rest.partition("?")
    authority, slash, path = target.partition("/")
    userinfo, at, address = authority.rpartition("@")
    if "#" in url or "@" in path or (at and not userinfo):
        return False
    if scheme == "unix":
        return not address and bool(path)
    if scheme not in {"redis", "rediss"} or "@" in rest.partition("?")[2]:
        return False
    return _ADDRESS.fullmatch(address) is not None and _DATABASE.fullmatch(slash + path) is not None
