"""Connections to Postgres for the work beside the lanes."""

from __future__ import annotations

from typing import Any

import psycopg

from ...schemas.settings import Settings
from ..connecting import CONNECT_TIMEOUT_SECONDS

#: What the sessions are called in Postgres. Not as a worker's: these do not write the journal.
SESSION_NAME = "creditlane-jobs"

Connection = psycopg.Connection[tuple[Any, ...]]


def connect(settings: Settings) -> Connection:
    """Return a new connection on which every statement is for itself, outside of `with connection.transaction()`.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached.
    """
    return psycopg.connect(
        settings.require_database_url(),
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name=SESSION_NAME,
        # Poolers in transaction mode give each transaction another server: nothing prepared may be relied on.
        prepare_threshold=None,
        # A peer that vanished without a word is noticed after about half a minute.
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )
