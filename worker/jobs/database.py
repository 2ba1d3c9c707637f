"""Connections to Postgres for the work beside the lanes."""

from __future__ import annotations

from typing import Any

import psycopg

from ...schemas import postgres_sessions
from ...schemas.settings import Settings

#: What the sessions are called in Postgres. Not as a worker's: these do not write the journal.
SESSION_NAME = "creditlane-jobs"

Connection = psycopg.Connection[tuple[Any, ...]]


def connect(settings: Settings) -> Connection:
    """Return a new connection on which every statement is for itself, outside of `with connection.transaction()`.

    Raises:
        ConfigurationError: the database is none that can hold a ledger.
        psycopg.OperationalError: Postgres cannot be reached.
    """
    return postgres_sessions.connect(settings.require_database_url(), name=SESSION_NAME)
