"""URLs of one database as another role uses them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_OF_THE_ROLE = frozenset({"user", "password", "passfile"})


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
