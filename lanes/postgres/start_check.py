"""What every process asks of Postgres at its start, and every command before its work: is it a ledger, and may we?

What a session itself must be is checked where sessions are made. Importing this imports the driver.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import psycopg

from ...schemas.installation import READ_INSTALLATION, Installation, check_installation
from ...schemas.roles import FIND_MISSING, Part, check_rights, wanted_by
from .errors import refusals_translated

Connection = psycopg.Connection[tuple[Any, ...]]


def check_ledger(connection: Connection, partitions: int | None, part: Part | None = None) -> Installation:
    """Return what is fixed for the ledger, if it is this version's and lets this part do all that it needs.

    Without a part nothing is asked of the rights: a command finds out at its work which it lacks.

    Raises:
        NotMigrated: the schema is not this version's, or none.
        PartitionMismatch: another number of partitions is configured.
        DeniedByRole: the role lacks a right; the message names it.
    """
    with nullcontext() if part is None else refusals_translated(part):
        installation = check_installation(connection.execute(READ_INSTALLATION).fetchone(), partitions)
        if part is not None:
            check_rights(part, connection.execute(FIND_MISSING, wanted_by(part)).fetchall())
    return installation
