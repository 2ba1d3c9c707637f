"""The yardstick: how many rows a second a bare COPY writes. It keeps no balances, checks nothing and announces nothing.

The rows are made before the clock starts, so what is timed is psycopg, Postgres and the disk.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg

from .plan import BenchmarkFailed

#: Accounts that the rows go round.
ACCOUNTS = 10_000
ROWS_PER_TRANSACTION = 1_000

_CREATE = """
create table yardstick (
    id uuid primary key,
    account_id uuid,
    kind smallint,
    amount numeric,
    balance_after numeric,
    seq bigint,
    idempotency_key text,
    reference text,
    reversal_of uuid,
    created_at timestamptz,
    unique (account_id, idempotency_key)
)
"""
_INDEX = "create index on yardstick (account_id, seq)"
_COPY = "copy yardstick from stdin (format binary)"
_TYPES = ("uuid", "uuid", "int2", "numeric", "numeric", "int8", "text", "text", "uuid", "timestamptz")

Row = tuple[UUID, UUID, int, int, int, int, str, str, None, datetime]


def measure_copy(database_url: str, rows: int) -> float:
    """Return the rows per second of a bare COPY into a new table, which is dropped again."""
    prepared = list(_rows(rows))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = on")
        connection.execute(_CREATE)
        connection.execute(_INDEX)
        seconds = _copy(connection, prepared)
        written = connection.execute("select count(*) from yardstick").fetchone()
        connection.execute("drop table yardstick")
    if written != (rows,):
        raise BenchmarkFailed(f"the yardstick wrote {written} rows instead of {rows}")
    return rows / seconds


def _copy(connection: psycopg.Connection[tuple[object, ...]], rows: list[Row]) -> float:
    """Write the rows, a thousand a transaction, and return the seconds it took."""
    started = time.perf_counter()
    for first in range(0, len(rows), ROWS_PER_TRANSACTION):
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for row in rows[first : first + ROWS_PER_TRANSACTION]:
                copy.write_row(row)
    return time.perf_counter() - started


def _rows(count: int) -> Iterator[Row]:
    accounts = [uuid4() for _ in range(ACCOUNTS)]
    now = datetime.now(UTC)
    milliseconds = time.time_ns() // 1_000_000
    for number in range(count):
        seq, position = divmod(number, ACCOUNTS)
        yield (
            _time_ordered_id(milliseconds, number),
            accounts[position],
            3,
            5,
            1_000,
            seq + 1,
            f"key_{number}",
            f"ref_{number}",
            None,
            now,
        )


def _time_ordered_id(milliseconds: int, number: int) -> UUID:
    """Return a UUIDv7 (RFC 9562): neighbours in time are neighbours in the index, which is COPY's best case."""
    # Twenty-six bits of the number after the time: in order within one millisecond, then chance.
    upper = (milliseconds << 16) | (0x7 << 12) | ((number >> 14) & 0xFFF)
    lower = (0b10 << 62) | ((number & 0x3FFF) << 48) | secrets.randbits(48)
    return UUID(int=(upper << 64) | lower)
