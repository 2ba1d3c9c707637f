"""What is fixed when the database is initialised, and how every process checks it. Knows no database driver.

Which versions of the schema a process works with is `schema_revision`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from .errors import ConfigurationError, NotMigrated, PartitionMismatch
from .schema_revision import check_revision

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
