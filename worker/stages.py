"""The three stages that a batch passes through, each with its own connection and its own way of trying again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TypeVar

import msgspec
import psycopg
import redis
import structlog

from ..schemas.keys import Keys
from ..schemas.settings import Settings
from .announcer import Announcer
from .applier import Applier
from .backoff import LONGEST_PAUSE_SECONDS, Backoff
from .book import Verdict
from .connecting import REDIS_TIMEOUT_SECONDS, connect_postgres, connect_redis
from .counting import Counting
from .lane_reader import LaneReader
from .ownership import Ownership
from .pipe import Pipe
from .progress import Progress
from .requests import Batch
from .store import Connection, LedgerStore, PartitionsLost

#: How long the reader waits for the first lanes before it looks whether to stop, in seconds.
WAIT_FOR_LANES_SECONDS = 0.25

#: How long Redis may take to answer at the least, whatever the lease, in seconds.
MIN_ANSWER_SECONDS = 1.0

#: Called with the name of the step that was just done, "read", "commit", "announce" or "delete". For tests of faults.
StepListener = Callable[[str], None]

#: What says that Redis cannot be used now. A ResponseError is among them: LOADING, READONLY, a script that is gone.
RedisFault = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)

Done = TypeVar("Done")

_log = structlog.get_logger(__name__)


def _backoff_of(settings: Settings, stopping: Event) -> Backoff:
    """Return pauses of which the longest is over well before a lease, so that a stage is back in time."""
    return Backoff(stopping, longest_seconds=min(LONGEST_PAUSE_SECONDS, settings.lease_seconds / 4))


def _client_of(settings: Settings) -> redis.Redis:
    """Return a client that is back in time for the lease from a Redis that is silent."""
    seconds = max(MIN_ANSWER_SECONDS, min(REDIS_TIMEOUT_SECONDS, settings.lease_seconds))
    return connect_redis(settings.require_redis_url(), answer_seconds=seconds)


class GaveUp(Exception):
    """The worker is stopping and cannot finish its batch; the lanes still have it all."""


class Decided(msgspec.Struct, frozen=True):
    """A batch that is committed, with its verdicts."""

    batch: Batch
    verdicts: list[Verdict]
    #: The outbox has something new.
    has_news: bool


class Pipes:
    """What leads from stage to stage."""

    def __init__(self) -> None:
        # One batch waits while one is applied: more would only be older when its turn comes.
        self.batches: Pipe[Batch] = Pipe(capacity=1)
        self.decided: Pipe[Decided] = Pipe(capacity=2)

    def abort(self) -> None:
        """Drop everything, so that no stage waits for one that has failed. The lanes still have it all."""
        self.batches.abort()
        self.decided.abort()


class ReadingStage:
    """Reads the lanes that the process owns, until it is stopping."""

    def __init__(
        self,
        settings: Settings,
        ownership: Ownership,
        pipes: Pipes,
        progress: Progress,
        stopping: Event,
        after_step: StepListener,
    ) -> None:
        self._ownership = ownership
        self._work = progress.reader
        self._batches = pipes.batches
        self._stopping = stopping
        self._after_step = after_step
        self._backoff = _backoff_of(settings, stopping)
        self._client = _client_of(settings)
        self._reader = LaneReader(
            self._client, Keys(settings.redis_prefix), ownership, batch_limit=settings.batch_limit
        )

    def run(self) -> None:
        """Put one batch after the other into the pipe, then end it."""
        while not self._stopping.is_set():
            epochs = self._ownership.wait_for_some(WAIT_FOR_LANES_SECONDS)
            # Whoever lost the lanes because it could not read shows without them that it can again.
            batch = self._read(epochs) if epochs or self._work.is_failing else None
            if batch is not None and batch.requests:
                self._after_step("read")
                self._batches.put(batch)
        self._client.close()
        self._batches.end()

    def _read(self, epochs: dict[int, int]) -> Batch | None:
        self._work.begin()
        try:
            batch = self._attempt(epochs)
        except RedisFault as error:
            _log.warning("lanes cannot be read, trying again", error=str(error), failures=self._backoff.failures)
            self._work.fail(error)
            self._client.close()
            self._reader.reset()
            self._backoff.pause()
            return None
        if self._backoff.failures:
            _log.info("lanes are read again", failures=self._backoff.failures)
            self._backoff.reset()
        self._work.end()
        return batch

    def _attempt(self, epochs: dict[int, int]) -> Batch | None:
        if epochs:
            return self._reader.read(epochs)
        self._client.ping()
        return None


class ApplyingStage:
    """Applies batches to Postgres, each until it is committed or its lanes are lost."""

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        ownership: Ownership,
        pipes: Pipes,
        counting: Counting,
        progress: Progress,
        stopping: Event,
        after_step: StepListener,
    ) -> None:
        self._settings = settings
        self._counting = counting
        self._worker_id = worker_id
        self._partitions = 0
        self._ownership = ownership
        self._pipes = pipes
        self._after_step = after_step
        self._backoff = _backoff_of(settings, stopping)
        self._work = progress.applier
        self._connection: Connection | None = None
        self._applier: Applier | None = None
        self._gave_up = False

    def run(self, partitions: int) -> None:
        """Take batches from one pipe to the other, to the end."""
        self._partitions = partitions
        while (batch := self._pipes.batches.get()) is not None:
            # Nothing may overtake a batch that is left on its lanes: deleting a later one would delete it too.
            started = time.perf_counter()
            self._work.begin()
            decided = None if self._gave_up else self._apply(batch)
            self._work.end()
            if decided is not None:
                self._counting.note_batch(len(decided.verdicts), time.perf_counter() - started)
                self._after_step("commit")
                self._pipes.decided.put(decided)
        self._disconnect()
        self._pipes.decided.end()

    def _apply(self, batch: Batch) -> Decided | None:
        """Return what is left of the batch with its verdicts; None if nothing is, or if Postgres is away at a stop."""
        while batch.requests:
            try:
                applier = self._connected()
                verdicts = applier.apply(batch)
            except PartitionsLost as lost:
                batch = self._drop(batch, lost)
            except psycopg.Error as error:
                _log.warning(
                    "batch cannot be applied, trying again", error=str(error).strip(), failures=self._backoff.failures
                )
                self._work.fail(error)
                self._disconnect()
                if not self._backoff.pause():
                    # The lanes still have it all; the next owner applies it.
                    self._gave_up = True
                    return None
            else:
                if self._backoff.failures:
                    _log.info("batches are applied again", failures=self._backoff.failures)
                    self._backoff.reset()
                return Decided(batch, verdicts, applier.take_news())
        return None

    def _drop(self, batch: Batch, lost: PartitionsLost) -> Batch:
        """Return what is left of a batch without the lanes that are another worker's now."""
        _log.warning("leases lost, dropping what was read under them", partitions=sorted(lost.partitions))
        gone = {p: epoch for p, epoch in batch.epochs.items() if p in lost.partitions}
        self._ownership.lose(gone, batch.epochs)
        self._ownership.finish(gone)
        return Batch(
            [request for request in batch.requests if request.partition not in gone],
            {p: epoch for p, epoch in batch.epochs.items() if p not in gone},
        )

    def _connected(self) -> Applier:
        if self._applier is None:
            self._connection = connect_postgres(
                self._settings.require_database_url(),
                worker_id=self._worker_id,
                silence_seconds=self._settings.lease_seconds,
            )
            # A process that is stopped inside a transaction must not hold its leases for longer than they last.
            store = LedgerStore(
                self._connection,
                self._worker_id,
                partitions=self._partitions,
                timeout_seconds=self._settings.lease_seconds,
            )
            self._applier = Applier(store)
        return self._applier

    def _disconnect(self) -> None:
        # With the connection goes what the applier remembers: whether the last commit came through is not known.
        self._applier = None
        if self._connection is not None:
            self._connection.close()


class AnnouncingStage:
    """Announces what is committed, and deletes it from the lanes."""

    def __init__(
        self,
        settings: Settings,
        ownership: Ownership,
        pipes: Pipes,
        counting: Counting,
        progress: Progress,
        stopping: Event,
        after_step: StepListener,
    ) -> None:
        self._ownership = ownership
        self._counting = counting
        self._work = progress.announcer
        self._decided = pipes.decided
        self._after_step = after_step
        self._backoff = _backoff_of(settings, stopping)
        self._client = _client_of(settings)
        self._announcer = Announcer(
            self._client,
            Keys(settings.redis_prefix),
            result_ttl_seconds=settings.result_ttl_seconds,
            keep_all_results=settings.keep_all_results,
        )

    def run(self) -> None:
        """Announce one batch after the other, to the end."""
        gave_up = False
        while (decided := self._decided.get()) is not None:
            # Deleting a later batch would also delete the one whose results nobody was told.
            self._work.begin()
            gave_up = gave_up or not self._finish(decided)
            self._work.end()
        self._client.close()

    def _finish(self, decided: Decided) -> bool:
        """Announce a batch and delete it. False if it was given up, because the worker stops and Redis is away."""
        batch, verdicts = decided.batch, decided.verdicts
        try:
            self._until_done(partial(self._announcer.announce, batch, verdicts, has_news=decided.has_news))
            self._after_step("announce")
            lost = self._until_done(partial(self._announcer.delete, batch))
            self._after_step("delete")
        except GaveUp:
            # The next owner finds the results in Postgres and announces them.
            return False
        self._ownership.lose(lost, batch.epochs)
        self._ownership.finish({p: epoch for p, epoch in batch.epochs.items() if p in lost})
        self._ownership.finish({p: epoch for p, epoch in batch.epochs.items() if p not in lost}, deleted=True)
        self._counting.note_outcomes(verdicts)
        return True

    def _until_done(self, work: Callable[[], Done]) -> Done:
        """Return what the work returns, trying again while Redis is away; raise GaveUp if it is away at a stop."""
        while True:
            try:
                done = work()
            except RedisFault as error:
                _log.warning(
                    "results cannot be announced, trying again", error=str(error), failures=self._backoff.failures
                )
                self._work.fail(error)
                self._client.close()
                if not self._backoff.pause():
                    raise GaveUp from error
            else:
                if self._backoff.failures:
                    _log.info("results are announced again", failures=self._backoff.failures)
                    self._backoff.reset()
                return done
