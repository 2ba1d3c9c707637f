"""Connections to Postgres for the work beside the lanes."""

from __future__ import annotations

from typing import Any

import psycopg

from ...lanes.postgres import sessions as postgres_sessions
from ...lanes.postgres.sessions import SILENCE_SECONDS, PostgresSession, silent_for
from ...schemas.settings import Settings

#: What the sessions are called in Postgres. Not as a worker's: these do not write the journal.
SESSION_NAME = "creditlane-jobs"

Connection = psycopg.Connection[tuple[Any, ...]]

#: What says that Postgres cannot be used now, whatever the statement: it is gone, silent, short of something, or lets
#: nothing be written, as after a fail-over or with a full disk. The work is done later, by a new connection.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)


def connect(settings: Settings, *, silence_seconds: float = SILENCE_SECONDS) -> PostgresSession:
    """Return a new connection on which every statement is for itself, outside of `with connection.transaction()`.

    Raises:
        ConfigurationError: the database is none that can hold a ledger.
        psycopg.OperationalError: Postgres cannot be reached. Later: it was silent for so many seconds.
    """
    session = postgres_sessions.connect(settings.require_database_url(), name=SESSION_NAME)
    session.is_overdue = silent_for(silence_seconds)
    return session
