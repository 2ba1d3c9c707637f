"""What every process asks of Postgres at its start, and every command before its work: is it a ledger, and may we?

What a session itself must be is checked where sessions are made. Importing this imports the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg

from ...schemas.errors import NotMigrated
from ...schemas.installation import READ_INSTALLATION, Installation, check_installation
from ...schemas.roles import FIND_MISSING, Part, check_rights, denied, wanted_by

Connection = psycopg.Connection[tuple[Any, ...]]


def check_ledger(connection: Connection, partitions: int | None, part: Part | None = None) -> Installation:
    """Return what is fixed for the ledger, after a look whether it is this version's, and all that this part needs.

    Without a part nothing is asked of the rights: a command finds out at its work which it lacks.

    Raises:
        NotMigrated: the schema is not this version's, or none.
        PartitionMismatch: another number of partitions is configured.
        DeniedByRole: the role lacks a right; the message names it.
    """
    with nullcontext() if part is None else refusals_told(part):
        installation = check_installation(connection.execute(READ_INSTALLATION).fetchone(), partitions)
        if part is not None:
            check_rights(part, connection.execute(FIND_MISSING, wanted_by(part)).fetchall())
    return installation


@contextmanager
def refusals_told(*parts: Part) -> Iterator[None]:
    """Raise what Postgres refuses in the words of the ledger, and name the roles that may do it.

    Raises:
        NotMigrated: a table is missing.
        DeniedByRole: the role lacks a right.
    """
    try:
        yield
    except psycopg.errors.UndefinedTable:
        raise NotMigrated from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise denied(error, *parts) from None
