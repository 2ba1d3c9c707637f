"""URLs of Postgres: read by a stricter reader than libpq, so that no error repeats a part of a password.

libpq takes what is written after a password with a / or a second @ in it for the port, the host or the database, and
says so when it connects. Needs the driver.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .errors import ConfigurationError

FORM = (
    "CREDITLANE_DATABASE_URL must be like postgresql://user@host:5432/database or libpq's key=value form; "
    "percent-encode what is no letter or digit in a password"
)

_SCHEME = re.compile(r"postgres(?:ql)?://")
#: Names, addresses, and paths of sockets, with commas between.
_HOSTS = re.compile(r"[^\s@?#]*|[/@][^,]*(?:,[/@][^,]*)*")
_PORTS = re.compile(r"[0-9,]*")


def readable_postgres_url(url: str) -> dict[str, Any]:
    """Return the parameters of a URL or of a key=value string, as libpq reads them.

    Raises:
        ConfigurationError: it is neither; without repeating it, which may hold a password.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigurationError(FORM) from None
    parts = {name: str(value) for name, value in given.items() if value is not None}
    hosts = f"{parts.get('host', '')},{parts.get('hostaddr', '')}".strip(",")
    is_sound = (
        _HOSTS.fullmatch(hosts) is not None
        and _PORTS.fullmatch(parts.get("port", "")) is not None
        and "://" not in parts.get("dbname", "")
        and _is_escaped(url)
    )
    if not is_sound:
        raise ConfigurationError(FORM)
    return given


def _is_escaped(url: str) -> bool:
    """Tell whether a URL has no @ but the one after the user and those in its query."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return True
    authority, _, rest = url[scheme.end() :].partition("/")
    return authority.count("@") <= 1 and "@" not in rest.partition("?")[0]
