"""How the work beside the lanes is doing: schedules, their latest runs, the queues and processes. Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import redis
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from ...lanes.postgres.errors import translated
from ...lanes.postgres.start_check import check_ledger
from ...lanes.rq_queues import DELIVERIES, JOBS, QueueName, rq_name
from ...schemas.errors import Unavailable
from ...schemas.settings import Settings
from ...schemas.statuses import StoredRunStatus, word
from ..connections import connect_redis
from .database import Connection, connect
from .queues import open_queue, read_refusals
from .registry import KINDS
from .rq_worker import LIFE_SECONDS

_RUN = f"""
run_id, name, due_at, {word("status", StoredRunStatus)} as status, owner, attempts, started_at,
    finished_at, progress, outcome, error
"""

READ_RUN = f"select {_RUN} from job_runs where run_id = %(run_id)s"  # noqa: S608  the columns are a constant

READ_LATEST_RUN = f"""
select {_RUN} from job_runs where name = %(name)s order by due_at desc limit 1
"""  # noqa: S608

READ_NEXT_DUE = "select next_due_at from scheduled_jobs where name = %(name)s"


class RunReport(BaseModel):
    """A run."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    run_id: int
    name: str
    due_at: datetime
    status: Literal["due", "running", "done", "failed"]
    #: The process that does it now.
    owner: str | None
    #: How many processes have taken it.
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    progress: dict[str, Any] | None
    outcome: dict[str, Any] | None
    error: str | None


class JobReport(BaseModel):
    """A kind of job, and its latest run."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    summary: str
    #: As cron writes it, in UTC; None: on request only.
    schedule: str | None
    next_due_at: datetime | None
    latest: RunReport | None


class ProcessLook(BaseModel):
    """A process on RQ with a recent heartbeat."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    host: str
    process_id: int
    state: str


class QueueLook(BaseModel):
    """A queue."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    queue: QueueName
    #: What it is called in RQ.
    rq_name: str
    waiting: int
    started: int
    failed: int
    #: Jobs that were none of Creditlane's: somebody else writes to Redis.
    refused: int
    processes: list[ProcessLook]


class JobsReport(BaseModel):
    """All of it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    jobs: list[JobReport]
    queues: list[QueueLook]


def read_jobs(settings: Settings) -> JobsReport:
    """Return how the work beside the lanes is doing.

    Raises:
        ConfigurationError: Redis or Postgres is not set, or the database is not migrated.
        Unavailable: Redis or Postgres cannot be reached.
    """
    with reached_postgres(settings) as connection:
        jobs = [_job(connection, name) for name in KINDS]
    with reached_redis(settings) as client:
        queues = [_queue(settings, queue, client) for queue in (DELIVERIES, JOBS)]
    return JobsReport(jobs=jobs, queues=queues)


def read_run(connection: Connection, run_id: int) -> RunReport | None:
    """Return the run as it is now."""
    with connection.cursor(row_factory=class_row(RunReport)) as cursor:
        return cursor.execute(READ_RUN, {"run_id": run_id}).fetchone()


def living_processes(settings: Settings, queue: QueueName) -> list[ProcessLook]:
    """Return the processes on the queue with a recent heartbeat.

    Raises:
        Unavailable: Redis cannot be reached.
    """
    with reached_redis(settings) as client:
        return _processes(open_queue(settings, queue, client))


@contextmanager
def reached_postgres(settings: Settings) -> Iterator[Connection]:
    """Give a connection to a ledger that this code knows; what fails with it is reported as the caller's error."""
    with translated("jobs", "owner"), connect(settings) as connection:
        check_ledger(connection, settings.partitions)
        yield connection


@contextmanager
def reached_redis(settings: Settings) -> Iterator[redis.Redis]:
    """Give a client of Redis; what fails with it is reported as the caller's error."""
    try:
        with connect_redis(settings.require_redis_url()) as client:
            yield client
    except redis.RedisError as error:
        raise Unavailable(f"Redis cannot be reached: {error}") from error


def _job(connection: Connection, name: str) -> JobReport:
    with connection.cursor(row_factory=class_row(RunReport)) as cursor:
        latest = cursor.execute(READ_LATEST_RUN, {"name": name}).fetchone()
    due = connection.execute(READ_NEXT_DUE, {"name": name}).fetchone()
    kind = KINDS[name]
    return JobReport(
        name=name,
        summary=kind.summary,
        schedule=kind.schedule,
        next_due_at=due[0].astimezone(UTC) if due else None,
        latest=latest,
    )


def _queue(settings: Settings, name: QueueName, client: redis.Redis) -> QueueLook:
    queue = open_queue(settings, name, client)
    return QueueLook(
        queue=name,
        rq_name=rq_name(settings, name),
        waiting=queue.count,
        started=queue.started_job_registry.get_job_count(cleanup=False),
        failed=queue.failed_job_registry.get_job_count(cleanup=False),
        refused=read_refusals(settings, name, client),
        processes=_processes(queue),
    )


def _processes(queue: Queue) -> list[ProcessLook]:
    oldest = datetime.now(UTC) - timedelta(seconds=LIFE_SECONDS)
    return [
        ProcessLook(
            name=worker.name, host=worker.hostname or "", process_id=worker.pid or 0, state=str(worker.get_state())
        )
        for worker in Worker.all(queue=queue, serializer=JSONSerializer)
        if worker.last_heartbeat and worker.last_heartbeat > oldest
    ]
