"""Measures RQ, one job a command, and checks what it did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import islice

import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from ..cli.output import progress_bar
from ..lanes.encoding import encode_command
from ..schemas.settings import Settings
from .ledger_check import check_ledger
from .load import debits
from .plan import BenchmarkFailed
from .rq_jobs import apply_command
from .scenarios import Measurement, debited
from .worker_processes import environment_of

#: How long RQ keeps what a job returned, in seconds.
RESULT_TTL_SECONDS = 3_600
#: How long a job may take to be run, in seconds.
JOB_TIMEOUT_SECONDS = 60
#: Jobs that are enqueued or fetched in one go.
JOBS_PER_CALL = 1_000
#: How long the whole may take for each job, in seconds, and the least for all.
DEADLINE_SECONDS_PER_JOB = 0.1
LEAST_DEADLINE_SECONDS = 60.0


def measure_rq(settings: Settings, accounts: Sequence[str], commands: int) -> Measurement:
    """Measure RQ's SimpleWorker on jobs that were enqueued before, and check their results and the ledger.

    The clock runs in the worker's process, connected, from its first read of the queue until the queue is empty.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    with redis.Redis.from_url(settings.require_redis_url(), protocol=2) as connection:
        queue = Queue(settings.redis_prefix, connection=connection, serializer=JSONSerializer)
        encoded = [encode_command(command, settings.store).decode() for command in debits(accounts, commands)]
        job_ids = _enqueue(queue, encoded)
        try:
            with progress_bar("  one job a command", "commands") as progress:
                progress(0, commands)
                seconds = _run_worker(settings, queue.name, commands)
            results = [job.return_value() for job in _fetch(job_ids, connection)]
        finally:
            _remove(queue, job_ids, connection)
    applied = sum(result is not None and result["status"] == "applied" for result in results)
    if applied != commands:
        raise BenchmarkFailed(f"RQ applied {applied} of {commands} commands")
    check_ledger(settings, accounts, debited(accounts, commands))
    return Measurement(commands, seconds)


def _enqueue(queue: Queue, encoded: Iterable[str]) -> list[str]:
    job_ids: list[str] = []
    waiting = iter(encoded)
    while part := list(islice(waiting, JOBS_PER_CALL)):
        jobs = [
            Queue.prepare_data(
                apply_command, args=(command,), result_ttl=RESULT_TTL_SECONDS, timeout=JOB_TIMEOUT_SECONDS
            )
            for command in part
        ]
        job_ids += [job.id for job in queue.enqueue_many(jobs)]
    return job_ids


def _run_worker(settings: Settings, queue_name: str, commands: int) -> float:
    """Return the seconds that the worker took."""
    module = f"{__name__.rpartition('.')[0]}.rq_worker"
    deadline = max(LEAST_DEADLINE_SECONDS, commands * DEADLINE_SECONDS_PER_JOB)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", module, queue_name],
            env=environment_of(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
            timeout=deadline,
        )
    except subprocess.CalledProcessError as error:
        raise BenchmarkFailed(f"RQ's worker ended with {error.returncode}\n{error.stderr}") from None
    except subprocess.TimeoutExpired:
        raise BenchmarkFailed(f"RQ's worker was not done after {deadline:.0f} seconds") from None
    return float(ended.stdout.splitlines()[-1])


def _fetch(job_ids: Sequence[str], connection: redis.Redis) -> Iterable[Job]:
    for first in range(0, len(job_ids), JOBS_PER_CALL):
        part = job_ids[first : first + JOBS_PER_CALL]
        yield from (job for job in Job.fetch_many(part, connection, serializer=JSONSerializer) if job is not None)


def _remove(queue: Queue, job_ids: Sequence[str], connection: redis.Redis) -> None:
    """Remove what is left in Redis: RQ's own names have no prefix that could be removed as a whole."""
    for job in _fetch(job_ids, connection):
        job.delete()
    queue.delete(delete_jobs=True)
