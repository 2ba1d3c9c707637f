"""Up to which moment the jobs may take the journal for complete; `audit/watermark.py` says how that is known."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import psycopg

from ...audit.watermark import FIND_UNFINISHED, READ_WRITERS, writers_of
from .database import Connection

#: The watermark lags behind the clock by so much at least, in seconds: a clock that is put right may go back a little.
LAG_SECONDS = 5
#: How long to wait for writers whose beginning cannot be seen, and how often to ask, in seconds.
MAX_WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05


def read_watermark(connection: Connection) -> datetime:
    """Return the moment before which every journal row is there to be read.

    Raises:
        psycopg.OperationalError: a writer of a role that cannot be seen into does not come to its end.
    """
    writers = writers_of(connection.execute(READ_WRITERS).fetchall())
    until = time.monotonic() + MAX_WAIT_SECONDS
    while writers.unseen and _is_any_unfinished(connection, writers.unseen):
        if time.monotonic() >= until:
            raise psycopg.OperationalError(
                f"a transaction that may write the journal goes on for more than {MAX_WAIT_SECONDS:g} s"
            )
        time.sleep(POLL_SECONDS)
    return min(writers.watermark, writers.moment - timedelta(seconds=LAG_SECONDS))


def _is_any_unfinished(connection: Connection, transactions: list[str]) -> bool:
    row = connection.execute(FIND_UNFINISHED, {"transactions": transactions}).fetchone()
    return bool(row and row[0])
