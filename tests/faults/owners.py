"""Who owns the lanes, as Postgres has it."""

import psycopg

from creditlane.schemas.settings import Settings

_OWNED = """
select workers.process_id, count(leases.partition) from workers
left join leases using (worker_id) where workers.expires_at > clock_timestamp() group by workers.worker_id
"""


def owned_by(settings: Settings) -> dict[int, int]:
    """Return how many lanes each living worker owns, by its process id."""
    with psycopg.connect(settings.require_database_url()) as connection:
        return dict(connection.execute(_OWNED).fetchall())


def known_workers(settings: Settings) -> int:
    """Return how many workers are on record, living or dead."""
    with psycopg.connect(settings.require_database_url()) as connection:
        return int((connection.execute("select count(*) from workers").fetchone() or [0])[0])


def owned_lanes(settings: Settings) -> int:
    """Return how many lanes are somebody's."""
    statement = "select count(*) from leases where worker_id is not null"
    with psycopg.connect(settings.require_database_url()) as connection:
        return int((connection.execute(statement).fetchone() or [0])[0])
