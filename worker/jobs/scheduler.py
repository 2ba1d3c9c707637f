"""Makes runs when they are due and jobs in RQ for them. Any number of schedulers may be at it at once.

Due times are decided by Postgres's clock and follow from the cron text alone, so the same time always has the same
name, and a run that was made is never made again, whichever way the clock goes. What was missed is caught up on by one
run. A run is a row before it is a job in RQ: whatever dies in between, some scheduler makes the job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
import redis
import structlog
from rq import Queue
from rq.job import Job, JobStatus

from ...lanes.backoff import Backoff
from ...lanes.postgres.errors import error_text
from ...lanes.rq_queues import JOBS
from ...schemas.settings import Settings
from ..connections import connect_redis
from . import sql
from .database import Connection, connect
from .ended_holds import EndedHolds
from .entrypoints import PERFORM_RUN
from .queues import job_id, open_queue, put_back_if_abandoned
from .registry import KINDS, SCHEDULED, next_due
from .scheduled_commands import DueCommands

#: How often the scheduler asks Postgres, in seconds.
POLL_SECONDS = 1.0
#: How long a run that is due is trusted to have its job in RQ before that is checked again, in seconds.
SEEN_SECONDS = 30.0
#: Most runs that are seen to in one transaction.
MAX_RUNS = 100
#: How long a job's result is kept in RQ, and its failure, in seconds. The runs' outcomes are in Postgres.
RESULT_SECONDS = 86_400
FAILURE_SECONDS = 30 * 86_400

#: A job that waits, or runs, or has failed and waits for a person, is as it should be.
_STANDING = {JobStatus.QUEUED, JobStatus.STARTED, JobStatus.SCHEDULED, JobStatus.DEFERRED, JobStatus.FAILED}

#: Is called with each step that is done; outside of tests nobody listens.
StepListener = Callable[[str], None]

_log = structlog.get_logger(__name__)


def _no_listener(_step: str) -> None:
    """Outside of tests nobody listens."""


class Scheduler:
    """Makes runs of what is due, every second."""

    def __init__(
        self,
        settings: Settings,
        stopping: threading.Event,
        *,
        clock: LiteralString = "clock_timestamp()",
        after_step: StepListener = _no_listener,
    ) -> None:
        """Prepare a scheduler that takes the time from this SQL expression."""
        self._settings = settings
        self._stopping = stopping
        self._read_clock = f"select {clock}"
        self._after_step = after_step
        self._due_commands = DueCommands(settings)
        self._ended_holds = EndedHolds(settings, stopping)

    def run(self) -> None:
        """Make them until the process stops."""
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            try:
                with connect(self._settings) as connection, connect_redis(self._settings.require_redis_url()) as client:
                    self._run_ticks(connection, client, backoff)
            except (psycopg.Error, redis.RedisError) as error:
                # Also an error that is an answer, as of a server that lets nothing be written: the next connection may
                # lead to another.
                _log.warning("the scheduler tries again", error=error_text(error), failures=backoff.failures)
                backoff.pause()

    def _run_ticks(self, connection: Connection, client: redis.Redis, backoff: Backoff) -> None:
        queue = open_queue(self._settings, JOBS, client)
        self.sync(connection)
        while not self._stopping.wait(POLL_SECONDS):
            self.tick(connection, queue)
            self._due_commands.put_on_lanes(connection, client)
            self._ended_holds.put_on_lanes(connection, client)
            backoff.reset()

    def sync(self, connection: Connection) -> None:
        """Write down the schedules as this code has them."""
        now = self._now(connection)
        for name, schedule in SCHEDULED.items():
            values = {"name": name, "schedule": schedule, "next_due": next_due(schedule, now)}
            connection.execute(sql.SYNC_SCHEDULE, values)

    def tick(self, connection: Connection, queue: Queue) -> None:
        """Make the runs that are due, and see to it that every run that is due has its job in RQ."""
        now = self._now(connection)
        for name, schedule, due in connection.execute(sql.READ_SCHEDULES, {"names": list(SCHEDULED)}).fetchall():
            if due <= now or due > next_due(schedule, now):
                self._decide(connection, name, schedule)
        self._after_step("runs made")
        for name, run_id in connection.execute(sql.FREE_LAPSED).fetchall():
            _log.warning("the owner of a run sends no heartbeats, the run is due again", run=name, number=run_id)
        see_to_runs(connection, self._settings, queue, self._after_step)

    def _decide(self, connection: Connection, name: str, schedule: str) -> None:
        """Make the run that is due, if it is, and set the next due time."""
        with connection.transaction():
            row = connection.execute(sql.LOCK_SCHEDULE, {"name": name}).fetchone()
            if row is None:
                return
            due, now = row[0], self._now(connection)
            if due <= now:
                if connection.execute(sql.FIND_UNFINISHED, {"name": name}).fetchone():
                    # One at a time: what is missed meanwhile is caught up on by one run, after this one.
                    return
                connection.execute(sql.MAKE_RUN, {"name": name, "due_at": due})
            # A clock that was ahead has left a due time far away: the one of now counts, and if it was had before,
            # it makes no run.
            connection.execute(sql.SET_NEXT_DUE, {"name": name, "next_due": next_due(schedule, now)})
            self._after_step("run made")

    def _now(self, connection: Connection) -> datetime:
        (now,) = connection.execute(self._read_clock).fetchone() or (None,)
        if not isinstance(now, datetime):
            raise TypeError(f"the clock is no time: {now!r}")
        return now.astimezone(UTC)


def see_to_runs(
    connection: Connection, settings: Settings, queue: Queue, after_step: StepListener = _no_listener
) -> None:
    """Make the jobs in RQ that runs which are due do not have."""
    with connection.transaction():
        unseen = connection.execute(sql.LOCK_UNSEEN, {"seconds": SEEN_SECONDS, "limit": MAX_RUNS}).fetchall()
        for run_id, name, due_at, enqueues in unseen:
            made = _see_to(settings, queue, run_id, name, due_at, enqueues)
            after_step("job made")
            connection.execute(sql.NOTE_SEEN, {"run_id": run_id, "enqueues": made})


def _see_to(settings: Settings, queue: Queue, run_id: int, name: str, due_at: datetime, enqueues: int) -> int:
    """Make a job for the run unless one stands, and return the number of the job that it has then."""
    job = _job(queue, job_id(settings, name, run_id, enqueues))
    if job is not None and job.get_status(refresh=False) in _STANDING:
        return enqueues
    number = enqueues if job is None else enqueues + 1
    queue.enqueue(
        PERFORM_RUN,
        run_id,
        job_id=job_id(settings, name, run_id, number),
        job_timeout=KINDS[name].timeout_seconds if name in KINDS else None,
        result_ttl=RESULT_SECONDS,
        failure_ttl=FAILURE_SECONDS,
        retry=put_back_if_abandoned(),
        description=f"{name}, due {due_at.astimezone(UTC):%F %T} UTC",
    )
    return number


def _job(queue: Queue, identifier: str) -> Job | None:
    return queue.fetch_job(identifier)
