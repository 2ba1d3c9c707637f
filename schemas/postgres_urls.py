"""URLs of Postgres: read by a stricter reader than libpq, so that no error repeats a part of a password.

libpq takes what is written after a password with a / or a second @ in it for the port, the host or the database, and
says so when it connects. Needs the driver.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .errors import ConfigurationError

FORM = (
    "CREDITLANE_DATABASE_URL must be like postgresql://user@host:5432/database or libpq's key=value form; "
    "percent-encode what is no letter or digit in a password"
)

_SCHEME = re.compile(r"postgres(?:ql)?://")
#: Names, addresses, and paths of sockets, with commas between.
_HOSTS = re.compile(r"[^\s@?#]*|[/@][^,]*(?:,[/@][^,]*)*")
_PORTS = re.compile(r"[0-9,]*")
_OF_THE_ROLE = frozenset({"user", "password", "passfile"})


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


def as_role(url: str, role: str) -> str:
    """Return the URL of the same database for this role, without a password, and in the same form.

    The URL must be one that libpq takes.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        kept: dict[str, Any] = {
            name: value for name, value in conninfo_to_dict(url).items() if name not in _OF_THE_ROLE
        }
        return make_conninfo("", user=role, **kept)
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in _OF_THE_ROLE]
    # Slashes and equals signs stay as they are: no shell minds them, and paths of sockets can be read.
    given = urlencode(query, quote_via=quote, safe="/")
    return parts._replace(netloc=f"{quote(role, safe='')}@{hosts}", query=given, fragment="").geturl()


def _is_escaped(url: str) -> bool:
    """Return whether a URL has no @ but the one after the user and those in its query."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return True
    authority, _, rest = url[scheme.end() :].partition("/")
    return authority.count("@") <= 1 and "@" not in rest.partition("?")[0]
