"""How both clients and the API reach Postgres: limits of number and time. The driver is imported elsewhere."""

from __future__ import annotations

import time

from ...schemas.errors import Unavailable

#: Most connections that one client holds.
MAX_CONNECTIONS = 4
#: How long one statement may take that only reads, in seconds.
STATEMENT_TIMEOUT_SECONDS = 5
#: How long one statement of an operator's command may take, in seconds.
OPERATOR_STATEMENT_SECONDS = 60
#: How long a read or a change may take in all, from waiting for a connection to the last row, in seconds.
READ_SECONDS = 5.0
#: How long closing waits for connections that are being made, in seconds.
CLOSE_SECONDS = 1.0
#: How long a connection that is not used stays open, in seconds.
IDLE_SECONDS = 300.0
#: Keys that one lookup asks for.
LOOKUP_KEYS = 1_000
#: What the sessions are called in Postgres.
SESSION_NAME = "creditlane-client"
#: The same for an operator's commands.
OPERATOR_SESSION_NAME = "creditlane-cli"


def read_until(timeout_seconds: float | None = None) -> float:
    """Return when a read that begins now is over, on the clock of `time.monotonic`: after `READ_SECONDS` at the latest.

    Raises:
        Unavailable: there is no time for one.
    """
    seconds = READ_SECONDS if timeout_seconds is None else min(timeout_seconds, READ_SECONDS)
    if seconds <= 0:
        raise Unavailable("Postgres was not asked: there was no time left for it")
    return time.monotonic() + seconds
