"""What is fixed when the database is initialised, and how every process checks it. Knows no database driver.

Processes of several releases run beside each other while one is rolled out, so none asks for one schema and no other:
each works with a range of them. How far down is a matter of the code, `OLDEST_REVISION`; how far up is one of the
schema, which says in its own name from which revision on code works with it.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple, Self

import msgspec

from .errors import ConfigurationError, NotMigrated, PartitionMismatch

#: The newest version of the schema that this code knows, in `migrations/versions`; `migrate` brings databases to it.
SCHEMA_REVISION = "0007"
#: The oldest version that this code works with. Code that cannot do without what a migration adds raises it to that.
OLDEST_REVISION = "0007"

#: Partitions of a new database, unless another number is given. Fixed from then on.
DEFAULT_PARTITIONS = 64
#: More lanes than this gain nothing and cost every read of all lanes.
MAX_PARTITIONS = 1_024

#: One row: the schema's version and the number of partitions. Fails with UndefinedTable on an empty database.
READ_INSTALLATION = "select version_num, partitions from alembic_version, installation"


#: Whose the tables are that `migrate` is about to change: whether the ones that are found first are an installation's,
#: what another program's `alembic_version` says, and what is in the way where ours would be made.
FIND_OTHERS = """
select exists (
        select from pg_attribute where attrelid = to_regclass('installation') and attname = 'partitions' and attnum > 0
    ),
    to_regclass('alembic_version')::text,
    array(
        select relname::text from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where nspname = current_schema() and relname = any(%(names)s::text[]) order by relname
    ),
    current_schema()::text
"""
#: What to do about tables of others.
SCHEMA_OF_ITS_OWN = (
    "Give Creditlane a database of its own, or a schema: `create schema ledger`, and "
    "?options=-csearch_path%3Dledger at the end of the URL of every process."
)


_REVISION = re.compile(r"([0-9]{4})(?:_since_([0-9]{4}))?")


class Revision(NamedTuple):
    """A version of the schema, by its name: code made for `0007` works with `0009_since_0007`, code for 0006 does not.

    A name without the second part is that of a schema which no older code works with.
    """

    number: int
    #: The oldest code that works with it, by the newest revision which that knows.
    since: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Return what the name says, or None for one that is not ours."""
        found = _REVISION.fullmatch(name)
        return cls(int(found[1]), int(found[2] or found[1])) if found else None


#: The two ends of the range as numbers, which the names begin with.
_NEWEST_KNOWN = int(SCHEMA_REVISION[:4])
_OLDEST_USABLE = int(OLDEST_REVISION[:4])


class Installation(msgspec.Struct, frozen=True):
    """The facts of an installation, as also mirrored in Redis."""

    partitions: Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTITIONS)]


def check_others(is_ours: bool, versions_table: str | None, in_the_way: list[str], schema: str | None) -> None:
    """Judge the row of `FIND_OTHERS`.

    Raises:
        ConfigurationError: what is there belongs to another program. Nothing was changed.
    """
    if is_ours:
        return
    if schema is None:
        raise ConfigurationError(
            "No schema of the search_path is there to make the tables in; nothing was changed. Create it first."
        )
    if versions_table is not None:
        raise ConfigurationError(
            f"The table {versions_table} in this database is another program's, which uses Alembic, too; nothing was "
            f"changed. {SCHEMA_OF_ITS_OWN}"
        )
    if in_the_way:
        raise ConfigurationError(
            f"The schema {schema} has tables of another program ({', '.join(in_the_way)}) that are called as "
            f"Creditlane's; nothing was changed. {SCHEMA_OF_ITS_OWN}"
        )


def check_installation(row: tuple[str, int] | None, configured_partitions: int | None) -> Installation:
    """Return the installation's facts from the row of `READ_INSTALLATION`.

    Raises:
        NotMigrated: the schema is none that this code works with.
        PartitionMismatch: another number of partitions is configured.
    """
    if row is None:
        raise NotMigrated
    revision, partitions = row
    check_revision(revision)
    return check_partitions(Installation(partitions), configured_partitions)


def is_ahead(name: str) -> bool:
    """Return whether a newer version has made the schema, in a way that this code works with all the same."""
    found = Revision.parse(name)
    return found is not None and found.number > _NEWEST_KNOWN and found.since <= _NEWEST_KNOWN


def check_revision(name: str) -> None:
    """Judge the schema of the database.

    Raises:
        NotMigrated: this code does not work with it; the message says what to do.
    """
    found = Revision.parse(name)
    if found is not None and found.since > _NEWEST_KNOWN:
        raise NotMigrated(
            f"The database has schema {found.number:04}, and only code of schema {found.since:04} and later works with "
            f"it; this version of Creditlane knows {SCHEMA_REVISION}: start a newer one instead."
        )
    if found is None or found.number < _OLDEST_USABLE:
        raise NotMigrated(
            f"The database has schema {name} and this version of Creditlane needs {OLDEST_REVISION}; "
            "run `creditlane migrate` with the newest version that is deployed."
        )


def check_partitions(installation: Installation, configured: int | None) -> Installation:
    """Return the installation if the configured number of partitions is its own, or none is configured.

    Raises:
        PartitionMismatch: they differ. Commands of one account would go to two lanes.
    """
    if configured is not None and configured != installation.partitions:
        raise PartitionMismatch(
            f"CREDITLANE_PARTITIONS is {configured}, but the database was initialised with {installation.partitions}; "
            "leave it unset, or set it to that number."
        )
    return installation
