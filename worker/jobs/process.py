"""One RQ process: a worker on one queue, and beside it the threads that put jobs onto the queues.

It comes back by itself when Redis or Postgres is away, whichever of the two and for however long.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

import psycopg
import redis
import structlog

from ...lanes.backoff import Backoff
from ...lanes.logs import configure_logs
from ...lanes.postgres.errors import error_text
from ...lanes.postgres.start_check import check_ledger
from ...lanes.rq_queues import DELIVERIES, QueueName
from ...schemas.networks import network_rules
from ...schemas.settings import Settings
from ...schemas.webhook_secrets import secret_keys
from ..connections import connect_redis
from ..lanes.redis_check import check_redis
from .database import connect
from .import_path import limit_import_path
from .queues import count_refusal, open_queue
from .rq_worker import JobsWorker, adopt_rq_logs
from .scheduler import Scheduler
from .waker import Waker

#: How long a thread may take to end, in seconds.
STOP_TIMEOUT_SECONDS = 10.0
#: An RQ worker that lasted so long makes the next pause the shortest again, in seconds.
HEALTHY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class JobsProcess:
    """One RQ process. `run` returns when it was asked to stop and the job under way is done."""

    def __init__(self, settings: Settings, queue: QueueName) -> None:
        settings.require_database_url()
        if queue == DELIVERIES:
            network_rules(settings)
            secret_keys(settings)
        self._settings = settings
        self._redis_url = settings.require_redis_url()
        self._queue = queue
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        #: What others call this process: RQ's name of it, and the owner of the runs that it does.
        self.name: str = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"

    def stop(self) -> None:
        """Finish the job under way and let `run` return."""
        self._stopping.set()

    def run(self) -> None:
        """Do jobs until asked to stop.

        Raises:
            ConfigurationError: the database is not migrated, was initialised with other partitions, or does not let
                this role do what the jobs need; or Redis cannot have the queues.
            BaseException: whatever ended one of the threads.
        """
        if not self._wait_for_ledger():
            return
        parts = self._parts()
        threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True) for name, work in parts.items()
        ]
        _log.info("jobs process started", process=self.name, queue=self._queue)
        for thread in threads:
            thread.start()
        self._guard(self._work)
        self.stop()
        for thread in threads:
            thread.join(STOP_TIMEOUT_SECONDS)
        if self._failure is not None:
            raise self._failure
        _log.info("jobs process stopped", process=self.name)

    def _parts(self) -> dict[str, Callable[[], None]]:
        """Return what the threads do, by their names."""
        parts = {"scheduler": Scheduler(self._settings, self._stopping).run}
        if self._queue == DELIVERIES:
            parts["waker"] = Waker(self._settings, self._stopping).run
        return parts

    def _work(self) -> None:
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                with connect_redis(self._redis_url) as connection:
                    self._work_as_long_as_redis_is_there(connection)
            except redis.RedisError as error:
                # Away, or there and refusing: to be written to, as a replica or without memory.
                _log.warning("Redis is away, trying again", error=str(error), failures=backoff.failures)
            if time.monotonic() - started >= HEALTHY_SECONDS:
                backoff.reset()
            self._catch_signals()
            if not self._stopping.is_set():
                backoff.pause()

    def _work_as_long_as_redis_is_there(self, connection: redis.Redis) -> None:
        worker = JobsWorker(
            open_queue(self._settings, self._queue, connection),
            self.name,
            self._stopping,
            on_refusal=partial(count_refusal, self._settings, self._queue, connection),
        )
        if connection.exists(worker.key):
            # Redis went away in the middle of something, and did not learn that this worker ended.
            worker.register_death()  # type: ignore[no-untyped-call]  # RQ has no type for it
        worker.work(logging_level=None)

    def _catch_signals(self) -> None:
        """Be stopped by a signal between two RQ workers, too; `JobsWorker` catches them while it works."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self.stop()

        if not self._stopping.is_set():
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do a thread's work; what it does not handle ends the whole process."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised again by run()
            # Stop first: whatever happens to the log, a process without this part must not pass for one that works.
            self._failure = self._failure or error
            self.stop()
            with suppress(Exception):
                _log.exception("jobs process fails", part=threading.current_thread().name)

    def _wait_for_ledger(self) -> bool:
        """Wait for Postgres and check what is fixed there. False if asked to stop."""
        self._catch_signals()
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            try:
                with connect(self._settings) as connection:
                    check_ledger(connection, self._settings.partitions, "jobs")
                with connect_redis(self._redis_url) as client, suppress(redis.RedisError):
                    # One that is away is waited for afterwards.
                    check_redis(client)
            except psycopg.Error as error:
                _log.warning("cannot start yet, trying again", error=error_text(error), failures=backoff.failures)
                backoff.pause()
            else:
                return True
        return False


def run_jobs_process(settings: Settings, queue: QueueName) -> None:
    """Run one RQ process on this queue until SIGTERM or SIGINT; the job under way is finished first.

    Raises:
        ConfigurationError: it cannot start as it is set up.
    """
    limit_import_path()
    configure_logs(settings.log_format)
    adopt_rq_logs()
    JobsProcess(settings, queue).run()
