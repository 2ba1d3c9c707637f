"""Up to which moment the journal is complete: no row from before it is still to be committed.

A batch takes Postgres's clock after it has begun, so none of its rows is older than its transaction. Sessions of other
roles are seen in full by a member of pg_read_all_stats only; without that, the lag covers batches of ordinary length,
and what a longer one brings is found by the whole verification.
"""

from __future__ import annotations

from datetime import datetime

from .database import Connection

#: The horizon lags behind the clock by so much at least, in seconds.
LAG_SECONDS = 5

READ_HORIZON = """
select least(
    clock_timestamp() - make_interval(secs => %(lag)s),
    (select min(xact_start) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid()
        and (backend_xid is not null or application_name like 'creditlane-worker%%')),
    (select min(prepared) from pg_prepared_xacts where database = current_database())
)
"""


def read_horizon(connection: Connection) -> datetime:
    """Return the moment before which every journal row is there to be read."""
    (horizon,) = connection.execute(READ_HORIZON, {"lag": LAG_SECONDS}).fetchone() or (None,)
    if not isinstance(horizon, datetime):
        raise TypeError(f"the horizon is no time: {horizon!r}")
    return horizon
