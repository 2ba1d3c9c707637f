"""Cuts the connections of workers, and leaves their servers and everybody else alone."""

import psycopg

from creditlane.schemas.settings import Settings

_CUT = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and application_name like 'creditlane-worker%'
"""


def cut_postgres_connections(settings: Settings) -> int:
    """Terminate every worker's backend of this test's database; return how many there were."""
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        return int((connection.execute(_CUT).fetchone() or [0])[0])
