"""Brings a database to the current schema. Needs the extra `worker` (SQLAlchemy and Alembic)."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from ...schemas import migrations
from ...schemas.errors import ConfigurationError, Unavailable
from ...schemas.installation import (
    DEFAULT_PARTITIONS,
    FIND_OTHERS,
    Installation,
    check_others,
    check_partitions,
)
from ...schemas.releases import RELEASE
from ...schemas.roles import GRANTS, denied
from ...schemas.schema_revision import is_ahead
from . import sessions
from .role_setup import RoleSetup, act_as_owner, grant_rights, make_roles

#: Any number that nothing else uses: two `migrate` at once must take turns.
_MIGRATION_LOCK = 7_306_011_901
#: What the session is called in Postgres.
SESSION_NAME = "creditlane-migrate"

#: How long others may have to wait behind this because it waits for a table, in seconds: shorter than it takes Postgres
#: to look for a deadlock, so that of two that wait for each other this one gives way.
LOCK_WAIT_SECONDS = 0.5
#: The pause before it tries again, in which they get on, in seconds.
PAUSE_SECONDS = 2.0
#: How long it tries in all, in seconds. A proof of a large ledger reads all of it in one transaction.
MAX_WAIT_SECONDS = 600.0


def migrate(database_url: str, *, partitions: int | None = None, roles: RoleSetup | None = None) -> str:
    """Bring the database to the current schema and return that schema's revision.

    Safe to run again and at the same time by several. On an empty database, `partitions` (64 unless given)
    is fixed for ever. With `roles`, these are made, own the ledger and have their rights from now on; without, roles
    that were made before get what is new. A schema that a newer version has made, and that this one works with, stays
    as it is, and so do the rights to it: processes of this version may go on, and be started again.

    Others may be at work meanwhile. They wait for a table for as long as this changes it, and at most
    `LOCK_WAIT_SECONDS` before: a transaction that keeps the table for longer is waited for with everybody let through.

    Raises:
        DeniedByRole: the role of the URL may not do something; the message says what it lacks.
        ConfigurationError: the database is none that can hold a ledger, or its tables are another program's.
        PartitionMismatch: `partitions` is given and the database was initialised with another number.
        Unavailable: the database cannot be reached.
    """
    # The session is made by us: SQLAlchemy would read the URL in its own way, and know fewer forms than the others do.
    session = partial(sessions.connect, database_url, name=SESSION_NAME, autocommit=False)
    engine = create_engine("postgresql+psycopg://", creator=session, poolclass=NullPool)
    try:
        return _migrate_between_others(engine, partitions, roles)
    except CommandError as error:
        raise ConfigurationError(
            f"This version of Creditlane does not know the schema of the database ({error}); nothing was changed. "
            "Run `creditlane migrate` with the newest version that is deployed."
        ) from error
    except OperationalError as error:
        raise Unavailable(f"Postgres cannot be reached: {error.orig}") from error
    except ProgrammingError as error:
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise denied(error.orig, "owner") from error
        raise


def _migrate_between_others(engine: Engine, partitions: int | None, roles: RoleSetup | None) -> str:
    """Do all of it in one transaction, begun anew whenever somebody keeps what it needs."""
    until = time.monotonic() + MAX_WAIT_SECONDS
    while True:
        try:
            with engine.begin() as connection:
                return _migrate(connection, partitions, roles)
        except (OperationalError, psycopg.errors.LockNotAvailable) as error:
            reason = getattr(error, "orig", error)
            if not isinstance(reason, psycopg.errors.LockNotAvailable):
                raise
            if time.monotonic() >= until:
                raise Unavailable(
                    f"A transaction has kept a table for {MAX_WAIT_SECONDS:g} s that must be changed ({reason}). "
                    "Nothing was changed; run it again when that transaction is over."
                ) from error
        time.sleep(PAUSE_SECONDS)


def _migrate(connection: Connection, partitions: int | None, roles: RoleSetup | None) -> str:
    driver = _session_of(connection)
    # The role's own limits must not cut this, also where it waits for another `migrate`.
    connection.exec_driver_sql(sessions.limit_statement(driver, sessions.UNLIMITED))
    connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    # Whoever waits for a table lets nobody else have it.
    connection.exec_driver_sql(f"select set_config('lock_timeout', '{LOCK_WAIT_SECONDS * 1_000:.0f}', true)")
    check_others(*driver.execute(FIND_OTHERS, {"names": list(GRANTS)}).fetchall()[0])
    if roles is not None:
        make_roles(driver, roles)
    act_as_owner(driver, roles)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and is_ahead(found):
        # Rights, too, stay: this version knows nothing of those to what the newer one has added, and would revoke them.
        _initialise(connection, partitions)
        return found
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    _initialise(connection, partitions)
    grant_rights(driver, roles)
    return MigrationContext.configure(connection).get_current_revision() or ""


def _session_of(connection: Connection) -> sessions.PostgresSession:
    session = connection.connection.driver_connection
    if not isinstance(session, sessions.PostgresSession):
        raise TypeError(f"not a session of ours: {session!r}")
    return session


def _initialise(connection: Connection, partitions: int | None) -> None:
    connection.execute(
        # Nobody older has ever been at work on a ledger that this version makes.
        text(
            "insert into installation (partitions, required_release) values (:partitions, :release) "
            "on conflict do nothing"
        ),
        {"partitions": partitions or DEFAULT_PARTITIONS, "release": RELEASE},
    )
    stored = connection.execute(text("select partitions from installation")).scalar_one()
    check_partitions(Installation(stored), partitions)
    connection.execute(
        text("insert into leases (partition) select generate_series(0, :last) on conflict do nothing"),
        {"last": stored - 1},
    )
