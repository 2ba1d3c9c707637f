"""Runs: one row a job and due time, done once, by whoever owns the row.

The owner holds a lease and sends heartbeats; when it dies, another process takes the run and goes on where it was. What
a run brings about is committed together with the mark that it is done, by the owner alone, so a process that was taken
for dead brings about nothing.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg.types.json import Jsonb
from rq import get_current_job

from ...lanes.postgres.errors import error_text
from ...lanes.postgres.sessions import PostgresSession
from ...schemas.errors import CreditlaneError
from ...schemas.settings import Settings, load_settings
from ...schemas.statuses import StoredRunStatus
from . import sql
from .database import AWAY, Connection, connect
from .registry import KINDS, SCHEDULED

#: How long a process without heartbeats owns a run, in seconds.
LEASE_SECONDS = 30.0
#: How often it sends a heartbeat, in seconds, and how long Postgres may take to take note.
BEAT_SECONDS = 5.0
BEAT_SILENCE_SECONDS = 10.0
#: How many processes may die under a run, or lose Postgres, before it counts as failed.
MAX_ATTEMPTS = 5
#: How much of an error is kept, in characters.
MAX_ERROR_CHARACTERS = 2_000

_log = structlog.get_logger(__name__)


class RunLost(CreditlaneError):
    """Another process has taken the run: this one was taken for dead."""


class RunAbandoned(CreditlaneError):
    """The processes that did the run died one after the other. Mend the cause, then requeue the job."""


def _nothing(_connection: Connection) -> None:
    """The default effect."""


class Outcome(NamedTuple):
    """How a run ended well."""

    #: What `jobs list` shows.
    numbers: dict[str, Any]
    #: What it brings about in Postgres, in the transaction that marks it as done.
    effect: Callable[[Connection], None] = _nothing


class Run:
    """A run that this process owns."""

    def __init__(self, settings: Settings, connection: Connection, run_id: int, name: str, owner: str) -> None:
        self.settings = settings
        self.connection = connection
        self.run_id = run_id
        self.name = name
        self._owner = owner
        self._lost = threading.Event()
        #: When Postgres last took note that this process lives, by its own clock.
        self._kept_at = time.monotonic()
        self.due_at: datetime | None = None
        self.arguments: dict[str, Any] = {}
        #: What the owner before has saved; empty at the first.
        self.progress: dict[str, Any] = {}
        self.attempts: int = 0

    def claim(self) -> bool:
        """Become the owner, and return whether that succeeded."""
        with self.connection.transaction():
            self.connection.execute(sql.AWAIT_SCHEDULE, {"name": self.name})
            row = self.connection.execute(
                sql.CLAIM, {"run_id": self.run_id, "owner": self._owner, "lease_seconds": LEASE_SECONDS}
            ).fetchone()
        if row is None:
            return False
        self.due_at, self.arguments, progress, self.attempts = row
        self.progress = progress or {}
        return True

    @property
    def is_lost(self) -> bool:
        """Whether this process is the owner no longer, as far as it has heard: nothing is waited for then."""
        return self._lost.is_set()

    def save(self, progress: dict[str, Any]) -> None:
        """Note how far the run is: there whoever takes over goes on.

        Raises:
            RunLost: somebody has taken over.
        """
        self._own(sql.SAVE_PROGRESS, progress=Jsonb(progress))
        self.progress = progress

    def check(self) -> None:
        """Make sure that this process is still the owner, as far as it has heard.

        Raises:
            RunLost: it is not.
        """
        if self._lost.is_set():
            raise RunLost

    def finish(self, outcome: Outcome) -> None:
        """Bring about what the run is for, once, and mark it as done.

        Raises:
            RunLost: somebody has taken over; nothing was brought about.
        """
        with self.connection.transaction():
            outcome.effect(self.connection)
            self._own(sql.FINISH, status=int(StoredRunStatus.DONE), outcome=Jsonb(outcome.numbers), error=None)

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed, as long as this process owns it."""
        text = f"{type(error).__name__}: {error_text(error)}"[:MAX_ERROR_CHARACTERS].replace("\0", "")
        with connect(self.settings) as connection:
            values = {
                "run_id": self.run_id,
                "owner": self._owner,
                "status": int(StoredRunStatus.FAILED),
                "outcome": None,
                "error": text,
            }
            connection.execute(sql.FINISH, values)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Send heartbeats for as long as the context lasts."""
        done = threading.Event()
        if isinstance(self.connection, PostgresSession):
            # A statement may take as long as it wants, while it is this process's to wait for it.
            self.connection.is_overdue = lambda _silent_seconds: self.is_lost
        thread = threading.Thread(target=self._keep, args=(done,), name="run", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _keep(self, done: threading.Event) -> None:
        self._kept_at = time.monotonic()
        while not done.wait(BEAT_SECONDS) and not self._lost.is_set():
            try:
                with connect(self.settings, silence_seconds=BEAT_SILENCE_SECONDS) as connection:
                    self._beat(connection, done)
            except psycopg.Error as error:
                _log.warning("Postgres is away during a run", run=self.name, error=error_text(error))
            if time.monotonic() - self._kept_at > LEASE_SECONDS:
                # Whoever waits for Postgres in this run waits no longer: it is done by another, or later.
                self._lost.set()

    def _beat(self, connection: Connection, done: threading.Event) -> None:
        while True:
            values = {"run_id": self.run_id, "owner": self._owner, "lease_seconds": LEASE_SECONDS}
            if connection.execute(sql.KEEP, values).rowcount == 0:
                # Done in the meantime, or somebody else's; `finish` distinguishes the two.
                self._lost.set()
                return
            self._kept_at = time.monotonic()
            if done.wait(BEAT_SECONDS):
                return

    def _own(self, statement: str, **values: Any) -> None:
        if self.connection.execute(statement, {"run_id": self.run_id, "owner": self._owner, **values}).rowcount == 0:
            self._lost.set()
            raise RunLost


def request_run(connection: Connection, name: str, arguments: dict[str, Any] | None = None) -> int:
    """Make a run that is due now and return its id; of a scheduled job the one that is under way, if there is one."""
    with connection.transaction():
        if name in SCHEDULED:
            connection.execute(sql.AWAIT_SCHEDULE, {"name": name})
            unfinished = connection.execute(sql.FIND_UNFINISHED, {"name": name}).fetchone()
            if unfinished is not None:
                return int(unfinished[0])
        values = {"name": name, "arguments": Jsonb(arguments or {})}
        (run_id,) = connection.execute(sql.REQUEST_RUN, values).fetchone() or (0,)
        return int(run_id)


def perform_run(run_id: int) -> dict[str, Any]:
    """Do the run, unless it is done or somebody else does it. This is the function of the jobs in RQ.

    Raises:
        Exception: whatever the work raises; the run has failed then, and the job stands in RQ's failed registry.
    """
    settings = load_settings()
    try:
        with connect(settings) as connection:
            run = _claimed(settings, connection, run_id)
            return _perform(run) if run else _ended(run_id, "skipped", "it is done, or somebody else does it")
    except AWAY as error:
        # The lease lapses, and the scheduler puts the run on the queue again once Postgres is back.
        _log.warning("Postgres is away, the run is done later", run=run_id, error=error_text(error))
        return _ended(run_id, "postponed", "Postgres is away")


def _ended(run_id: int, status: str, reason: str) -> dict[str, Any]:
    """Return what RQ keeps as the result of a job that did not do its run."""
    return {"run": run_id, "status": status, "reason": reason}


def _claimed(settings: Settings, connection: Connection, run_id: int) -> Run | None:
    row = connection.execute(sql.FIND_NAME, {"run_id": run_id}).fetchone()
    if row is None:
        return None
    job = get_current_job()
    owner = f"{job.worker_name if job else 'nobody'}/{secrets.token_hex(4)}"
    run = Run(settings, connection, run_id, row[0], owner)
    return run if run.claim() else None


def _perform(run: Run) -> dict[str, Any]:
    log = _log.bind(run=run.name, due=f"{run.due_at:%FT%TZ}", attempt=run.attempts)
    try:
        with run.kept():
            outcome = _work(run)
            run.finish(outcome)
    except RunLost:
        log.warning("this run was taken over by another process")
        return _ended(run.run_id, "lost", "another process has taken it over")
    except AWAY:
        raise
    except BaseException as error:
        run.fail(error)
        raise
    log.info("run done", **outcome.numbers)
    return {"run": run.run_id, **outcome.numbers}


def _work(run: Run) -> Outcome:
    if run.attempts > MAX_ATTEMPTS:
        raise RunAbandoned
    return KINDS[run.name].load()(run)
