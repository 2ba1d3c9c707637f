"""Brings a database to the current schema. Needs the extra `worker` (SQLAlchemy and Alembic)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from .errors import Unavailable
from .installation import Installation, check_partitions
from .routing import DEFAULT_PARTITIONS

#: Any number that nothing else uses: two `migrate` at once must take turns.
_MIGRATION_LOCK = 7_306_011_901


def migrate(database_url: str, *, partitions: int | None = None) -> str:
    """Bring the database to the current schema and return that schema's revision.

    Safe to run again and at the same time from several places. On an empty database, `partitions` (64 unless given)
    is fixed for ever.

    Raises:
        PartitionMismatch: `partitions` is given and the database was initialised with another number.
        Unavailable: the database cannot be reached.
    """
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _initialise(connection, partitions)
            return MigrationContext.configure(connection).get_current_revision() or ""
    except OperationalError as error:
        raise Unavailable(f"Postgres cannot be reached: {error.orig}") from error


def _initialise(connection: Connection, partitions: int | None) -> None:
    connection.execute(
        text("insert into installation (partitions) values (:partitions) on conflict do nothing"),
        {"partitions": partitions or DEFAULT_PARTITIONS},
    )
    stored = connection.execute(text("select partitions from installation")).scalar_one()
    check_partitions(Installation(stored), partitions)
    connection.execute(
        text("insert into leases (partition) select generate_series(0, :last) on conflict do nothing"),
        {"last": stored - 1},
    )
