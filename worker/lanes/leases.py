"""The lease keeper: which worker owns which partitions, so that each lane has one consumer at a time.

Where it lives. `leases` has a row for each partition: `worker_id`, null where nobody owns it, and `epoch`, which grows
with every change of owner. `workers` has a row for each process: until when it counts as alive (`expires_at`), how long
its lease is, and whether it is stuck. Times are Postgres's, never this machine's; how long another worker has been
silent is what this one has waited itself (`silent_workers`).

The states of a lane, as this process sees it:

* nobody's: free to be taken, up to the fair share, which is partitions / living workers, rounded up;
* another's that lives: left alone. Who has more than its share gives the surplus back by itself;
* another's that is silent or stuck: its sessions are ended, which frees what they have locked, and then its lanes are
  taken in one step. A heartbeat that comes meanwhile either prevents that or waits for it (`LOCK_SILENT_WORKERS`);
* kept from this one: it is of an older release than the ledger takes (`schemas/releases.py`), and gets none. Others
  do not count it among those who share;
* mine: in `Ownership` with its epoch. Readers read it, and every batch locks the row and compares the epoch;
* mine, being given up: out of `Ownership` first, so that nothing more is read; then what was read is waited for, at
  most until the next heartbeat is due; then the row is released. What is not finished by then cannot commit.

How long a heartbeat is trusted. A heartbeat is due five times a lease. Silent is whom this process has watched without
a new one: for 0.4 of its lease if its time is over by Postgres's clock, and for its lease and a little more if that
clock says that it lives. Only time in which this process itself looked counts: who stood still, or could not reach
Postgres, begins to watch anew. So neither a clock that jumps nor a pause of everybody makes lanes change hands.

Why nothing is applied twice, even if that judgement is wrong. Owning is permission to read. Every transaction of a
batch locks the rows of its lanes `for share` and compares the epochs, and whoever takes a lane updates that row: the
earlier owner commits before, or finds another epoch and drops the lane. In Redis, the fence keeps it from deleting
(`fences`). A process that was paused past its lease can therefore do nothing but notice.

When something fails:

* Postgres is away: no heartbeat; tried again after a growing pause, at most until the next one would be due. Lanes are
  kept: their batches fail as well, and who takes them over compares epochs.
* Postgres is silent: every statement ends after 0.3 leases (at least a second), so that a dead connection does not
  cost the lease.
* A row is locked by a batch: unlocked rows first, then the others for half a second, then again after 0.1 s.
* A stage of this process does not get on for a lease (`progress`): all lanes are given back at once, and
  `workers.stuck` makes the others not count it. If the stage holds the rows locked, its session is ended. Once it
  gets on, the worker takes part again.
* The process is asked to stop: everything is given back. It is killed: the lanes are taken over within its lease and
  two seconds.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from threading import Event
from typing import Any

import psycopg
import structlog

from ...lanes.backoff import LONGEST_PAUSE_SECONDS, Backoff
from ...lanes.postgres.errors import error_text
from ...schemas.releases import RELEASE
from ...schemas.worker_metrics import StageTrouble
from ..connections import connect_postgres, session_name
from ..metrics import Metrics
from ..progress import Progress
from ..store import sql
from .ownership import Ownership
from .silent_workers import Sign, Watch

#: How often a lease is renewed while it lasts.
RENEWALS_PER_LEASE = 5
#: How often the keeper asks whether the stages of its own process get on, in seconds.
POLL_SECONDS = 0.1
#: How long it waits before it tries again to take or give back lanes that were locked, in seconds.
RETRY_SECONDS = 0.1
#: How long it waits for a lock, in seconds. Whoever holds one for longer is asked again.
LOCK_SECONDS = 0.5
#: How long Postgres may take to answer it: in leases, and at least in seconds.
ANSWER_LEASES = 0.3
MIN_ANSWER_SECONDS = 1.0

_log = structlog.get_logger(__name__)


def _unseen() -> None:
    """Where nobody looks at this process alone."""


class LeaseKeeper:
    """Keeps one worker's leases, in a thread of its own with a connection of its own."""

    def __init__(
        self,
        database_url: str,
        worker_id: str,
        ownership: Ownership,
        metrics: Metrics,
        progress: Progress,
        stopping: Event,
        *,
        lease_seconds: float,
        beat: Callable[[], None] = _unseen,
    ) -> None:
        """Prepare to keep leases; `beat` is called in every round, whether or not Postgres could be reached."""
        self._database_url = database_url
        self._worker_id = worker_id
        self._ownership = ownership
        self._metrics = metrics
        self._progress = progress
        self._stopping = stopping
        self._lease_seconds = lease_seconds
        self._renewal_seconds = lease_seconds / RENEWALS_PER_LEASE
        # A connection that leads nowhere must not cost the lease.
        self._answer_seconds = max(MIN_ANSWER_SECONDS, ANSWER_LEASES * lease_seconds)
        self._watch = Watch(lease_seconds)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._was_stuck = False
        self._logged_standing: set[int] = set()
        self._beat = beat

    def run(self) -> None:
        """Keep the leases until the worker is stopping."""
        backoff = Backoff(self._stopping, longest_seconds=min(LONGEST_PAUSE_SECONDS, self._renewal_seconds))
        while not self._stopping.is_set():
            self._beat()
            try:
                pause = self._tick()
            except psycopg.Error as error:
                _log.warning(
                    "leases cannot be renewed, trying again", error=error_text(error), failures=backoff.failures
                )
                self._disconnect()
                # Whoever could not be seen for a while is not silent for that.
                self._watch.forget()
                backoff.pause()
                continue
            if backoff.failures:
                _log.info("leases are renewed again", failures=backoff.failures)
                backoff.reset()
            self._wait(pause)

    def leave(self) -> None:
        """Give everything back, so that others need not wait for the leases to run out."""
        self._ownership.replace({})
        try:
            try:
                self._leave()
            except psycopg.OperationalError:
                # Its connection may have been silent for long; another one need not be.
                self._disconnect()
                self._leave()
        except psycopg.Error as error:
            _log.warning("leases could not be given back; they run out by themselves", error=error_text(error))
        self._disconnect()

    def _leave(self) -> None:
        _, _, held = self._read_shares()
        if not self._release(held):
            self._end_sessions([self._worker_id])
            self._release(held)
        self._connected().execute(sql.FORGET_WORKERS, {"worker_id": self._worker_id})

    def _wait(self, seconds: float) -> None:
        """Wait until it is time for the next heartbeat, or until a stage begins or ceases to be stuck."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stopping.wait(min(left, POLL_SECONDS)):
            if bool(self._progress.stuck(self._lease_seconds)) != self._was_stuck:
                return

    def _tick(self) -> float:
        """Send a heartbeat and own what is due. Returns how long to wait until the next time, in seconds."""
        stuck = self._progress.stuck(self._lease_seconds)
        self._log_stages(stuck)
        self._send_heartbeat(is_stuck=bool(stuck))
        partitions, nobodys, held = self._read_shares()
        self._watch.observe(map(Sign._make, self._connected().execute(sql.READ_OTHERS, {"worker_id": self._worker_id})))
        if stuck:
            return self._step_back(held)
        alive = self._watch.alive() + 1
        fair_share = math.ceil(partitions / alive)
        done = True
        if len(held) > fair_share:
            held, done = self._give_up(held, len(held) - fair_share)
        elif len(held) < fair_share:
            taken, done = self._take(fair_share - len(held), nobodys)
            held |= taken
        gained, lost = self._ownership.replace(held)
        if gained or lost:
            self._metrics.note_lanes(len(gained), len(lost))
            _log.info("partitions changed", owned=len(held), gained=sorted(gained), lost=sorted(lost), workers=alive)
        pause = min(self._renewal_seconds, self._watch.next_silence_seconds() + POLL_SECONDS / 2)
        return pause if done else RETRY_SECONDS

    def _log_stages(self, stuck: Mapping[str, StageTrouble]) -> None:
        """Log what has begun or ceased to stand still since the last time."""
        if stuck and not self._was_stuck:
            for stage, trouble in stuck.items():
                _log.warning(
                    "a stage does not get on, giving all partitions back",
                    stage=stage,
                    cause=trouble.cause,
                    seconds=round(trouble.seconds, 1),
                    failures=trouble.failures,
                )
        elif self._was_stuck and not stuck:
            _log.info("all stages get on again")
        self._was_stuck = bool(stuck)
        standing = self._ownership.standing(2 * self._lease_seconds)
        if standing.keys() - self._logged_standing:
            seconds = round(max(standing.values()), 1)
            _log.warning("nothing of these partitions gets done", partitions=sorted(standing), seconds=seconds)
        self._logged_standing = set(standing)

    def _send_heartbeat(self, *, is_stuck: bool) -> None:
        numbers = self._metrics.encoded(
            troubles=self._progress.troubles(self._lease_seconds / 2),
            standing_lanes=self._ownership.standing(self._lease_seconds),
        )
        self._connected().execute(
            sql.HEARTBEAT,
            {
                "worker_id": self._worker_id,
                "host": socket.gethostname(),
                "process_id": os.getpid(),
                "lease_seconds": self._lease_seconds,
                "numbers": numbers,
                "stuck": is_stuck,
                "release": RELEASE,
            },
        )

    def _read_shares(self) -> tuple[int, int, dict[int, int]]:
        """Return how many partitions there are and how many are nobody's, and the epochs of those that are mine."""
        record = self._connected().execute(sql.READ_SHARES, {"worker_id": self._worker_id}).fetchone()
        partitions, nobodys, held = record or (0, 0, [])
        return partitions, nobodys, dict(held)

    def _step_back(self, held: dict[int, int]) -> float:
        """Give everything back at once, since a stage does not get on. Others need not wait for it."""
        _, lost = self._ownership.replace({})
        self._metrics.note_lanes(0, len(lost))
        # What it waits for may be locked by one without heartbeats, and there may be nobody else to see to that.
        self._end_silent(self._watch.to_replace())
        if self._release(held):
            return self._renewal_seconds
        # The stage that is stuck holds the leases of its batch: its session is alive as far as Postgres knows.
        self._end_sessions([self._worker_id])
        return RETRY_SECONDS

    def _take(self, wanted: int, nobodys: int) -> tuple[dict[int, int], bool]:
        """Take up to so many partitions that are free. Returns them, and whether that is all there is to take."""
        silent = self._watch.to_replace()
        if not silent and not nobodys:
            return {}, True
        self._end_silent(silent)
        taken: dict[int, int] = {}
        # In transactions of their own: one that holds some of them and waits for others would be in the way of batches.
        try:
            for statement in (sql.TAKE_UNLOCKED_LEASES, sql.TAKE_LEASES):
                if len(taken) < wanted:
                    taken |= self._take_by(statement, wanted - len(taken), silent)
        except psycopg.errors.LockNotAvailable:
            return taken, False
        return taken, True

    def _take_by(self, statement: str, wanted: int, silent: Iterable[Sign]) -> dict[int, int]:
        seen = {sign.worker_id: sign.expires_at_us for sign in silent}
        unknown = [worker_id for worker_id, sign in seen.items() if sign is None]
        connection = self._connected()
        with connection.transaction():
            self._bound_locks(connection)
            locked = connection.execute(
                sql.LOCK_SILENT_WORKERS, {"workers": list(seen), "signs": list(seen.values())}
            ).fetchall()
            values = {
                "worker_id": self._worker_id,
                "wanted": wanted,
                "silent": [*unknown, *(worker_id for (worker_id,) in locked)],
            }
            return dict(connection.execute(statement, values).fetchall())

    def _give_up(self, held: dict[int, int], surplus: int) -> tuple[dict[int, int], bool]:
        """Release the highest partitions, once what was read of them is done with. Returns the rest, and if it was."""
        kept = dict(sorted(held.items())[: len(held) - surplus])
        released = held.keys() - kept.keys()
        _, lost = self._ownership.replace(kept)
        self._metrics.note_lanes(0, len(lost))
        if lost:
            _log.info("giving up partitions", owned=len(kept), lost=sorted(released))
        # Not finishing in time is no danger: the new epoch keeps what is under way from being committed.
        self._ownership.wait_until_finished(released, self._renewal_seconds)
        return kept, self._release(released)

    def _release(self, partitions: Iterable[int]) -> bool:
        """Give back those that no batch has locked at once, then the others. False if some of them stayed locked."""
        wanted = set(partitions)
        try:
            left = wanted - self._release_by(sql.RELEASE_UNLOCKED_LEASES, wanted)
            self._release_by(sql.RELEASE_LEASES, left)
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def _release_by(self, statement: str, partitions: AbstractSet[int]) -> set[int]:
        if not partitions:
            return set()
        connection = self._connected()
        with connection.transaction():
            self._bound_locks(connection)
            values = {"worker_id": self._worker_id, "partitions": list(partitions)}
            return {partition for (partition,) in connection.execute(statement, values)}

    def _end_silent(self, silent: Iterable[Sign]) -> None:
        names = [sign.worker_id for sign in silent]
        if names:
            _log.warning("ending the sessions of workers that send no heartbeats or do not get on", workers=names)
            self._end_sessions(names)

    def _end_sessions(self, worker_ids: Iterable[str]) -> None:
        names = [session_name(worker_id) for worker_id in worker_ids]
        self._connected().execute(sql.END_SESSIONS, {"names": names})

    def _bound_locks(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        values = {
            "lock_ms": str(int(1_000 * min(LOCK_SECONDS, self._renewal_seconds))),
            "idle_ms": str(int(1_000 * self._answer_seconds)),
        }
        connection.execute(sql.BOUND_LOCKS, values)

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = connect_postgres(
                self._database_url, autocommit=True, silence_seconds=self._answer_seconds
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
