"""What is fixed when the database is initialised, and how every process checks it. Knows no database driver."""

from __future__ import annotations

import msgspec

from .errors import NotMigrated, PartitionMismatch

#: The version of the schema that this code works with: the newest in `migrations/versions`.
SCHEMA_REVISION = "0006"

#: One row: the schema's version and the number of partitions. Fails with UndefinedTable on an empty database.
READ_INSTALLATION = "select version_num, partitions from alembic_version, installation"


class Installation(msgspec.Struct, frozen=True):
    """The facts of an installation, as also mirrored in Redis."""

    partitions: int


def check_installation(row: tuple[str, int] | None, configured_partitions: int | None) -> Installation:
    """Return the installation's facts from the row of `READ_INSTALLATION`.

    Raises:
        NotMigrated: the schema is not the one this code works with.
        PartitionMismatch: another number of partitions is configured.
    """
    if row is None:
        raise NotMigrated
    revision, partitions = row
    if revision != SCHEMA_REVISION:
        raise NotMigrated(
            f"The database has schema {revision} and this version of Creditlane needs {SCHEMA_REVISION}; "
            "run `creditlane migrate` with the newest version that is deployed."
        )
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
