"""A session of ours is what we rely on, whatever the server, the role, the database and the environment say."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any

import psycopg
import pytest
from psycopg import sql

from creditlane.audit.whole import verify
from creditlane.lanes.postgres.migrate import migrate
from creditlane.lanes.postgres.sessions import FORMATS, PostgresSession, connect, connect_async
from creditlane.producer.client._sync.ledger_pool import LedgerPool
from creditlane.producer.client.ledger_sessions import read_limits
from creditlane.producer.ledger.read_limits import read_until
from creditlane.schemas.commands import Debit, OpenAccount
from creditlane.schemas.errors import ConfigurationError, Unavailable
from creditlane.worker.connections import connect_postgres
from creditlane.worker.store.transaction import LedgerStore

from ..conftest import DatabaseServer
from ..tcp_link import TcpLink
from .direct_store import DirectStore, codes

ANN = "cca_" + "a" * 32
SHOWN = ("server_encoding", "client_encoding", *FORMATS, "transaction_isolation")
EXPECTED = ("UTF8", "UTF8", "ISO, MDY", "UTC", "on", "read committed")
#: What others set, for every session with the database.
OF_THE_DATABASE = {
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, MDY",
    "TimeZone": "Asia/Kolkata",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "50ms",
    "lock_timeout": "50ms",
    "idle_in_transaction_session_timeout": "50ms",
}
OF_THE_ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "SQL, MDY",
    "PGTZ": "Asia/Kolkata",
    "PGOPTIONS": "-c statement_timeout=50 -c default_transaction_isolation=serializable -c search_path=nowhere",
}


@pytest.fixture(params=["as it is", "database", "environment"])
def url(request: pytest.FixtureRequest, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated database, also with settings of others."""
    if request.param == "environment":
        for name, value in OF_THE_ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
    if request.param == "database":
        alter(database_url, OF_THE_DATABASE)
    return database_url


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def foreign_database(
    request: pytest.FixtureRequest, database_server: DatabaseServer, database_url: str
) -> Iterator[str]:
    """The URL of an empty database of another encoding."""
    name = f"creditlane_{uuid.uuid4().hex}"
    may_create = getattr(database_server, "superuser_url", database_url)
    with psycopg.connect(may_create, autocommit=True) as connection:
        options = f"encoding '{request.param}' template template0 locale 'C' locale_provider libc"
        connection.execute(f"create database {name} {options}".encode())
    with psycopg.connect(database_url) as connection:
        yield database_url.replace(connection.info.dbname, name)
    database_server.drop_database(name)


def alter(database_url: str, settings: dict[str, str]) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, value in settings.items():
            statement = sql.SQL("alter database {} set {} = {}")
            connection.execute(statement.format(sql.Identifier(connection.info.dbname), sql.Identifier(name), value))


def shown() -> str:
    return "select " + ", ".join(f"current_setting('{name}')" for name in SHOWN)


def test_a_session_is_what_we_rely_on(url: str) -> None:
    with connect(url, name="test") as session:
        alone = session.execute(shown()).fetchone()
        with session.transaction():
            together = session.execute(shown()).fetchone()

    assert alone == together == EXPECTED


def test_a_session_in_an_event_loop_is_what_we_rely_on(url: str) -> None:
    async def ask() -> list[Any]:
        async with await connect_async(url, name="test") as session:
            alone = await (await session.execute(shown())).fetchone()
            async with session.transaction():
                return [alone, await (await session.execute(shown())).fetchone()]

    assert asyncio.run(ask()) == [EXPECTED, EXPECTED]


def test_a_worker_s_transactions_are_what_we_rely_on(url: str) -> None:
    with connect_postgres(url) as session:
        assert session.execute(shown()).fetchone() == EXPECTED


def test_limits_of_others_do_not_cut_a_batch(url: str) -> None:
    """Given a role whose limits are far below those of a batch, then the batch's own hold, for the lanes it waits for
    too."""
    limits = "select current_setting('lock_timeout'), current_setting('statement_timeout')"
    with connect_postgres(url) as session:
        LedgerStore(session, "worker", timeout_seconds=7)._open()

        assert session.execute(limits).fetchone() == ("5600ms", "7s")


def test_limits_of_others_cut_nothing(url: str) -> None:
    with connect(url, name="test") as session:
        session.execute("select pg_sleep(0.2)")
        with session.transaction():
            session.execute("select pg_sleep(0.2)")
            session.execute("create table written ()")


def test_the_proof_is_not_cut(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a ledger that takes longer to prove than a statement may take elsewhere, then it is proven."""
    monkeypatch.setattr("creditlane.audit.whole.sql.STORES", "select 1, pg_sleep(0.2)::text")

    assert verify(url).discrepancies == 0


def test_a_key_works_once_in_every_session(url: str) -> None:
    """Given text beyond ASCII, then what is stored is what was sent, and sent again it is a replay."""
    with DirectStore(url) as store:
        store.connection.close()
        store.connection = connect_postgres(url)
        store.ledger_store = LedgerStore(store.connection, "worker")
        store.apply(OpenAccount(account_id=ANN, customer_id="café", initial_balance=100, idempotency_key="ouvré"))
        debit = Debit(account_id=ANN, amount=5, reference="café crème", idempotency_key="clé-1")
        first, again = store.apply(debit), store.apply(debit, careful=True)
    with psycopg.connect(url, client_encoding="utf8", options="") as connection:
        stored = connection.execute("select reference from journal where idempotency_key = 'clé-1'").fetchall()

    assert codes(first) == codes(again) == ["applied"]
    assert [result.replayed for result in (*first, *again)] == [False, True]
    assert stored == [("café crème",)]


def test_a_session_that_reads_does_not_write(url: str) -> None:
    with connect(url, name="test", limits=read_limits()) as session:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute("create table written ()")
        # And it is of use afterwards.
        assert session.execute("select 1").fetchone() == (1,)


def test_a_database_that_is_made_read_only_is_not_written(database_url: str) -> None:
    alter(database_url, {"default_transaction_read_only": "on"})

    with connect(database_url, name="test") as session, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        session.execute("create table written ()")


def test_moments_are_those_of_utc(url: str) -> None:
    with connect(url, name="test") as session:
        (moment,) = session.execute("select '2026-03-01 12:00:00+00'::timestamptz").fetchone() or (None,)

    assert (moment.hour, moment.tzinfo.utcoffset(moment)) == (12, UTC.utcoffset(None))


def test_the_url_s_own_search_path_holds(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("create schema ledger")
        connection.execute("create table ledger.here as select 7 as number")
        # The pool's sessions are the client's.
        connection.execute("grant usage on schema ledger to public; grant select on ledger.here to public")
    own = f"{database_url}{'&' if '?' in database_url else '?'}options=-csearch_path%3Dledger"

    with connect(own, name="test") as session:
        assert session.execute("select number from here").fetchone() == (7,)
    pool = LedgerPool(own, max_size=1)
    pool.open()
    assert pool.rows("select number from here", {}, read_until()) == [(7,)]
    pool.close()


def test_a_server_for_reading_and_writing_is_found(database_url: str) -> None:
    """Given a URL that wants such a server, as that of a cluster does, then sessions that only read find it, too."""
    wanting = f"{database_url}{'&' if '?' in database_url else '?'}target_session_attrs=read-write"
    pool = LedgerPool(wanting, max_size=1)
    pool.open()

    assert pool.rows("show transaction_read_only", {}, read_until()) == [("on",)]
    pool.close()


def test_nothing_is_asked_at_the_start_that_poolers_refuse(
    link: TcpLink, far_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given PgBouncer as it is shipped, which takes these parameters and no others, then every session gets through."""
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=50")
    taken = {"user", "database", "client_encoding", "datestyle", "timezone", "application_name"}
    connect(far_url, name="test").close()
    pool = LedgerPool(far_url, max_size=1)
    pool.open()
    pool.rows("select 1", {}, read_until())
    pool.close()

    assert len(link.greetings) == 2
    for greeting in link.greetings:
        assert set(startup_parameters(greeting)) <= taken


def startup_parameters(message: bytes) -> dict[str, str]:
    """Return what a start-up message of the protocol says, after its length and version."""
    texts = message[8:].decode().rstrip("\0").split("\0")
    return dict(zip(texts[::2], texts[1::2], strict=True))


def test_a_database_of_another_encoding_is_refused(foreign_database: str) -> None:
    for attempt in attempts(foreign_database):
        with pytest.raises(ConfigurationError, match=r"^the database's encoding is .*create another") as raised:
            attempt()
        assert "\n" not in str(raised.value)


def attempts(url: str) -> list[Callable[[], object]]:
    def read() -> None:
        pool = LedgerPool(url, max_size=1)
        pool.open()
        try:
            pool.rows("select 1", {}, read_until(1.0))
        finally:
            pool.close()

    return [lambda: migrate(url), lambda: connect_postgres(url), lambda: verify(url), read]


def test_why_there_is_no_connection_is_reported(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        missing = database_url.replace(connection.info.dbname, "creditlane_nowhere")
    pool = LedgerPool(missing, max_size=1)
    pool.open()

    with pytest.raises(Unavailable, match='"creditlane_nowhere" does not exist'):
        pool.rows("select 1", {}, read_until(1.0))
    pool.close()


def test_a_statement_that_takes_too_long_is_ended(database_url: str) -> None:
    with connect(database_url, name="test", limits=read_limits()._replace(statement_seconds=0.1)) as session:
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("select pg_sleep(30)")
        assert isinstance(session, PostgresSession)
        assert not session.closed
