"""How sessions with the ledger's Postgres are made and bounded.

Importing this imports the driver.
"""

from __future__ import annotations

from ...lanes.postgres.sessions import Limits
from ..ledger.read_limits import CLOSE_SECONDS, OPERATOR_STATEMENT_SECONDS, STATEMENT_TIMEOUT_SECONDS

#: How long the pool tries to make a connection before it leaves that to whoever needs one next, in seconds: its own
#: pauses double, and whoever comes after an outage must not wait for one.
RECONNECT_SECONDS = 1.0
#: After how long who waits for a connection lets the pool try anew, if it could not make one, in seconds.
ASK_AGAIN_SECONDS = 1.0
#: Said where Postgres may have committed, or not: whatever else it answers at a commit is a refusal.
COMMIT_UNANSWERED = "Postgres did not answer to the commit, so whether it is done is not known; look, or do it again"
#: Threads or tasks that make a pool's connections.
POOL_WORKERS = 3
#: How long closing a pool waits for each of them, one after the other, in seconds.
STOP_SECONDS = CLOSE_SECONDS / POOL_WORKERS


def read_limits() -> Limits:
    """Return what holds for statements for themselves: they only read, and not for long."""
    return Limits(statement_seconds=STATEMENT_TIMEOUT_SECONDS, read_only=True)


def operator_limits() -> Limits:
    """Return what holds for an operator's commands, which may take longer than what requests wait for."""
    return Limits(statement_seconds=OPERATOR_STATEMENT_SECONDS)
