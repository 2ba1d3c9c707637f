"""`creditlane jobs work|list|run|alive`: webhooks and scheduled work, on RQ."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..lanes.rq_queues import JOBS, QueueName, rq_name
from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings, load_operator_settings, load_settings
from .jobs_pool import jobs_pool
from .output import print_json, print_line, print_table, progress_bar
from .process_pool import print_log_line
from .stop_signals import StopSignals

if TYPE_CHECKING:
    from ..worker.jobs.status import JobReport, JobsReport, RunReport

#: How often a run is read while it is waited for, in seconds.
POLL_SECONDS = 0.2

jobs_app: typer.Typer = typer.Typer(
    name="jobs",
    no_args_is_help=True,
    help="Deliver webhooks and do scheduled work, on RQ; list what is scheduled, and run it now.",
)

Queue = Annotated[QueueName, typer.Option("--queue", help="The one queue that the processes listen to.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@jobs_app.command("work")
def work_command(
    queue: Queue,
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="Number of processes.")] = 1,
) -> None:
    """Do the jobs of one queue until stopped: SIGTERM or Ctrl-C lets it finish the job under way.

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
        jobs_pool(queue, processes, os.environ, print_log_line).run(signals)


@jobs_app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the jobs: when each is due next, and how its latest run went; then the queues.

    Example:  creditlane jobs list --json | jq '.queues[].failed'
    """
    from ..worker.jobs.status import read_jobs

    report = read_jobs(load_operator_settings())
    if as_json:
        print_json(report)
    else:
        _print_report(report)


@jobs_app.command("run")
def run_command(
    name: Annotated[str, typer.Argument(help="Its name, as `jobs list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Do a job now, wait for it and print how it went; one that is under way already is waited for.

    A process of `jobs work --queue jobs` does it, and goes on if this command is interrupted. Ends with 1 if it fails.

    Example:  creditlane jobs run verify
    """
    from ..worker.jobs.registry import SCHEDULED

    if name not in SCHEDULED:
        raise typer.BadParameter(f"there is no such job; there are {', '.join(SCHEDULED)}")
    run = run_now(load_operator_settings(), name)
    if as_json:
        print_json(run)
    else:
        print_line(f"{run.name} {run.status}: {run.error or _summary_of(run.outcome)}")
    raise typer.Exit(0 if run.status == "done" else 1)


@jobs_app.command("alive")
def alive_command(queue: Queue) -> None:
    """Say whether a process of this host is alive on the queue: ends with 0 if so, with 1 if not.

    Example:  creditlane jobs alive --queue jobs
    """
    from ..worker.jobs.status import living_processes

    found = [process for process in living_processes(load_settings(), queue) if process.host == socket.gethostname()]
    print_line(f"Processes of this host on the queue {queue}: {len(found)}")
    raise typer.Exit(0 if found else 1)


def run_now(settings: Settings, name: str, arguments: dict[str, Any] | None = None) -> RunReport:
    """Have a run of the job made and done, show how far it is, and return it when it is over.

    Raises:
        ConfigurationError: no process does the jobs.
    """
    from ..worker.jobs.queues import open_queue
    from ..worker.jobs.runs import request_run
    from ..worker.jobs.scheduler import see_to_runs
    from ..worker.jobs.status import living_processes, reached_postgres, reached_redis

    if not living_processes(settings, JOBS):
        raise ConfigurationError(
            f"No process does the jobs of {rq_name(settings, JOBS)}; start `creditlane jobs work --queue jobs`."
        )
    with reached_postgres(settings) as connection:
        run_id = request_run(connection, name, arguments)
        with reached_redis(settings) as client:
            see_to_runs(connection, settings, open_queue(settings, JOBS, client))
        return _awaited(settings, run_id)


def _awaited(settings: Settings, run_id: int) -> RunReport:
    from ..worker.jobs.status import reached_postgres, read_run

    with reached_postgres(settings) as connection, progress_bar("Running", "done") as progress:
        while (run := read_run(connection, run_id)) is not None and run.finished_at is None:
            done, total = _share(run.progress or {})
            progress(done, total)
            time.sleep(POLL_SECONDS)
    if run is None:
        raise ConfigurationError(f"The run {run_id} is gone.")
    return run


def _share(progress: dict[str, Any]) -> tuple[int, int]:
    if "share" in progress:
        return round(100 * float(progress["share"])), 100
    return int(progress.get("done", 0)), int(progress.get("total", 0))


def _print_report(report: JobsReport) -> None:
    print_table(
        ["job", "schedule (UTC)", "next due", "latest run", "state", "seconds", "outcome"],
        [_job_row(job) for job in report.jobs],
        title="Jobs",
    )
    print_table(
        ["queue", "in RQ", "waiting", "started", "failed", "refused", "processes"],
        [
            (
                queue.queue,
                queue.rq_name,
                queue.waiting,
                queue.started,
                queue.failed,
                queue.refused,
                len(queue.processes),
            )
            for queue in report.queues
        ],
        title="Queues",
    )


def _job_row(job: JobReport) -> tuple[str | float | None, ...]:
    run = job.latest
    due = f"{job.next_due_at:%F %T}" if job.next_due_at else None
    if run is None:
        return job.name, job.schedule or "on request", due, None, None, None, None
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None
    outcome = run.error or _summary_of(run.outcome or run.progress)
    return job.name, job.schedule or "on request", due, f"{run.due_at:%F %T}", run.status, seconds, outcome


def _summary_of(counts: dict[str, Any] | None) -> str:
    """Return what a run reports, on one line."""
    shown = {name: value for name, value in (counts or {}).items() if isinstance(value, str | int | float)}
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in shown.items()
    )
