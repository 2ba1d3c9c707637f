"""Up to which moment the journal is complete: no row from before it is still to be committed.

A batch takes Postgres's clock when it has locked its lanes, so as long as it may still commit it holds a lock on the
table `leases`, from before that clock on. Everybody sees who holds such locks, whatever their roles. Whoever begins
after this was read takes a later clock; whoever held a lock then either is visible here, and began no later than its
clock, or is of another role that `pg_stat_activity` hides, and is waited for. What is read afterwards, by another
statement, has every row from before the watermark.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

#: The lock of any other writer of the journal counts, too: by hand, or of a `migrate`.
READ_WRITERS = """
select statement_timestamp(), min(session.xact_start),
       coalesce(array_agg(distinct held.virtualtransaction), '{}'),
       coalesce(array_agg(distinct held.virtualtransaction) filter (where session.xact_start is null), '{}')
from pg_locks held left join pg_stat_activity session on session.pid = held.pid
where held.locktype = 'relation' and held.relation in ('leases'::regclass, 'journal'::regclass)
    and held.database = (select oid from pg_database where datname = current_database())
    and held.mode in ('RowShareLock', 'RowExclusiveLock') and held.pid is distinct from pg_backend_pid()
"""

#: Whether any of these transactions is still under way.
FIND_UNFINISHED = "select exists (select from pg_locks where virtualtransaction = any(%(transactions)s))"


class Writers(NamedTuple):
    """Who may still write rows from before a moment, and since when."""

    #: When this was read; whoever began to write later writes no row from before.
    moment: datetime
    #: When the first of them began, of those whose beginning can be seen; None: there is none of those.
    first_began: datetime | None
    transactions: list[str]
    #: Those of them whose beginning cannot be seen.
    unseen: list[str]

    @property
    def watermark(self) -> datetime:
        """Before this, nothing changes any more; once the unseen ones are over."""
        return self.moment if self.first_began is None else min(self.moment, self.first_began)


def writers_of(rows: Sequence[tuple[Any, ...]]) -> Writers:
    """Return what the rows of `READ_WRITERS` say."""
    (row,) = rows
    return Writers(*row)
