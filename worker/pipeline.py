"""The three stages that a batch passes through, each with its own connection and its own way of trying again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Event
from typing import TypeVar

import msgspec
import psycopg
import redis
import structlog

from ..lanes.backoff import LONGEST_PAUSE_SECONDS, Backoff
from ..lanes.keys import Keys
from ..lanes.postgres.errors import error_text
from ..schemas.installation import Installation
from ..schemas.settings import Settings
from .bounded_pipe import Pipe
from .connections import connect_postgres
from .lanes.announcer import Announcer
from .lanes.deleter import Deleter
from .lanes.entries import Batch, LaneEntry
from .lanes.fences import EpochRaiser, Fences
from .lanes.heavy_command_turns import HeavyCommandTurns
from .lanes.installation_mirror import Mirror
from .lanes.ownership import Ownership
from .lanes.reader import BLOCK_SECONDS, MAX_ANSWER_BYTES, LaneReader
from .lanes.redis_session import RedisFault, RedisFaults, RedisSession, answer_seconds_within
from .lanes.shared_heavy_turn import SharedHeavyTurn
from .ledger.state import Outcome
from .metrics import Metrics
from .progress import Progress
from .store.applier import Applier, CommandTimedOut
from .store.sizing import Sizing
from .store.transaction import Connection, LedgerStore, PartitionsLost

#: How long the reader waits for the first lanes before it checks whether to stop, in seconds.
WAIT_FOR_LANES_SECONDS = 0.25

#: Called with the name of the step that was just done, "read", "commit", "announce" or "delete". For tests of faults.
StepListener = Callable[[str], None]

Done = TypeVar("Done")

_log = structlog.get_logger(__name__)


def _backoff_of(settings: Settings, stopping: Event) -> Backoff:
    """Return pauses of which the longest is over well before a lease, so that a stage is back in time."""
    return Backoff(stopping, longest_seconds=min(LONGEST_PAUSE_SECONDS, settings.lease_seconds / 4))


class GaveUp(Exception):
    """The worker is stopping and cannot finish its batch; the lanes still have it all."""


class Decided(msgspec.Struct, frozen=True):
    """A batch that is committed, with its outcomes."""

    batch: Batch
    outcomes: list[Outcome]
    #: The outbox has something new.
    has_outbox_rows: bool


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
        worker_id: str,
        ownership: Ownership,
        pipes: Pipes,
        metrics: Metrics,
        progress: Progress,
        faults: RedisFaults,
        *,
        stopping: Event,
        after_step: StepListener,
    ) -> None:
        answer_seconds = answer_seconds_within(settings.lease_seconds)
        self._ownership = ownership
        self._work = progress.reader
        self._batches = pipes.batches
        self._stopping = stopping
        self._after_step = after_step
        self._turns = HeavyCommandTurns()
        self._backoff = _backoff_of(settings, stopping)
        self._session = RedisSession(
            settings.require_redis_url(), faults, answer_seconds=answer_seconds, max_answer_bytes=MAX_ANSWER_BYTES
        )
        self._keys = keys = Keys(settings.redis_prefix)
        self._write_check = keys.write_check
        self._shared_turn = SharedHeavyTurn(self._session.client, keys)
        raiser = EpochRaiser(
            settings.require_database_url(), worker_id, ownership, answer_seconds=settings.lease_seconds / 2
        )
        self._reader = LaneReader(
            self._session.client,
            keys,
            ownership,
            Fences(self._session.client, keys, raiser),
            metrics,
            batch_limit=settings.batch_limit,
        )

    def run(self, installation: Installation) -> None:
        """Put one batch after the other into the pipe, then end it."""
        mirror = Mirror(self._session.client, self._keys, installation)
        while not self._stopping.is_set():
            epochs = self._ownership.wait_for_some(WAIT_FOR_LANES_SECONDS)
            if not epochs:
                if self._work.is_failing:
                    # Whoever lost the lanes because it could not read shows without them that it can again.
                    self._read(self._check_writes)
                continue
            if mirror.is_due:
                self._read(partial(_put_right, mirror))
            if self._reader.holds_back and self._reader.is_at_end:
                # What comes meanwhile can go before what is held back.
                self._batches.wait_until_wanted(BLOCK_SECONDS)
            if self._turns.is_at_part and self._batches.is_wanted:
                self._read(self._end_turn)
            found = bool(self._pass_on(partial(self._reader.read, epochs, block_seconds=self._seconds_to_block())))
            self._turns.note_read(found=found, more=not self._reader.is_at_end)
            if found:
                self._read(self._note_others)
            if self._reader.holds_back and self._turns.has_come(idle=not found and self._is_idle()):
                self._pass_on(partial(self._read_held, epochs))
        self._session.close()
        self._batches.end()

    def _pass_on(self, read: Callable[[], Batch]) -> list[LaneEntry]:
        """Read and put the batch into the pipe. Returns what is in it, if there was one."""
        batch = self._read(read)
        if batch is None or not batch.entries:
            return []
        self._after_step("read")
        self._batches.put(batch)
        return batch.entries

    def _read_held(self, epochs: Mapping[int, int]) -> Batch:
        """Return the next part of what is held back, if it is this worker's turn."""
        others = self._turns.others_are_at_work or self._shared_turn.others_are_at_work()
        if others and not self._shared_turn.take():
            self._turns.put_off()
            return Batch([], {})
        self._turns.begin(others=others)
        return self._reader.read_held(epochs, alone=not others)

    def _end_turn(self) -> Batch:
        self._shared_turn.end(self._turns.note_done())
        return Batch([], {})

    def _note_others(self) -> Batch:
        self._shared_turn.note_others()
        return Batch([], {})

    def _seconds_to_block(self) -> float:
        if self._reader.holds_back:
            return min(BLOCK_SECONDS, self._turns.rest_seconds) if self._reader.is_at_end else 0.0
        return BLOCK_SECONDS

    def _is_idle(self) -> bool:
        return self._reader.is_at_end and self._batches.is_wanted

    def _check_writes(self) -> Batch:
        # A server that takes no writes answers everything else; one that is only full allows to delete.
        self._session.client.delete(self._write_check)
        return Batch([], {})

    def _read(self, read: Callable[[], Batch]) -> Batch | None:
        self._work.begin()
        if self._session.keep_up():
            self._reader.reset(self._session.number)
        try:
            batch = read()
        except RedisFault as error:
            _log.warning("lanes cannot be read, trying again", error=str(error), failures=self._backoff.failures)
            self._work.fail(error)
            self._session.fail()
            self._reader.reset(self._session.number)
            self._backoff.pause()
            return None
        if self._backoff.failures:
            _log.info("lanes are read again", failures=self._backoff.failures)
            self._backoff.reset()
        self._work.end()
        return batch


def _put_right(mirror: Mirror) -> Batch:
    mirror.put_right()
    return Batch([], {})


class ApplyingStage:
    """Applies batches to Postgres, each until it is committed or its lanes are lost."""

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        ownership: Ownership,
        pipes: Pipes,
        metrics: Metrics,
        progress: Progress,
        *,
        stopping: Event,
        after_step: StepListener,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._worker_id = worker_id
        self._partitions = 0
        self._ownership = ownership
        self._pipes = pipes
        self._after_step = after_step
        self._backoff = _backoff_of(settings, stopping)
        self._work = progress.applier
        self._connection: Connection | None = None
        self._applier: Applier | None = None
        self._sizing = Sizing(batch_limit=settings.batch_limit, lease_seconds=settings.lease_seconds)
        self._gave_up = False

    def run(self, partitions: int) -> None:
        """Take batches from one pipe to the other, to the end."""
        self._partitions = partitions
        while (batch := self._pipes.batches.get()) is not None:
            # Nothing may overtake a batch that is left on its lanes: the next owner applies it before what follows.
            if not self._gave_up:
                self._commit_all(batch)
        self._disconnect()
        self._pipes.decided.end()

    def _commit_all(self, batch: Batch) -> None:
        """Apply a batch in as many transactions as it takes, and pass each on as it is committed.

        What is left of it at a stop, with Postgres away, stays on the lanes: the next owner applies it.
        """
        left: Batch | None = batch
        while left is not None and left.entries:
            started = time.perf_counter()
            self._work.begin()
            left, decided = self._commit_next(left)
            if decided is not None:
                self._work.end()
                self._metrics.note_batch(len(decided.outcomes), time.perf_counter() - started)
                self._after_step("commit")
                self._pipes.decided.put(decided)
        self._work.end()
        if left is not None:
            # Its last lanes are another worker's; what was committed of the others finishes for itself.
            self._ownership.finish(left.epochs)

    def _commit_next(self, batch: Batch) -> tuple[Batch | None, Decided | None]:
        """Return what is left after one more transaction, and what it decided.

        Nothing is left at the end, and of a batch that is given up; nothing decided by an attempt that failed.
        """
        try:
            applier = self._connected()
            outcomes = applier.apply(batch)
        except PartitionsLost as lost:
            return self._drop(batch, lost), None
        except CommandTimedOut as timed_out:
            _log.warning("a command does not get through, trying other lanes first", partition=timed_out.partition)
            return self._try_again(batch.with_last(timed_out.partition)), None
        except psycopg.Error as error:
            _log.warning(
                "batch cannot be applied, trying again", error=error_text(error), failures=self._backoff.failures
            )
            self._work.fail(error)
            self._disconnect()
            return self._try_again(batch), None
        if self._backoff.failures:
            _log.info("batches are applied again", failures=self._backoff.failures)
            self._backoff.reset()
        has_outbox_rows = applier.take_outbox_written()
        if len(outcomes) == len(batch.entries):
            return None, Decided(batch, outcomes, has_outbox_rows)
        first = batch.first(len(outcomes))
        # It is announced on its own, beside what is left: each is noted as under way, and finished, for itself.
        self._ownership.begin(first.epochs)
        return batch.after(len(outcomes)), Decided(first, outcomes, has_outbox_rows)

    def _try_again(self, batch: Batch) -> Batch | None:
        """Return the batch after a pause, or nothing if the worker stops meanwhile."""
        if self._backoff.pause():
            return batch
        self._gave_up = True
        return None

    def _drop(self, batch: Batch, lost: PartitionsLost) -> Batch:
        """Return what is left of a batch without the lanes that are another worker's now."""
        _log.warning("leases lost, dropping what was read under them", partitions=sorted(lost.partitions))
        gone = {p: epoch for p, epoch in batch.epochs.items() if p in lost.partitions}
        self._ownership.lose(gone, batch.epochs)
        self._ownership.finish(gone)
        return batch.without(gone.keys())

    def _connected(self) -> Applier:
        if self._applier is None:
            self._connection = connect_postgres(
                self._settings.require_database_url(),
                worker_id=self._worker_id,
                silence_seconds=self._settings.lease_seconds,
            )
            # A process that is stopped inside a transaction must not hold its leases for longer than they last, and
            # what does not get through in half of that is tried again smaller.
            store = LedgerStore(
                self._connection,
                self._worker_id,
                partitions=self._partitions,
                timeout_seconds=self._sizing.timeout_seconds,
            )
            self._applier = Applier(
                store, self._sizing, self._work.advance, self._work.fail, partitions=self._partitions
            )
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
        metrics: Metrics,
        progress: Progress,
        faults: RedisFaults,
        *,
        stopping: Event,
        after_step: StepListener,
    ) -> None:
        answer_seconds = answer_seconds_within(settings.lease_seconds)
        self._ownership = ownership
        self._metrics = metrics
        self._work = progress.announcer
        self._decided = pipes.decided
        self._after_step = after_step
        # Below the lease: a stage that is at one piece of work for longer loses the lanes.
        self._refused_seconds = settings.lease_seconds / 2
        self._backoff = _backoff_of(settings, stopping)
        self._session = RedisSession(settings.require_redis_url(), faults, answer_seconds=answer_seconds)
        keys = Keys(settings.redis_prefix)
        self._announcer = Announcer(
            self._session.client,
            keys,
            result_ttl_seconds=settings.result_ttl_seconds,
            keep_all_results=settings.keep_all_results,
        )
        self._deleter = Deleter(self._session.client, keys)

    def run(self) -> None:
        """Announce one batch after the other, to the end."""
        gave_up = False
        while (decided := self._decided.get()) is not None:
            # Redis is away, and the worker stops: the next owner finds what follows in Postgres, too.
            self._work.begin()
            gave_up = gave_up or not self._finish(decided)
            self._work.end()
        self._session.close()

    def _finish(self, decided: Decided) -> bool:
        """Announce a batch and delete it. False if it was given up, because the worker stops and Redis is away."""
        batch = decided.batch
        try:
            announced = self._announce(decided)
            self._after_step("announce")
            lost = self._until_done(partial(self._delete, batch))
            self._after_step("delete")
            if not announced:
                self._announce_late(decided)
        except GaveUp:
            # The next owner finds the results in Postgres and announces them.
            return False
        self._ownership.lose(lost, batch.epochs)
        self._ownership.finish({p: epoch for p, epoch in batch.epochs.items() if p in lost})
        self._ownership.finish({p: epoch for p, epoch in batch.epochs.items() if p not in lost}, deleted=True)
        self._metrics.note_outcomes(decided.outcomes)
        return True

    def _announce(self, decided: Decided) -> bool:
        """Announce a batch. False if Redis refuses it: what is refused must not keep what is decided on the lanes."""
        announce = partial(
            self._announcer.announce, decided.batch, decided.outcomes, has_outbox_rows=decided.has_outbox_rows
        )
        try:
            return self._until_done(announce, refused_seconds=self._refused_seconds)
        except redis.ResponseError:
            return False

    def _announce_late(self, decided: Decided) -> None:
        """Announce a batch again that was refused, once there is room. Who waits finds the results in Postgres, too."""
        try:
            self._announcer.drop_unread(decided.batch)
            announced = self._announcer.announce(
                decided.batch, decided.outcomes, has_outbox_rows=decided.has_outbox_rows
            )
            cause = "Redis is out of memory"
        except RedisFault as error:
            self._session.fail()
            announced, cause = False, str(error)
        if not announced:
            _log.error(
                "results are not announced; who waits finds them in Postgres",
                results=len(decided.outcomes),
                cause=cause,
            )

    def _delete(self, batch: Batch) -> set[int]:
        return self._deleter.delete(batch, same_redis=batch.session == self._session.number)

    def _until_done(self, work: Callable[[], Done], *, refused_seconds: float = math.inf) -> Done:
        """Return what the work returns, trying again while Redis is away; raise GaveUp if it is away at a stop.

        Raises:
            redis.ResponseError: the answer was an error, and had been one for this long.
        """
        deadline = time.monotonic() + refused_seconds
        while True:
            try:
                self._session.keep_up()
                done = work()
            except RedisFault as error:
                _log.warning(
                    "results cannot be announced, trying again", error=str(error), failures=self._backoff.failures
                )
                self._work.fail(error)
                self._session.fail()
                if isinstance(error, redis.ResponseError) and time.monotonic() > deadline:
                    raise
                if not self._backoff.pause():
                    raise GaveUp from error
            else:
                if self._backoff.failures:
                    _log.info("results are announced again", failures=self._backoff.failures)
                    self._backoff.reset()
                return done
