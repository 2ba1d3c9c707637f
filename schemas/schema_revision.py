"""Which versions of the schema this code works with, and what it says of the others. Knows no database driver.

Processes of several releases run beside each other while one is rolled out, so none asks for one schema and no other:
each works with a range of them. How far down is a matter of the code, `OLDEST_REVISION`; how far up is one of the
schema, which says in its own name from which revision on code works with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from .errors import NotMigrated

#: The newest version of the schema that this code knows, in `migrations/versions`; `migrate` brings databases to it.
SCHEMA_REVISION = "0008_since_0007"
#: The oldest version that this code works with. Code that cannot do without what a migration adds raises it to that.
OLDEST_REVISION = "0008_since_0007"

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
