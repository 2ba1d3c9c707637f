"""Every session of ours with Postgres is made here, for both ways of waiting, and is checked before anybody uses it.

What we rely on must not come from the server, the role or the environment. Three kinds of it, so that poolers in
transaction mode (PgBouncer as it is shipped) keep them, too:

* Encoding and formats are the session's: poolers follow them, since Postgres reports them. They are set, if they are
  not right already, and checked from those reports, which cost nothing.
* Isolation, read-only and limits of time are each transaction's, sent along with its beginning. A statement for itself
  gets a transaction of its own for them, in the same round trip. Nothing of them is a start-up option: poolers refuse
  those, and libpq would take a session that is read-only for a server that is.
* How long to wait for an answer is kept on our side: a server that is silent keeps no limit.

Importing this imports the driver, which `import creditlane` does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction, Connection, Cursor, Transaction, waiting
from psycopg.pq import TransactionStatus

from ...schemas.errors import ConfigurationError
from ...schemas.postgres_urls import readable_postgres_url
from ...schemas.server_requirements import ENCODING, check_postgres

#: How long a connection may take to be made, in seconds, to each of the hosts that the URL names.
CONNECT_TIMEOUT_SECONDS = 5
#: What the formats of a session must be, of what Postgres reports unasked. Poolers keep these from one transaction to
#: the next (of IntervalStyle we read and write none).
FORMATS = {"DateStyle": "ISO", "TimeZone": "UTC", "standard_conforming_strings": "on"}
#: How much longer than Postgres itself we wait for it to end what has taken too long, in seconds.
GRACE_SECONDS = 1.0
#: The first version that limits whole transactions.
_TRANSACTION_TIMEOUT_VERSION = 170_000
#: How often a wait asks whether its time is over, in seconds.
_INTERVAL_SECONDS = 0.1

#: How long Postgres may be silent in the middle of a statement, where nothing else is said, in seconds.
SILENCE_SECONDS = 30.0

_T = TypeVar("_T")
Row = tuple[Any, ...]
#: Whether to wait no longer, given for how many seconds nothing has come.
IsOverdue = Callable[[float], bool]


class ServerSilent(psycopg.OperationalError):
    """Postgres does not answer in time. What it does with the statement is not known; the connection is closed."""


class Limits(NamedTuple):
    """What holds for every transaction of a session that does not say otherwise itself."""

    #: How long one statement may take, in seconds; 0: as long as it needs.
    statement_seconds: float = 0
    #: Only what changes nothing may run. Otherwise it is as the database says: an operator may have made it read-only.
    read_only: bool = False
    isolation: psycopg.IsolationLevel = psycopg.IsolationLevel.READ_COMMITTED


#: For work that takes as long as it takes: the role's own limits do not cut it.
UNLIMITED = Limits()


def silent_for(seconds: float) -> IsOverdue:
    """Return what waits for so many seconds of silence."""
    return lambda silent: silent >= seconds


class Attempts:
    """How it goes with making sessions, which pools keep to themselves."""

    def __init__(self) -> None:
        #: What the latest attempt has met; None: it succeeded.
        self.error: Exception | None = None
        #: The tasks that are at it.
        self.under_way: set[asyncio.Task[Any]] = set()


def session_options(url: str, name: str) -> dict[str, Any]:
    """Return the driver's options for a session called like this, beside the URL.

    Raises:
        ConfigurationError: it is no URL of Postgres.
    """
    given = readable_postgres_url(url)
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": name,
        "client_encoding": ENCODING,
        # Those of the URL and nothing else: left out, they would be those of PGOPTIONS.
        "options": given.get("options") or "",
        # Poolers in transaction mode give each transaction another server: nothing prepared may be relied on.
        "prepare_threshold": None,
        # A peer that vanished without a word is noticed after about half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def connect(
    url: str,
    *,
    name: str,
    limits: Limits | None = UNLIMITED,
    autocommit: bool = True,
    connect_seconds: int = CONNECT_TIMEOUT_SECONDS,
) -> PostgresSession:
    """Return a new session. Out of autocommit it begins transactions by itself, which the caller ends.

    It may take so long to be made; the driver waits for two seconds at least. Without limits each statement runs as it
    is given, for those that allow no transaction around them.

    Raises:
        ConfigurationError: it is no URL of Postgres, or the database is none that can hold a ledger.
        psycopg.OperationalError: Postgres cannot be reached.
    """
    options = {**session_options(url, name), "connect_timeout": max(2, connect_seconds)}
    return PostgresSession.connect(url, autocommit=autocommit, limits=limits, **options)


async def connect_async(
    url: str, *, name: str, limits: Limits | None = UNLIMITED, autocommit: bool = True
) -> AsyncPostgresSession:
    """Return a new session for an event loop, otherwise as `connect` does."""
    return await AsyncPostgresSession.connect(url, autocommit=autocommit, limits=limits, **session_options(url, name))


class PostgresSession(Connection[Row]):
    """A connection that keeps its limits, and whose waits end."""

    limits: Limits | None = None
    #: How long any one wait may take, in seconds; None: as long as it needs.
    wait_seconds: float | None = None
    #: When every wait is over, on the clock of `time.monotonic`.
    deadline: float | None = None
    #: Whether a wait is over, judged by how long nothing has come; asked every tenth of a second.
    is_overdue: IsOverdue | None = None

    @classmethod
    def connect(  # type: ignore[override]  # options as the driver takes them
        cls,
        conninfo: str = "",
        *,
        limits: Limits | None = UNLIMITED,
        autocommit: bool = False,
        attempts: Attempts | None = None,
        **options: Any,
    ) -> Self:
        """Return a new session; `session_options` are the options. As the function `connect`."""
        attempts = attempts or Attempts()
        try:
            session = cls._made(conninfo, limits, options)
            session.autocommit = autocommit
        except Exception as error:
            attempts.error = error
            raise
        attempts.error = None
        return session

    @classmethod
    def _made(cls, conninfo: str, limits: Limits | None, options: dict[str, Any]) -> Self:
        session = super().connect(conninfo, autocommit=True, **options)
        session.wait_seconds = CONNECT_TIMEOUT_SECONDS
        try:
            if missing := missing_formats(session):
                session.execute(_set_formats(missing))
            check_session(session)
        except BaseException:
            session.close()
            raise
        session.limits, session.wait_seconds = limits, _wait_seconds(limits)
        if limits is not None:
            session.isolation_level, session.read_only = limits.isolation, limits.read_only or None
        session.cursor_factory = LimitedCursor
        return session

    def wait(
        self, gen: Generator[Any, Any, _T], interval: float = _INTERVAL_SECONDS, timeout: float | None = None
    ) -> _T:
        """Wait for the server, as long as this session waits.

        Raises:
            ServerSilent: that was not enough; the connection is closed.
        """
        until = _until(self.wait_seconds if timeout is None else timeout, self.deadline)
        if until is None and self.is_overdue is None:
            return super().wait(gen, interval)
        try:
            return super().wait(_bounded(gen, until, self.is_overdue), min(interval, _INTERVAL_SECONDS))
        except ServerSilent:
            self.pgconn.finish()
            raise

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """Begin a transaction with the session's limits, in one round trip; within one, a savepoint."""
        with ExitStack() as stack:
            if self.limits is None or self.pgconn.transaction_status != TransactionStatus.IDLE:
                begun = stack.enter_context(super().transaction(savepoint_name, force_rollback))
            else:
                # Not the driver's `transaction`, which would stay in the pipeline until the end.
                begun = Transaction(self, savepoint_name, force_rollback)
                with self.pipeline():
                    stack.enter_context(begun)
                    self.execute(limit_statement(self, self.limits))
            yield begun


class AsyncPostgresSession(AsyncConnection[Row]):
    """A connection for an event loop that keeps its limits, and whose waits end."""

    limits: Limits | None = None
    #: How long any one wait may take, in seconds; None: as long as it needs.
    wait_seconds: float | None = None
    #: When every wait is over, on the clock of `time.monotonic`.
    deadline: float | None = None
    #: Whether a wait is over, judged by how long nothing has come; asked every tenth of a second.
    is_overdue: IsOverdue | None = None

    @classmethod
    async def connect(  # type: ignore[override]  # options as the driver takes them
        cls,
        conninfo: str = "",
        *,
        limits: Limits | None = UNLIMITED,
        autocommit: bool = False,
        attempts: Attempts | None = None,
        **options: Any,
    ) -> Self:
        """Return a new session; `session_options` are the options. As the function `connect_async`."""
        attempts, task = attempts or Attempts(), asyncio.current_task()
        if task is None:
            raise RuntimeError("no event loop is running")
        try:
            attempts.under_way.add(task)
            session = await cls._made(conninfo, limits, options)
            await session.set_autocommit(autocommit)
        except Exception as error:
            attempts.error = error
            raise
        finally:
            attempts.under_way.discard(task)
        attempts.error = None
        return session

    @classmethod
    async def _made(cls, conninfo: str, limits: Limits | None, options: dict[str, Any]) -> Self:
        session = await super().connect(conninfo, autocommit=True, **options)
        session.wait_seconds = CONNECT_TIMEOUT_SECONDS
        try:
            if missing := missing_formats(session):
                await session.execute(_set_formats(missing))
            check_session(session)
        except BaseException:
            await session.close()
            raise
        session.limits, session.wait_seconds = limits, _wait_seconds(limits)
        if limits is not None:
            await session.set_isolation_level(limits.isolation)
            await session.set_read_only(limits.read_only or None)
        session.cursor_factory = AsyncLimitedCursor
        return session

    async def wait(
        self,
        gen: Generator[Any, Any, _T],
        interval: float = _INTERVAL_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109  as the driver calls it
    ) -> _T:
        """Wait for the server, as long as this session waits.

        Raises:
            ServerSilent: that was not enough; the connection is closed.
        """
        until = _until(self.wait_seconds if timeout is None else timeout, self.deadline)
        bounded = _bounded(gen, until, self.is_overdue)
        try:
            return await waiting.wait_async(bounded, self.pgconn.socket, interval=min(interval, _INTERVAL_SECONDS))
        except psycopg.Error as error:
            if isinstance(error, ServerSilent):
                self.pgconn.finish()
            raise
        except BaseException:
            # Whoever waited was cancelled. The driver would ask the server to stop, and wait for it: it may be silent.
            self.pgconn.finish()
            raise

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """Begin a transaction with the session's limits, in one round trip; within one, a savepoint."""
        async with AsyncExitStack() as stack:
            if self.limits is None or self.pgconn.transaction_status != TransactionStatus.IDLE:
                begun = await stack.enter_async_context(super().transaction(savepoint_name, force_rollback))
            else:
                begun = AsyncTransaction(self, savepoint_name, force_rollback)
                async with self.pipeline():
                    await stack.enter_async_context(begun)
                    await self.execute(limit_statement(self, self.limits))
            yield begun


class LimitedCursor(Cursor[Row]):
    """Runs a statement for itself in a transaction with the session's limits, in one round trip."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Run the statement; as the driver's cursors do."""
        session = self.connection
        limits = _own_limits(session)
        if limits is None:
            return super().execute(query, params, **options)
        failures = _Failures()
        with failures, session.pipeline(), failures:
            session.cursor().execute(begin_statement(limits))
            session.cursor().execute(limit_statement(session, limits))
            super().execute(query, params, **options)
            session.cursor().execute("commit")
        if failures.first is not None:
            if not session.closed:
                session.rollback()
            raise failures.first
        return self


class AsyncLimitedCursor(AsyncCursor[Row]):
    """Runs a statement for itself in a transaction with the session's limits, in one round trip."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Run the statement; as the driver's cursors do."""
        session = self.connection
        limits = _own_limits(session)
        if limits is None:
            return await super().execute(query, params, **options)
        failures = _Failures()
        with failures:
            async with session.pipeline():
                with failures:
                    await session.cursor().execute(begin_statement(limits))
                    await session.cursor().execute(limit_statement(session, limits))
                    await super().execute(query, params, **options)
                    await session.cursor().execute("commit")
        if failures.first is not None:
            if not session.closed:
                await session.rollback()
            raise failures.first
        return self


class _Failures:
    """Holds a pipeline's first error back until the pipeline is over: what follows says only that it was broken."""

    first: psycopg.Error | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, psycopg.Error):
            return False
        self.first = self.first or error
        return True


AnySession = PostgresSession | AsyncPostgresSession


def missing_formats(session: AnySession) -> dict[str, str]:
    """Return the formats that the session has not, as Postgres reported when it began."""
    reported = {name: session.info.parameter_status(name) or "" for name in FORMATS}
    return {name: value for name, value in FORMATS.items() if reported[name].split(",")[0].upper() != value.upper()}


def check_session(session: AnySession) -> None:
    """Check what was set, and what cannot be.

    Raises:
        ConfigurationError: something is not as it must be; it says what to do.
    """
    check_postgres(session.info.parameter_status("server_encoding"), session.info.server_version)
    client_encoding = session.info.parameter_status("client_encoding")
    missing = {"client_encoding": ENCODING} if client_encoding != ENCODING else missing_formats(session)
    if missing:
        names = ", ".join(f"{name} = {value}" for name, value in missing.items())
        raise ConfigurationError(f"the session with Postgres does not take {names}; look at the pooler in between")


def _set_formats(wanted: dict[str, str]) -> str:
    return "select " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in wanted.items())


def begin_statement(limits: Limits) -> str:
    """Return what begins a transaction of these limits, where it is not left to the driver."""
    level = limits.isolation.name.replace("_", " ")
    return f"begin isolation level {level}{' read only' if limits.read_only else ''}"


def limit_statement(session: Connection[Any] | AsyncConnection[Any], limits: Limits) -> str:
    """Return what sets these limits for a transaction."""
    settings = {
        "statement_timeout": int(limits.statement_seconds * 1_000),
        # Waiting for a lock is part of the statement; waiting for us has no limit beside the connection's own.
        "lock_timeout": 0,
        "idle_in_transaction_session_timeout": 0,
    }
    if session.info.server_version >= _TRANSACTION_TIMEOUT_VERSION:
        settings["transaction_timeout"] = 0
    return "select " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


def _own_limits(session: Connection[Any] | AsyncConnection[Any]) -> Limits | None:
    """Return the session's limits where the next statement stands alone, None where it is part of a transaction."""
    if not isinstance(session, PostgresSession | AsyncPostgresSession) or not session.autocommit:
        return None
    if session._pipeline is not None or session.pgconn.transaction_status != TransactionStatus.IDLE:  # noqa: SLF001
        return None
    return session.limits


def _wait_seconds(limits: Limits | None) -> float | None:
    return limits.statement_seconds + GRACE_SECONDS if limits and limits.statement_seconds else None


def _until(wait_seconds: float | None, deadline: float | None) -> float | None:
    """Return when a wait that begins now is over, None: never."""
    if wait_seconds is None:
        return deadline
    until = time.monotonic() + wait_seconds
    return until if deadline is None else min(until, deadline)


def _bounded(
    gen: Generator[Any, Any, _T], until: float | None, is_overdue: IsOverdue | None
) -> Generator[Any, Any, _T]:
    """Pass everything on to what talks with the server and back, until the time is over."""
    heard_at = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                heard_at = now
            # Also where something came: a server that sends a little now and then is as good as silent.
            if (until is not None and now >= until) or (is_overdue is not None and is_overdue(now - heard_at)):
                raise ServerSilent("Postgres does not answer in time")
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: _T = end.value
        return answer
