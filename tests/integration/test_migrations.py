"""Migrations run forward from any state, any number of times and at once, and make the tables of the code."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import upgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from creditlane.lanes.postgres.migrate import _MIGRATION_LOCK, migrate
from creditlane.local.processes import wait_until
from creditlane.schemas import migrations
from creditlane.schemas.commands import Credit, OpenAccount
from creditlane.schemas.errors import ConfigurationError, PartitionMismatch, Unavailable
from creditlane.schemas.installation import DEFAULT_PARTITIONS, READ_INSTALLATION, check_installation
from creditlane.schemas.schema_revision import SCHEMA_REVISION, Revision
from creditlane.schemas.tables import jobs as job_tables
from creditlane.schemas.tables import webhooks as webhook_tables

from ..roles import url_of
from .direct_store import DirectStore, codes

ANN = "cca_" + "a" * 32
#: Either module puts its tables into the metadata of the ledger's.
METADATA = (webhook_tables.outbox, job_tables.job_runs)[0].metadata
#: How long processes that migrate at once may take, in seconds.
DEADLINE_SECONDS = 60

#: Imports everything, says so, waits for a line, and only then migrates: several of these are at it at once.
MIGRATE = """
import sys
from creditlane.lanes.postgres.migrate import migrate
print("ready", flush=True)
sys.stdin.readline()
print(migrate(sys.argv[1], partitions=8))
"""

#: How many migrations of a database wait for what somebody else has.
WAITING_FOR_A_LOCK = (
    "select count(*) from pg_stat_activity where application_name = 'creditlane-migrate' "
    "and datname = current_database() and wait_event_type = 'Lock'"
)


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def installed(url: str) -> tuple[int, int, int]:
    """Return the partitions, the leases and the stores of a database."""
    statement = "select partitions, (select count(*) from leases), (select count(*) from stores) from installation"
    return ask(url, statement)[0]  # type: ignore[return-value]


def catalogue(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything that Postgres knows of the ledger's tables."""
    ours = "relnamespace = 'public'::regnamespace and relname <> 'alembic_version' and relkind = 'r'"
    return {
        "columns": ask(
            url,
            "select relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, collname, "
            "pg_get_expr(adbin, adrelid), col_description(pg_class.oid, attnum) "
            "from pg_attribute join pg_class on pg_class.oid = attrelid "
            "left join pg_attrdef on adrelid = attrelid and adnum = attnum "
            "left join pg_collation on pg_collation.oid = attcollation "
            f"where {ours} and attnum > 0 and not attisdropped order by relname, attnum",
        ),
        "constraints": ask(
            url,
            # One that was added to a table in use holds for new rows; the old ones were not read for it.
            "select conrelid::regclass::text, conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '') "
            "from pg_constraint "
            "where connamespace = 'public'::regnamespace and conrelid::regclass::text <> 'alembic_version' "
            "order by 1, 2",
        ),
        "indexes": ask(
            url,
            "select tablename, indexname, indexdef from pg_indexes "
            "where schemaname = 'public' and tablename <> 'alembic_version' order by 1, 2",
        ),
        "comments": ask(url, f"select relname, obj_description(oid, 'pg_class') from pg_class where {ours} order by 1"),
    }


def test_an_empty_database_gets_the_newest_schema(empty_database_url: str) -> None:
    revision = migrate(empty_database_url, partitions=8)

    assert revision == SCHEMA_REVISION
    assert installed(empty_database_url) == (8, 8, 1)
    assert check_installation(ask(empty_database_url, READ_INSTALLATION)[0], 8).partitions == 8  # type: ignore[arg-type]
    assert ask(empty_database_url, "select public_id from stores") == [("store_default",)]


def test_the_partitions_have_a_default(empty_database_url: str) -> None:
    migrate(empty_database_url)

    assert installed(empty_database_url)[:2] == (DEFAULT_PARTITIONS, DEFAULT_PARTITIONS)


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    migrate(empty_database_url, partitions=8)
    before = catalogue(empty_database_url)

    assert migrate(empty_database_url) == SCHEMA_REVISION
    assert migrate(empty_database_url, partitions=8) == SCHEMA_REVISION

    assert catalogue(empty_database_url) == before
    assert installed(empty_database_url) == (8, 8, 1)


def test_the_partitions_are_fixed_for_ever(database_url: str) -> None:
    """Given a database with 8 partitions, when it is migrated with another number, then that is refused and nothing has
    changed: commands of one account would be on two lanes."""
    with pytest.raises(PartitionMismatch, match="CREDITLANE_PARTITIONS is 16, but the database was initialised with 8"):
        migrate(database_url, partitions=16)

    assert installed(database_url) == (8, 8, 1)


def test_several_processes_migrate_at_once(empty_database_url: str) -> None:
    """Given an empty database, when several hosts are deployed at once and each migrates it, then all succeed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ready = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    outcomes = [process.communicate(timeout=DEADLINE_SECONDS) for process in processes]

    assert ready == ["ready"] * 4
    assert [(process.returncode, outcome[0].strip()) for process, outcome in zip(processes, outcomes, strict=True)] == [
        (0, SCHEMA_REVISION)
    ] * 4, outcomes
    assert installed(empty_database_url) == (8, 8, 1)


def test_a_filled_database_keeps_every_row(database_url: str) -> None:
    """Given a ledger in use, with its leases held, when it is migrated, then every row is as before and it goes on."""
    opening = OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann", initial_balance=10**40)
    credit = Credit(account_id=ANN, idempotency_key="credit", amount=1, reference="r")
    with DirectStore(database_url) as store:
        assert codes(store.apply(opening)) == ["applied"]
        store.connection.execute("update leases set worker_id = 'somebody', epoch = 3 where partition = 1")
        store.connection.commit()
        held = "select * from leases order by partition"
        rows, leases = ask(database_url, "select * from journal"), ask(database_url, held)

        assert migrate(database_url) == SCHEMA_REVISION

        assert ask(database_url, "select * from journal") == rows
        assert ask(database_url, held) == leases
        assert store.apply(credit)[0].balance == 10**40 + 1


# What it reads of a check that is NOT VALID it does not understand itself.
@pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options':sqlalchemy.exc.SAWarning")
def test_the_migrations_make_the_tables_of_the_code(database_url: str) -> None:
    """Given the tables that the code describes, then Alembic finds nothing to do in a migrated database."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})

        assert compare_metadata(context, METADATA) == []


def test_what_alembic_does_not_compare_agrees_too(database_url: str, empty_database_url: str) -> None:
    """Given tables made by the code and tables made by the migrations, then Postgres knows the same of both: checks,
    collations, partial indexes, comments."""
    engine = create_engine(make_url(empty_database_url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    METADATA.create_all(engine)

    by_code, by_migrations = catalogue(empty_database_url), catalogue(database_url)

    assert len(by_code["constraints"]) > 20
    for part, expected in by_code.items():
        assert by_migrations[part] == expected, part


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="Postgres cannot be reached"):
        migrate("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")


#: What an application that uses Alembic, too, may have in its database, and whether ours is called the same.
OTHERS_REVISIONS = ["5b0e9adcef9c", "0003", SCHEMA_REVISION]
IN_SCHEMA = "?options=-csearch_path%3Dledger"


@pytest.mark.parametrize("revision", OTHERS_REVISIONS)
def test_another_programs_alembic_is_left_alone(revision: str, empty_database_url: str) -> None:
    """Given an application's database, then it is refused with what to do, which works; nothing of it changes."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create table alembic_version (version_num text primary key)")
        connection.execute("insert into alembic_version values (%s)", [revision])
        connection.execute("create schema ledger")

    with pytest.raises(ConfigurationError, match=r"alembic_version in this database is another program's.* schema"):
        migrate(empty_database_url)

    assert migrate(f"{empty_database_url}{_query(empty_database_url)}", partitions=8) == SCHEMA_REVISION
    tables = "select tablename from pg_tables where schemaname = 'public'"
    assert ask(empty_database_url, tables) == [("alembic_version",)]
    assert ask(empty_database_url, "select version_num from alembic_version") == [(revision,)]


def test_another_programs_tables_are_left_alone(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create table accounts (id int)")
        connection.execute("create table events (id int)")

    with pytest.raises(ConfigurationError, match=r"public has tables of another program \(accounts, events\)"):
        migrate(empty_database_url)

    tables = "select tablename from pg_tables where schemaname = 'public' order by 1"
    assert ask(empty_database_url, tables) == [("accounts",), ("events",)]


def test_a_schema_that_is_not_there_is_reported(empty_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="No schema of the search_path is there"):
        migrate(f"{empty_database_url}{_query(empty_database_url)}")


def test_a_newer_schema_is_not_touched(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '9999'")

    with pytest.raises(ConfigurationError, match=r"does not know the schema of the database .*9999.*; nothing was"):
        migrate(database_url)


def revisions() -> Config:
    """Return what Alembic needs to find all versions of the schema."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def bring_to(url: str, revision: str) -> None:
    """Make a new database one of an older version of the schema."""
    config = revisions()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        upgrade(config, revision)


def names_of_revisions() -> list[str]:
    """Return the names of all versions of the schema, the oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(revisions()).walk_revisions()][::-1]


def test_revisions_say_which_code_works_with_them() -> None:
    """Given the names of all versions, then they are numbered, the newest is the code's, and none that only newer code
    works with is followed by one with which older code works."""
    names = names_of_revisions()
    revisions = [Revision.parse(name) for name in names]

    assert names[-1] == SCHEMA_REVISION
    assert [revision and revision.number for revision in revisions] == list(range(1, len(names) + 1))
    since = [revision.since for revision in revisions if revision]
    assert since == sorted(since)
    assert all(revision and revision.since <= revision.number for revision in revisions)


def test_what_a_newer_version_has_made_stays_and_goes_on(database_url: str) -> None:
    """Given a newer version's schema that this one works with, when this one migrates, as each container does at its
    start, then nothing is changed, no right to what is new is taken away, and commands are decided."""
    newer = f"{int(SCHEMA_REVISION[:4]) + 1:04}_since_{SCHEMA_REVISION[:4]}"
    worker = conninfo_to_dict(url_of("worker", database_url))["user"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("alter table accounts add column held numeric not null default 0")
        connection.execute(sql.SQL("grant update (held) on accounts to {}").format(sql.Identifier(str(worker))))
        connection.execute("update alembic_version set version_num = %s", [newer])

    assert migrate(database_url, partitions=8) == newer

    with pytest.raises(PartitionMismatch):
        migrate(database_url, partitions=16)
    assert ask(url_of("worker", database_url), "select has_column_privilege('accounts', 'held', 'UPDATE')") == [(True,)]
    with DirectStore(database_url) as store:
        assert codes(store.apply(OpenAccount(account_id=ANN, idempotency_key="o", customer_id="a"))) == ["applied"]


def test_others_get_on_while_a_migration_waits_for_a_table(empty_database_url: str) -> None:
    """Given a transaction that reads a table which must be changed, when somebody migrates, then others read the table
    meanwhile, and once the transaction is over it is changed."""
    bring_to(empty_database_url, "0006")
    reading = "select count(*) from statistics"
    command = [sys.executable, "-c", MIGRATE, empty_database_url]
    migration = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with psycopg.connect(empty_database_url) as reader, psycopg.connect(empty_database_url, autocommit=True) as other:
        reader.execute(reading)
        assert migration.stdin is not None
        migration.stdin.write("go\n")
        migration.stdin.flush()
        assert wait_until(lambda: bool(ask(empty_database_url, WAITING_FOR_A_LOCK)[0][0]), seconds=DEADLINE_SECONDS)

        other.execute("set statement_timeout = '20s'")
        other.execute(reading)
        # It is still waiting, so that it was let through and did not come after.
        assert migration.poll() is None
    output, _ = migration.communicate(timeout=DEADLINE_SECONDS)

    assert (migration.returncode, output.split()[-1]) == (0, SCHEMA_REVISION)


def test_what_is_new_in_0008_comes_to_a_filled_ledger_without_touching_a_row(empty_database_url: str) -> None:
    """Given a ledger of the release before, in use, when it is migrated, then no table is written anew and no row is
    changed or checked, and workers of that release may have lanes until something new is decided."""
    bring_to(empty_database_url, "0007")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("insert into installation (partitions) values (8)")
        connection.execute("insert into leases (partition, worker_id) select n, 'old' from generate_series(0, 7) n")
        connection.execute(
            "insert into workers (worker_id, host, process_id, expires_at) "
            "values ('old', 'h', 1, now() + interval '1 h')"
        )
        connection.execute(
            "insert into journal (store_id, account_id, seq, kind, side, amount, balance_after, idempotency_key, "
            "reference, created_at) select 1, %s::uuid, n, 2, 1, 1, n, 'key ' || n, 'r', now() "
            "from generate_series(1, 1000) n",
            [ANN[4:]],
        )
    files = (
        "select relname, pg_relation_filenode(oid) from pg_class where relkind in ('r', 'i') "
        "and relnamespace = 'public'::regnamespace and relname = any('{journal,journal_pkey,accounts,leases,workers}') "
        "order by relname"
    )
    rows = "select ctid, xmin, xmax, seq, balance_after from journal order by seq"
    before = ask(empty_database_url, files), ask(empty_database_url, rows)

    assert migrate(empty_database_url) == SCHEMA_REVISION

    assert (ask(empty_database_url, files), ask(empty_database_url, rows)) == before
    checked = "select conname from pg_constraint where conname = 'journal_held_is_covered' and convalidated"
    assert ask(empty_database_url, checked) == []
    assert ask(empty_database_url, "select required_release from installation") == [(0,)]
    assert ask(empty_database_url, "update leases set worker_id = null returning 1") == [(1,)] * 8
    assert ask(empty_database_url, "update leases set worker_id = 'old' returning 1") == [(1,)] * 8


def test_a_signal_ends_a_migration_that_waits_for_another(database_url: str) -> None:
    """Given SIGTERM, which to a container's first process is none without a handler, then nothing is left behind."""
    command = [sys.executable, "-P", "-c", "from creditlane.cli.main import main; main()", "migrate"]
    with psycopg.connect(database_url) as holder:
        holder.execute("select pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
        environment = os.environ | {"CREDITLANE_DATABASE_URL": database_url}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as migration:
            assert wait_until(lambda: ask(database_url, WAITING_FOR_A_LOCK) == [(1,)], seconds=DEADLINE_SECONDS)
            migration.send_signal(signal.SIGTERM)
            _, output = migration.communicate(timeout=DEADLINE_SECONDS)

        assert (migration.returncode, output) == (128 + signal.SIGTERM, "")
        assert wait_until(lambda: ask(database_url, WAITING_FOR_A_LOCK) == [(0,)], seconds=DEADLINE_SECONDS)


def _query(url: str) -> str:
    """Return what makes a schema of the database the one that is used."""
    return IN_SCHEMA if "?" not in url else IN_SCHEMA.replace("?", "&")
