"""`creditlane jobs work|alive`: the processes on RQ."""

from __future__ import annotations

import os
import socket
import time
from typing import Annotated

import typer

from ..producer.cli.output import print_line
from ..schemas.queues import QueueName
from ..schemas.settings import load_settings
from .jobs_pools import jobs_pool
from .stop_signals import StopSignals
from .up_command import print_log_line

jobs_app = typer.Typer(
    name="jobs",
    no_args_is_help=True,
    help="Deliver webhooks and do scheduled work, on RQ; list what is scheduled, and run it now.",
)

Queue = Annotated[QueueName, typer.Option("--queue", help="The one queue that the processes listen to.")]


@jobs_app.command("work")
def work_command(
    queue: Queue,
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="Number of processes.")] = 1,
) -> None:
    """Do the jobs of one queue until told to stop: SIGTERM or Ctrl-C lets it finish the job under way.

    Run one of each queue at least, and as many as you like, on any number of hosts. Each also looks after what is due.
    `rq info` shows them. Needs CREDITLANE_REDIS_URL and CREDITLANE_DATABASE_URL.

    Example:  creditlane jobs work --queue deliveries --processes 2
    """
    settings = load_settings()
    if processes == 1:
        from ..worker.jobs.process import run_jobs_process

        run_jobs_process(settings, queue)
        return
    settings.require_database_url()
    settings.require_redis_url()
    with StopSignals() as signals:
        pool = jobs_pool(queue, processes, os.environ, print_log_line)
        try:
            pool.start()
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            signals.ignore()
        finally:
            pool.stop()


@jobs_app.command("alive")
def alive_command(queue: Queue) -> None:
    """Tell whether a process of this host shows life on the queue: ends with 0 if so, with 1 if not.

    Example:  creditlane jobs alive --queue jobs
    """
    from ..worker.jobs.look import living_processes

    found = [process for process in living_processes(load_settings(), queue) if process.host == socket.gethostname()]
    print_line(f"{len(found)} processes of this host do the jobs of the queue {queue}")
    raise typer.Exit(0 if found else 1)
