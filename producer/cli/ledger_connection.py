"""How a command reaches Postgres for what is no business of the lanes: stores and keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from ...schemas.errors import NotMigrated, Unavailable
from ...schemas.installation import READ_INSTALLATION, check_installation
from ...schemas.postgres_sessions import Limits, connect
from ...schemas.settings import Settings

#: What the sessions are called in Postgres.
SESSION_NAME = "creditlane-cli"
#: What an operator asks for may take longer than what requests wait for.
OPERATOR_LIMITS = Limits(statement_seconds=60)


@contextmanager
def ledger_connection(settings: Settings) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Give a connection to the database of these settings; each statement is for itself.

    Raises:
        ConfigurationError: the database is not set, or not migrated.
        Unavailable: it cannot be reached.
    """
    try:
        with connect(settings.require_database_url(), name=SESSION_NAME, limits=OPERATOR_LIMITS) as connection:
            check_installation(connection.execute(READ_INSTALLATION).fetchone(), settings.partitions)
            yield connection
    except psycopg.errors.UndefinedTable:
        raise NotMigrated from None
    except psycopg.OperationalError as error:
        raise Unavailable(f"Postgres cannot be reached: {error}".strip()) from error
