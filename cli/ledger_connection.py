"""How a command reaches Postgres for what is no business of the lanes: stores and keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from ..lanes.postgres.errors import translated
from ..lanes.postgres.sessions import connect
from ..lanes.postgres.start_check import check_ledger
from ..producer.client.ledger_sessions import operator_limits
from ..producer.ledger.read_limits import OPERATOR_SESSION_NAME
from ..schemas.settings import Settings


@contextmanager
def ledger_connection(settings: Settings) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Give a connection to the database of these settings; each statement is for itself.

    Raises:
        ConfigurationError: the database is not set, or not migrated, or does not let this role do it.
        Unavailable: it cannot be reached.
    """
    url = settings.require_database_url()
    with translated("owner"), connect(url, name=OPERATOR_SESSION_NAME, limits=operator_limits()) as connection:
        check_ledger(connection, settings.partitions)
        yield connection
