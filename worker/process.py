"""One worker process: four threads around the two pipes of the lane.

    lane reader --batches--> applier (main thread) --decided--> announcer          lease keeper beside them

While one batch is with Postgres, the next is being read and decoded, and the one before announced and deleted. A thread
that meets a fault of the environment tries again after a growing pause; one that meets anything else ends the process,
and what it had not finished is delivered again to whoever takes its leases.
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

import psycopg
import structlog

from ..lanes.backoff import Backoff
from ..lanes.heartbeats import Heartbeat, heartbeat_directory
from ..lanes.keys import Keys
from ..lanes.logs import configure_logs
from ..lanes.postgres.errors import error_text
from ..lanes.postgres.start_check import check_ledger
from ..schemas.installation import Installation
from ..schemas.settings import Settings
from .connections import connect_postgres, connect_redis
from .lanes.installation_mirror import Mirror
from .lanes.leases import LeaseKeeper
from .lanes.ownership import Ownership
from .lanes.redis_check import check_redis
from .lanes.redis_session import RedisFault, RedisFaults, answer_seconds_within
from .metrics import Metrics
from .pipeline import AnnouncingStage, ApplyingStage, Pipes, ReadingStage, StepListener
from .progress import Progress

#: How long Postgres may take to answer while the worker starts, in seconds.
START_ANSWER_SECONDS = 5.0
#: How long a thread may take to finish its work at a stop, in seconds.
STOP_TIMEOUT_SECONDS = 30.0

_log = structlog.get_logger(__name__)


def _no_listener(_step: str) -> None:
    """Outside of tests nobody listens."""


class Worker:
    """One worker process. `run` returns when it was asked to stop and everything is given back."""

    def __init__(self, settings: Settings, *, after_step: StepListener = _no_listener) -> None:
        self._settings = settings
        self._database_url = settings.require_database_url()
        self._redis_url = settings.require_redis_url()
        self.worker_id: str = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        #: The worker has left the lanes: the lease keeper may end.
        self._drained = threading.Event()
        self._failure: BaseException | None = None
        self._pipes = pipes = Pipes()
        ownership, metrics, faults = Ownership(), Metrics(), RedisFaults()
        self._progress = progress = Progress(self._stopping)
        self._keeper = LeaseKeeper(
            self._database_url,
            self.worker_id,
            ownership,
            metrics,
            progress,
            self._drained,
            lease_seconds=settings.lease_seconds,
            beat=self._beat,
        )
        self._heartbeat = Heartbeat(
            heartbeat_directory(settings.runtime_dir), settings.redis_prefix, settings.lease_seconds
        )
        self._is_heartbeat_lost = False
        self._reading = ReadingStage(
            settings,
            self.worker_id,
            ownership,
            pipes,
            metrics,
            progress,
            faults,
            stopping=self._stopping,
            after_step=after_step,
        )
        self._applying = ApplyingStage(
            settings,
            self.worker_id,
            ownership,
            pipes,
            metrics,
            progress,
            stopping=self._stopping,
            after_step=after_step,
        )
        self._announcing = AnnouncingStage(
            settings, ownership, pipes, metrics, progress, faults, stopping=self._stopping, after_step=after_step
        )

    def stop(self) -> None:
        """Finish the batch under way, give the leases back, and let `run` return."""
        self._stopping.set()

    def run(self) -> None:
        """Apply commands until asked to stop.

        Raises:
            ConfigurationError: the database is not migrated, was initialised with other partitions, or does not let
                this role do what a worker needs; or Redis cannot have the lanes.
            BaseException: whatever ended one of the threads.
        """
        try:
            installation = self._check_installation()
            if installation is not None:
                self._work(installation)
        finally:
            self._heartbeat.end()
        if self._failure is not None:
            raise self._failure

    def _work(self, installation: Installation) -> None:
        stages: dict[str, Callable[[], None]] = {
            "reader": partial(self._reading.run, installation),
            "announcer": self._announcing.run,
            "leases": self._keeper.run,
        }
        threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True) for name, work in stages.items()
        ]
        _log.info("worker started", worker=self.worker_id)
        # The keeper, which looks whether the others live, comes last.
        self._progress.threads = {thread.name: thread for thread in threads[:-1]}
        for thread in threads:
            thread.start()
        self._guard(partial(self._applying.run, installation.partitions))
        self._leave(*threads)
        if self._failure is None:
            _log.info("worker stopped", worker=self.worker_id)

    def _leave(self, reader: threading.Thread, announcer: threading.Thread, leases: threading.Thread) -> None:
        self.stop()
        reader.join(STOP_TIMEOUT_SECONDS)
        announcer.join(STOP_TIMEOUT_SECONDS)
        self._drained.set()
        leases.join(STOP_TIMEOUT_SECONDS)
        self._keeper.leave()

    def _beat(self) -> None:
        """Show this machine that the process lives; where that cannot be written, nothing else depends on it."""
        try:
            self._heartbeat.beat()
        except OSError as error:
            if not self._is_heartbeat_lost:
                _log.warning("`creditlane worker alive` will not see this worker", error=str(error))
            self._is_heartbeat_lost = True

    def _guard(self, work: Callable[[], None]) -> None:
        """Do a thread's work; what it does not handle ends the whole process."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised again by run()
            # Stop first: whatever happens to the log, the lanes must not be held by a process that is not at work.
            self._failure = self._failure or error
            self.stop()
            self._pipes.abort()
            with suppress(Exception):
                _log.exception("worker fails", part=threading.current_thread().name)

    def _check_installation(self) -> Installation | None:
        """Wait for Postgres, check what is fixed there, and mirror it for producers. None if asked to stop."""
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            self._beat()
            try:
                with connect_postgres(self._database_url, silence_seconds=START_ANSWER_SECONDS) as connection:
                    installation = check_ledger(connection, self._settings.partitions, "worker")
                self._mirror(installation)
            except (psycopg.OperationalError, *RedisFault) as error:
                _log.warning("cannot start yet, trying again", error=error_text(error), failures=backoff.failures)
                backoff.pause()
            else:
                return installation
        return None

    def _mirror(self, installation: Installation) -> None:
        answer_seconds = answer_seconds_within(self._settings.lease_seconds)
        with connect_redis(self._redis_url, answer_seconds=answer_seconds) as client:
            check_redis(client)
            Mirror(client, Keys(self._settings.redis_prefix), installation).put_right()


def run_worker(settings: Settings, *, after_step: StepListener = _no_listener) -> None:
    """Run one worker process until SIGTERM or SIGINT; a second signal ends it at once.

    Raises:
        ConfigurationError: it cannot start as it is set up.
    """
    configure_logs(settings.log_format)
    # Many small, short-lived objects and no cycles: by default the collector would look through them all the time.
    gc.set_threshold(100_000, 50, 50)
    # The thread that Postgres has just answered must not wait long for one that decodes.
    sys.setswitchinterval(0.001)
    worker = Worker(settings, after_step=after_step)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker.run()
