"""`creditlane worker`: applies the commands of the lanes; and `creditlane worker alive`, for health checks."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..schemas.settings import load_settings
from .process_pool import WorkerPool, print_log_line
from .stop_signals import StopSignals
from .worker_alive import report_alive

worker_app: typer.Typer = typer.Typer(name="worker", invoke_without_command=True)


@worker_app.callback()
def worker_command(
    context: typer.Context,
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="Number of worker processes.")] = 1,
) -> None:
    """Apply commands until stopped: SIGTERM or Ctrl-C lets it finish its batch and give its partitions back.

    Run as many as you like, on any number of hosts: they share the partitions. Needs CREDITLANE_REDIS_URL and
    CREDITLANE_DATABASE_URL.

    Example:  creditlane worker --processes 2
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    if processes == 1:
        from ..worker.process import run_worker

        run_worker(settings)
        return
    settings.require_database_url()
    settings.require_redis_url()
    with StopSignals() as signals:
        WorkerPool(processes, os.environ, print_log_line).run(signals)


@worker_app.command("alive")
def alive_command() -> None:
    """Say whether the worker processes of this machine, user and CREDITLANE_REDIS_PREFIX are alive, for health checks.

    Ends with 1 if there is none, or if one had no heartbeat for two leases. It asks no server: a worker that waits for
    one is alive. `creditlane status --check` says whether every lane has a worker.

    Example:  creditlane worker alive
    """
    raise typer.Exit(report_alive())
