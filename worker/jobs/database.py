"""Connections to Postgres for the work beside the lanes."""

from __future__ import annotations

from typing import Any

import psycopg

from ...schemas.settings import Settings
from ..connecting import session_options
from ..deadlines import SILENCE_SECONDS, DeadlineConnection, silent_for

#: What the sessions are called in Postgres. Not as a worker's: these do not write the journal.
SESSION_NAME = "creditlane-jobs"

Connection = psycopg.Connection[tuple[Any, ...]]

#: What says that Postgres cannot be used now, whatever the statement: it is gone, silent, short of something, or lets
#: nothing be written, as after a fail-over or with a full disk. The work is done later, by a new connection.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)


def connect(settings: Settings, *, silence_seconds: float = SILENCE_SECONDS) -> DeadlineConnection:
    """Return a new connection on which every statement is for itself, outside of `with connection.transaction()`.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached. Later: it was silent for so many seconds.
    """
    url = settings.require_database_url()
    connection = DeadlineConnection.connect(url, autocommit=True, **session_options(SESSION_NAME))
    connection.is_overdue = silent_for(silence_seconds)
    return connection
