"""How both clients reach Postgres: limits and options. The driver is imported at the first read, not before."""

from __future__ import annotations

from typing import Any

from ..schemas.errors import ConfigurationError

#: Most connections that one client holds.
MAX_CONNECTIONS = 4
#: How long a connection may take, and how long a reader waits for a free one, in seconds.
CONNECT_TIMEOUT_SECONDS = 5
#: How long one read may take, in seconds.
STATEMENT_TIMEOUT_SECONDS = 5
#: How long a connection that is not used stays open, in seconds.
IDLE_SECONDS = 300.0
#: Keys that one look-up asks for.
LOOKUP_KEYS = 1_000


def connection_options(url: str) -> dict[str, Any]:
    """Return the options of every connection: read-only, each statement for itself, with a limit on its time.

    Raises:
        ConfigurationError: it is no Postgres URL.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = str(conninfo_to_dict(url).get("options") or "")
    except ProgrammingError:
        # Without what it says: that repeats the URL, which may hold a password.
        raise ConfigurationError("CREDITLANE_DATABASE_URL must be like postgresql://user@host/database") from None
    limits = f"-c statement_timeout={STATEMENT_TIMEOUT_SECONDS}s -c default_transaction_read_only=on"
    return {
        "autocommit": True,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": f"{given} {limits}".strip(),
        # Named statements do not survive a pooler in transaction mode.
        "prepare_threshold": None,
        "application_name": "creditlane-client",
    }
