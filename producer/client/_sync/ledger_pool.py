"""A pool of sessions with Postgres in which every wait has an end. `_async/ledger_pool.py` is the twin.

Importing this imports the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from ....lanes.deadlines import seconds_until
from ....lanes.postgres.errors import no_session, translated, was_cut
from ....lanes.postgres.sessions import (
    Attempts,
    Limits,
    PostgresSession,
    Row,
    session_options,
)
from ....schemas.errors import OutcomeUnknown
from ...ledger.read_limits import (
    CLOSE_SECONDS,
    IDLE_SECONDS,
    OPERATOR_STATEMENT_SECONDS,
    SESSION_NAME,
    STATEMENT_TIMEOUT_SECONDS,
)

#: How long the pool tries to make a connection before it leaves that to whoever needs one next, in seconds: its own
#: pauses double, and whoever comes after an outage must not wait for one.
RECONNECT_SECONDS = 1.0
#: After how long who waits for a connection lets the pool try anew, if it could not make one, in seconds.
ASK_AGAIN_SECONDS = 1.0
#: Said where Postgres may have committed, or not: whatever else it answers at a commit is a refusal.
COMMIT_UNANSWERED = "Postgres did not answer to the commit, so whether it is done is not known; look, or do it again"
#: Threads that make connections.
POOL_THREADS = 3


def read_limits() -> Limits:
    """Return what holds for statements for themselves: they only read, and not for long."""
    return Limits(statement_seconds=STATEMENT_TIMEOUT_SECONDS, read_only=True)


def operator_limits() -> Limits:
    """Return what holds for an operator's commands, which may take longer than what requests wait for."""
    return Limits(statement_seconds=OPERATOR_STATEMENT_SECONDS)


class LedgerPool:
    """Sessions that are made when they are needed, and thrown away when Postgres does not answer in time.

    Any number of threads may use it. Deadlines are moments on the clock of `time.monotonic`. Every method raises
    Unavailable when Postgres does not answer by then or cannot be reached, NotMigrated when it has no ledger, and
    ConfigurationError when it is none that can hold one.
    """

    def __init__(self, url: str, *, max_size: int, min_size: int = 0, name: str = SESSION_NAME) -> None:
        self._making = Attempts()
        self._attempts = max_size
        self._pool: ConnectionPool[PostgresSession] = ConnectionPool(
            url,
            connection_class=PostgresSession,
            kwargs={
                **session_options(url, name),
                "autocommit": True,
                "limits": read_limits(),
                "attempts": self._making,
            },
            min_size=min_size,
            max_size=max_size,
            max_idle=IDLE_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            num_workers=POOL_THREADS,
            open=True,
            name=name,
        )

    def rows(self, statement: str, values: Mapping[str, Any], until: float) -> list[Row]:
        """Return the rows of a statement that only reads."""
        with self._told():
            # Each session that a restart of Postgres has cut is found out by a read, which is tried with the next one.
            for _ in range(self._attempts):
                with self._session(until) as session:
                    try:
                        return session.execute(statement, values).fetchall()
                    except psycopg.OperationalError as error:
                        if not was_cut(session, error):
                            raise
            with self._session(until) as session:
                return session.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self, until: float) -> Iterator[PostgresSession]:
        """Give a session within a transaction that may write; it is committed at the end.

        Raises:
            OutcomeUnknown: Postgres was told to commit, and did not answer.
        """
        is_done = False
        with self._told(), self._live_session(until) as session:
            session.read_only = None
            try:
                with session.transaction():
                    yield session
                    is_done = True
            except psycopg.OperationalError as error:
                if is_done and session.closed:
                    raise OutcomeUnknown(COMMIT_UNANSWERED) from error
                raise

    def close(self) -> None:
        """Close every connection; those that are being made are not waited for."""
        # The time is for each of the pool's threads, one after the other.
        self._pool.close(timeout=CLOSE_SECONDS / POOL_THREADS)

    @contextmanager
    def _session(self, until: float) -> Iterator[PostgresSession]:
        session = self._taken(until)
        # Set anew for each use: also what the pool itself asks of it afterwards has an end.
        session.deadline = until
        try:
            yield session
        finally:
            self._pool.putconn(session)

    def _taken(self, until: float) -> PostgresSession:
        while seconds_until(until) > ASK_AGAIN_SECONDS:
            try:
                return self._pool.getconn(timeout=ASK_AGAIN_SECONDS)
            except PoolTimeout:
                if self._making.error is None:
                    # All of them are in use: whoever asks again loses the place in the queue.
                    break
        return self._pool.getconn(timeout=seconds_until(until))

    @contextmanager
    def _live_session(self, until: float) -> Iterator[PostgresSession]:
        """Give a session that has just answered: what may write is not tried again with another one."""
        for _ in range(self._attempts):
            with self._session(until) as session:
                if self._answers(session):
                    yield session
                    return
        with self._session(until) as session:
            yield session

    def _answers(self, session: PostgresSession) -> bool:
        try:
            session.execute("select")
        except psycopg.OperationalError as error:
            if not was_cut(session, error):
                raise
            return False
        return True

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what goes wrong in the words of the ledger."""
        with translated("client", "api", only_reads=True):
            try:
                yield
            except PoolTimeout as error:
                raise no_session(self._making) from error
