"""RQ's worker, made to stay: it works in its own process, sends heartbeats during a job, and stops between two."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import redis
import structlog
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from ...lanes.backoff import Backoff
from ...lanes.postgres.errors import without_rows
from ..webhooks.shutdown import stop_soon
from .checked_jobs import CheckedJob, CheckedQueue, is_somebody_elses

#: How long a process without heartbeats counts as alive, and its job as started, in seconds.
LIFE_SECONDS = 90
#: How often it sends a heartbeat during a job, in seconds.
BEAT_SECONDS = 15.0
#: How long one wait for a job takes, in seconds: so long does an idle process take to stop.
WAIT_SECONDS = 1
#: How often it searches for jobs whose process died, in seconds.
MAINTENANCE_SECONDS = 60

_log = structlog.get_logger(__name__)


def _nothing() -> None:
    """Outside of a jobs process nobody counts."""


class JobsWorker(SimpleWorker):
    """Works on one queue until asked to stop; the job under way is finished first.

    RQ's own SimpleWorker sends no heartbeat during a job, so it claims in advance to live for as long as a job may
    take, and a signal may cut it short just after it took a job off the queue.
    """

    def __init__(
        self, queue: Queue, name: str, stopping: threading.Event, *, on_refusal: Callable[[], None] = _nothing
    ) -> None:
        super().__init__(
            [queue],
            name=name,
            job_class=CheckedJob,
            queue_class=CheckedQueue,
            connection=queue.connection,
            serializer=JSONSerializer,
            worker_ttl=LIFE_SECONDS - 60,
            maintenance_interval=MAINTENANCE_SECONDS,
            log_job_description=False,
        )
        self._stopping = stopping
        self._on_refusal = on_refusal

    @property
    def _stop_requested(self) -> bool:
        """Whether to stop, whoever in the process said so; RQ asks this while it is suspended, too."""
        return self._stopping.is_set()

    @_stop_requested.setter
    def _stop_requested(self, _value: bool) -> None:
        """RQ sets it at first."""

    @property
    def dequeue_timeout(self) -> int:
        """How long one wait for a job takes, in seconds."""
        return WAIT_SECONDS

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002  # RQ's signature
        """Return how long the job counts as started without another heartbeat, in seconds."""
        return LIFE_SECONDS

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a signal handler
        """Stop after the job under way; a second signal ends the process at once."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._stopping.set()
        stop_soon()

    def dequeue_job_and_maintain_ttl(
        self,
        timeout: int | None,  # noqa: ARG002  # RQ's signature
        max_idle_time: int | None = None,  # noqa: ARG002  # the same
    ) -> tuple[Job, Queue] | None:
        """Return the next job, or None when asked to stop. Waits for a Redis that is away."""
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            try:
                self.check_for_suspension(burst=False)
                found = self._wait_for_job()
            except DequeueTimeout:
                backoff.reset()
            except redis.RedisError as error:
                _log.warning("Redis is away, trying again", error=str(error), failures=backoff.failures)
                self._drop_connections()
                backoff.pause()
            else:
                return found
        return None

    def _wait_for_job(self) -> tuple[Job, Queue] | None:
        if not self.connection.hexists(self.key, "birth"):
            # Redis was emptied, or took this process for dead while it was away.
            self.connection.delete(self.key)
            self.register_birth()  # type: ignore[no-untyped-call]  # RQ has no type for it
        if self.get_state() != WorkerStatus.IDLE:
            self.set_state(WorkerStatus.IDLE)
        self.heartbeat()
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()
        found = self.queue_class.dequeue_any(
            self._ordered_queues,
            WAIT_SECONDS,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )
        if found is not None:
            job, queue = found
            # What it says of itself decides neither whose registries it gets into nor whether it is taken off here.
            job.origin = queue.name
        return found

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Do the job in this process, with heartbeats meanwhile.

        Raises:
            StopRequested: Redis does not know how it went; RQ puts back the job, which has no heartbeats.
        """
        try:
            execution = self.prepare_execution(job)
            with self._sending_heartbeats(job, execution):
                self.perform_job(job, queue, execution)
            self.set_state(WorkerStatus.IDLE)
        except redis.RedisError as error:
            # RQ would call it unhandled; the process begins with a new worker.
            _log.warning("Redis was not updated with how a job went", job=job.id, error=str(error))
            raise StopRequested from error

    def subscribe(self) -> None:
        """Listen to none of RQ's commands: they come from whoever can write to Redis, and a signal does all we need."""

    def run_maintenance_tasks(self) -> None:
        """Clean RQ's registries; what somebody else has put there ends no process.

        Raises:
            redis.RedisError: Redis is away, or refuses.
        """
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]  # RQ has no type for it
        except Exception as error:
            if isinstance(error, redis.RedisError) and not is_somebody_elses(error):
                raise
            # Where in RQ it failed helps nobody.
            _log.error("RQ's registries hold what RQ cannot read", error=f"{type(error).__name__}: {error}")
            self.last_cleaned_at = datetime.now(UTC)  # type: ignore[assignment]  # RQ says that it is always None

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Do the job, or put it into the failed registry; one that is not ours always."""
        succeeded = super().perform_job(job, queue, execution)
        if isinstance(job, CheckedJob) and job.refusal is not None:
            _log.error("a job that is not ours was refused", job=job.id, function=job.func_name, reason=job.refusal)
            self._on_refusal()
        return succeeded

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        """Note that the job is done, which a Redis that takes no note of it now makes no failure."""
        backoff, until = Backoff(self._stopping), time.monotonic() + LIFE_SECONDS
        while True:
            try:
                return super()._finalize_success(job, queue, execution, return_value)
            except redis.RedisError as error:
                _log.warning("Redis is away, trying again", job=job.id, error=str(error), failures=backoff.failures)
                self._drop_connections()
                # After that RQ takes the job for one whose process died, and it is done again.
                if time.monotonic() >= until or not backoff.pause():
                    raise

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Put a job that raised into the failed registry. Only one whose process died is put back on the queue."""
        if execution is not None:
            job.retries_left = None
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

    @contextmanager
    def _sending_heartbeats(self, job: Job, execution: Execution) -> Iterator[None]:
        done = threading.Event()
        beats = threading.Thread(
            target=self._send_heartbeats, args=(job, execution, done), name="heartbeat", daemon=True
        )
        beats.start()
        try:
            yield
        finally:
            done.set()
            beats.join()

    def _send_heartbeats(self, job: Job, execution: Execution, done: threading.Event) -> None:
        while not done.wait(BEAT_SECONDS):
            try:
                self.maintain_heartbeats(job, execution)
            except redis.RedisError as error:
                _log.warning("Redis is away during a job", job=job.id, error=str(error))
                self._drop_connections()

    def _drop_connections(self) -> None:
        """Close what nobody uses: an error that is an answer may be that of a server which has become a replica."""
        self.connection.connection_pool.disconnect(inuse_connections=False)


class RqLogs(logging.Handler):
    """Passes RQ's own log lines on to ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as one line."""
        try:
            error = {"exception": self._traceback(record.exc_info)} if record.exc_info else {}
            _log.log(record.levelno, record.getMessage(), **error)
        except Exception:  # noqa: BLE001  # as every handler: a line that cannot be made is no reason to fail
            self.handleError(record)

    def _traceback(self, exc_info: Any) -> str:
        without_rows(exc_info[1])
        return logging.Formatter().formatException(exc_info)


def adopt_rq_logs() -> None:
    """Let RQ log through ours, warnings and errors only: a line for every job would be its longest output."""
    for name in ("rq.worker", "rq.job", "rq.queue"):
        logger = logging.getLogger(name)
        logger.handlers = [RqLogs()]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
