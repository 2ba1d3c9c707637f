"""`creditlane worker` and `creditlane migrate`: what a deployment runs, with servers of its own."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..producer.cli.output import print_line
from ..schemas.settings import load_settings
from .stop_signals import StopSignals
from .up_command import print_log_line
from .worker_pool import WorkerPool


def worker_command(
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="Number of worker processes.")] = 1,
) -> None:
    """Apply commands until told to stop: SIGTERM or Ctrl-C lets it finish its batch and give its partitions back.

    Run as many as you like, on any number of hosts: they share the partitions. Needs CREDITLANE_REDIS_URL and
    CREDITLANE_DATABASE_URL.

    Example:  creditlane worker --processes 2
    """
    settings = load_settings()
    if processes == 1:
        from ..worker import run_worker

        run_worker(settings)
        return
    settings.require_database_url()
    settings.require_redis_url()
    with StopSignals() as signals:
        WorkerPool(processes, os.environ, print_log_line).run(signals)


def migrate_command(
    partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Fixed for ever on an empty database; left out, 64.")
    ] = None,
) -> None:
    """Bring the database to the schema of this version. Safe to repeat, and to run from several places at once.

    Needs CREDITLANE_DATABASE_URL.

    Example:  creditlane migrate && creditlane worker
    """
    from ..schemas.migrate import migrate

    settings = load_settings()
    revision = migrate(settings.require_database_url(), partitions=partitions or settings.partitions)
    print_line(f"The database is at schema {revision}")
