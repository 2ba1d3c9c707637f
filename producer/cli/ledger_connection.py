"""How a command reaches Postgres for what is no business of the lanes: stores and keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from ...schemas.errors import NotMigrated, Unavailable
from ...schemas.installation import READ_INSTALLATION, check_installation
from ...schemas.postgres_errors import error_text
from ...schemas.postgres_sessions import connect
from ...schemas.roles import denied
from ...schemas.settings import Settings
from ..ledger_pool import operator_limits
from ..postgres import OPERATOR_SESSION_NAME


@contextmanager
def ledger_connection(settings: Settings) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Give a connection to the database of these settings; each statement is for itself.

    Raises:
        ConfigurationError: the database is not set, or not migrated, or does not let this role do it.
        Unavailable: it cannot be reached.
    """
    url = settings.require_database_url()
    try:
        with connect(url, name=OPERATOR_SESSION_NAME, limits=operator_limits()) as connection:
            check_installation(connection.execute(READ_INSTALLATION).fetchone(), settings.partitions)
            yield connection
    except psycopg.errors.UndefinedTable:
        raise NotMigrated from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise denied(error, "owner") from None
    except psycopg.OperationalError as error:
        raise Unavailable(f"Postgres cannot be reached: {error_text(error)}") from error
