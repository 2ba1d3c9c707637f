"""Connections to Postgres for the work beside the lanes."""

from __future__ import annotations

from typing import Any

import psycopg

from ...schemas.settings import Settings
from ..connecting import session_options

#: What the sessions are called in Postgres. Not as a worker's: these do not write the journal.
SESSION_NAME = "creditlane-jobs"

Connection = psycopg.Connection[tuple[Any, ...]]


def connect(settings: Settings) -> Connection:
    """Return a new connection on which every statement is for itself, outside of `with connection.transaction()`.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached.
    """
    return psycopg.connect(settings.require_database_url(), autocommit=True, **session_options(SESSION_NAME))
