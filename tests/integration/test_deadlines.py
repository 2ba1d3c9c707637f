"""A Postgres that is silent in the middle of a statement is waited for no longer than was said."""

import asyncio
import time

import psycopg
import pytest

from creditlane.lanes.postgres import sessions as postgres_sessions
from creditlane.lanes.postgres.sessions import PostgresSession, ServerSilent, silent_for
from creditlane.worker.connections import connect_postgres_async

#: Far longer than any deadline here.
SLEEP = "select pg_sleep(120)"
SILENCE_SECONDS = 0.3
#: How long a test may take beyond that, on a busy machine.
DEADLINE_SECONDS = 30.0


def connection_of(database_url: str) -> PostgresSession:
    connection = postgres_sessions.connect(database_url, name="test")
    connection.is_overdue = silent_for(SILENCE_SECONDS)
    return connection


def test_a_statement_ends_at_its_deadline_and_with_it_the_connection(database_url: str) -> None:
    """Given a transaction in which Postgres does not answer, then neither the statement nor the rollback waits."""
    started = time.monotonic()

    with pytest.raises(ServerSilent), connection_of(database_url) as connection, connection.transaction():
        connection.execute(SLEEP)

    assert time.monotonic() - started < DEADLINE_SECONDS
    assert connection.closed


def test_an_event_loop_does_not_wait_longer_either(database_url: str) -> None:
    async def ask() -> psycopg.AsyncConnection[tuple[object, ...]]:
        connection = await connect_postgres_async(database_url, autocommit=True, silence_seconds=SILENCE_SECONDS)
        async with connection, connection.transaction():
            await connection.execute(SLEEP)
        return connection

    started = time.monotonic()

    with pytest.raises(ServerSilent):
        asyncio.run(ask())

    assert time.monotonic() - started < DEADLINE_SECONDS


def test_what_comes_in_time_comes_as_ever(database_url: str) -> None:
    """Given answers that are long, empty, wrong, copied or streamed, then they are what they are without a deadline."""
    with connection_of(database_url) as connection:
        assert len(connection.execute("select repeat('x', 100000) from generate_series(1, 100)").fetchall()) == 100
        assert connection.execute("select where false").fetchall() == []
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1 / 0")
        with connection.cursor() as cursor, cursor.copy("copy (select generate_series(1, 3)) to stdout") as copy:
            assert [row[0] for row in copy.rows()] == ["1", "2", "3"]
        with connection.pipeline():
            found = [connection.execute("select %s::int", [number]) for number in range(3)]
        assert [each.fetchone() for each in found] == [(0,), (1,), (2,)]
        assert [row[0] for row in connection.cursor().stream("select generate_series(1, 3)")] == [1, 2, 3]
