"""Gets every entry of a batch decided: optimistically, else carefully, else bisected down to the one at fault.

A batch goes into as many transactions as its size asks for. What takes too long is tried in halves as well. What never
gets through goes to `dead_letters`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import psycopg
import structlog

from ...lanes.routing import partition_of
from ...schemas.errors import CommandDeadLettered, CreditlaneError, UpgradeUnfinished
from ...schemas.journal import Refusal
from ...schemas.releases import RELEASE, is_new
from ..lanes.entries import Batch, LaneEntry
from ..ledger.state import AddressedCommand, Outcome
from .accounts import MAX_REMEMBERED_ACCOUNTS
from .dead_letters import DeadLetters, lease_of, reason_of
from .sizing import Cost, Sizing
from .transaction import LedgerStore, OlderWorkers, PartitionsLost, StaleAccount, TransactionTooLarge

#: Batches that are done carefully after one that met a known key: repeats come in runs.
CAREFUL_BATCHES = 2
#: Times that a careful batch may meet a key which another lane is just committing.
MAX_COLLISIONS = 5

#: SQLSTATE classes that a command can be to blame for: data exception, integrity constraint, program limit, and an
#: exception raised by a trigger. Anything else is the environment's fault, and the batch is tried again as it is.
_COMMAND_FAULT_CLASSES = frozenset({"22", "23", "54", "P0"})

#: What is announced of a new command while older workers live.
UPGRADE_UNFINISHED = Refusal(UpgradeUnfinished.code, UpgradeUnfinished().message)

#: What Postgres says of work that took too long: a statement, or what this worker did between two of them.
_TIMEOUTS = (
    psycopg.errors.QueryCanceled,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.IdleSessionTimeout,
)
#: SQLSTATE classes of a connection that is cut: connection exception, and operator intervention.
_CUT_CLASSES = frozenset({"08", "57"})

_log = structlog.get_logger(__name__)


class CommandTimedOut(CreditlaneError):
    """A command did not get through alone, which may be the environment's fault: try other lanes, and it again."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        super().__init__(f"A command of partition {partition} did not get through alone in time.")


class Applier:
    """Applies batches through one store. Errors of the environment pass through; the caller tries again."""

    def __init__(
        self,
        store: LedgerStore,
        sizing: Sizing | None = None,
        note_progress: Callable[[], None] | None = None,
        note_failure: Callable[[Exception], None] | None = None,
        *,
        partitions: int | None = None,
    ) -> None:
        """With the number of partitions, what stands on a lane that is not its account's is not decided.

        `note_progress` is called when what is left to do became smaller, and `note_failure` before with the cause.

        Of errors that `apply` raises as they are, the caller knows itself.
        """
        self._store = store
        self._sizing = sizing or Sizing()
        self._note_progress = note_progress or (lambda: None)
        self._note_failure = note_failure or (lambda _error: None)
        self._stores: dict[str, int] = {}
        self._lane_of: Callable[[str], int] | None = None
        if partitions is not None:
            self._lane_of = lru_cache(MAX_REMEMBERED_ACCOUNTS)(partial(partition_of, partitions=partitions))
        self._dead_letters = DeadLetters(store, self._stores, self._lane_of)
        # What was on a lane when this worker took it may have been decided by its last owner.
        self._careful_batches = CAREFUL_BATCHES

    def expect_repeats(self) -> None:
        """Look up keys for a while, and read every account afresh: something happened that repeats commands."""
        self._careful_batches = CAREFUL_BATCHES
        self._store.forget()

    def take_outbox_written(self) -> bool:
        """Return whether anything was written to the outbox since this was last asked."""
        return self._store.take_outbox_written()

    def apply(self, batch: Batch) -> list[Outcome]:
        """Return the outcomes of the batch's first entries, in order: of as many as fit into one transaction.

        All of them are committed. The rest was not tried; it is a batch of its own.

        Raises:
            PartitionsLost: some lanes are another worker's now. Nothing was decided that is not stored; drop them and
                apply the rest again.
            CommandTimedOut: the first entry does not get through. Apply what is on other lanes before it.
            psycopg.Error: Postgres cannot be used now. Apply the batch again.
        """
        while True:
            part = self._sizing.first_part(batch.entries)
            entries = batch.entries[: part.entries]
            began = time.monotonic()
            try:
                outcomes = self._decide(entries, batch.epochs)
            except (psycopg.Error, TransactionTooLarge) as error:
                if not self._is_too_big(error, time.monotonic() - began):
                    raise
                self._note_too_big(part, entries[0], error)
                if part.entries == 1 and self._sizing.note_lone_timeout(entries[0]):
                    return [self._give_up(entries[0], batch.epochs, error)]
                if not isinstance(error, psycopg.errors.QueryCanceled | TransactionTooLarge):
                    raise
                if part.entries == 1:
                    raise CommandTimedOut(entries[0].partition) from error
            else:
                self._note_commit(part, entries, outcomes)
                return outcomes

    def _is_too_big(self, error: Exception, seconds: float) -> bool:
        """Return whether an attempt failed because it was too much at once, and not while it waited for others.

        Who waits for a lock, and finds a disk full or a server read-only, is not too big, however long it took.
        """
        if isinstance(error, TransactionTooLarge):
            return True
        # A connection that breaks after so long was perhaps cut because of it; smaller attempts do no harm.
        was_cut = _is_cut(error) and seconds >= self._sizing.timeout_seconds
        return self._store.holds_lanes_since is not None and (isinstance(error, _TIMEOUTS) or was_cut)

    def _note_too_big(self, part: Cost, first: LaneEntry, error: Exception) -> None:
        self._sizing.note_too_big(part)
        if isinstance(error, psycopg.errors.QueryCanceled | TransactionTooLarge):
            self._note_failure(error)
            # Postgres is there. How often it may be so is bounded: halves end, and one command alone is given up.
            self._note_progress()
        # It was rolled back, or perhaps not: whatever it was, what is remembered is not worth the risk.
        self.expect_repeats()
        _log.warning(
            "transaction is too big, trying half of it",
            entries=part.entries,
            rows=part.rows,
            bytes=part.bytes,
            partition=first.partition,
            entry_id=first.entry_id.decode("ascii", "replace"),
            error=reason_of(error),
        )

    def _note_commit(self, part: Cost, entries: Sequence[LaneEntry], outcomes: Sequence[Outcome]) -> None:
        since = self._store.holds_lanes_since
        if since is not None and len(outcomes) == len(entries):
            self._sizing.note_commit(part, time.monotonic() - since, self._store.written_characters)
        if part.entries == 1:
            self._sizing.forget_lone(entries[0])

    def _give_up(self, entry: LaneEntry, epochs: Mapping[int, int], error: Exception) -> Outcome:
        """Bury an entry that never got through alone, unless an attempt was committed and we did not hear of it."""
        command = entry.command
        # The key of a dry run says nothing of whether that was decided.
        if command is not None and command.store_id in self._stores and not command.dry_run:
            account = self._stores[command.store_id], command.account_id
            if self._store.is_decided(account, command, lease_of(entry, epochs)):
                return self._attempt([entry], epochs, careful=True)[0]
        reason = f"{reason_of(error)}; it did not get through alone either"
        return self._dead_letters.add(entry, epochs, CommandDeadLettered.code, reason)

    def _decide(self, entries: Sequence[LaneEntry], epochs: Mapping[int, int]) -> list[Outcome]:
        if self._careful_batches == 0:
            try:
                return self._attempt(entries, epochs, careful=False)
            except (psycopg.errors.UniqueViolation, StaleAccount):
                self.expect_repeats()
            except Exception as error:
                if not _is_commands_fault(error):
                    raise
                self.expect_repeats()
        self._careful_batches -= 1
        return self._apply_carefully(entries, epochs)

    def _learn_stores(self, entries: Sequence[LaneEntry]) -> None:
        unknown = {entry.command.store_id for entry in entries if entry.command} - self._stores.keys()
        if unknown:
            self._stores.update(self._store.find_stores(unknown))

    def _apply_carefully(self, entries: Sequence[LaneEntry], epochs: Mapping[int, int]) -> list[Outcome]:
        collisions = 0
        while True:
            try:
                outcomes = self._attempt(entries, epochs, careful=True)
            except Exception as error:
                if not _is_commands_fault(error):
                    raise
                collisions += isinstance(error, psycopg.errors.UniqueViolation | StaleAccount)
                if collisions in {0, MAX_COLLISIONS}:
                    return self._bisect(entries, epochs, error)
            else:
                if any(outcome.replayed for outcome in outcomes):
                    self._careful_batches = CAREFUL_BATCHES
                return outcomes

    def _bisect(self, entries: Sequence[LaneEntry], epochs: Mapping[int, int], error: Exception) -> list[Outcome]:
        """Bisect: do the halves one after the other, in order; an entry that fails alone is the one at fault."""
        if len(entries) == 1:
            return [self._dead_letters.add(entries[0], epochs, CommandDeadLettered.code, reason_of(error))]
        half = len(entries) // 2
        _log.warning("batch failed, splitting it", entries=len(entries), error=reason_of(error))
        outcomes = self._apply_carefully(entries[:half], epochs)
        if len(outcomes) < half:
            return outcomes
        try:
            return [*outcomes, *self._apply_carefully(entries[half:], epochs)]
        except (psycopg.Error, CreditlaneError):
            # The first half is committed whatever became of the second, which meets the same again on its own.
            return outcomes

    def _attempt(self, entries: Sequence[LaneEntry], epochs: Mapping[int, int], *, careful: bool) -> list[Outcome]:
        try:
            commands = self._addressed(entries)
        except (KeyError, AttributeError):
            return self._attempt_some(entries, epochs, careful=careful)
        if len(commands) < len(entries):
            return self._attempt_some(entries, epochs, careful=careful)
        while True:
            try:
                return self._store.transact(commands, epochs, careful=careful)
            except OlderWorkers:
                if not self._store.require_release():
                    return self._attempt_old(entries, commands, epochs, careful=careful)
                # Once, unless Postgres is restored to an earlier state just then.
                _log.info("lanes are kept from workers of older releases from now on", release=RELEASE)

    def _attempt_old(
        self,
        entries: Sequence[LaneEntry],
        commands: Sequence[AddressedCommand],
        epochs: Mapping[int, int],
        *,
        careful: bool,
    ) -> list[Outcome]:
        """Do as `_attempt` does, and refuse what is new, which older workers would not heed. It leaves nothing."""
        new = [is_new(command) for _, command in commands]
        partitions = {entry.partition for entry, refused in zip(entries, new, strict=True) if refused}
        # Before the others, whose outcomes would be repeats if this could not be said; twice adds nothing.
        self._store.refuse(
            [command for command, refused in zip(commands, new, strict=True) if refused],
            UPGRADE_UNFINISHED,
            {partition: epoch for partition, epoch in epochs.items() if partition in partitions},
        )
        _log.warning("new commands are refused while workers of an older release live", commands=sum(new))
        old = [command for command, refused in zip(commands, new, strict=True) if not refused]
        decided = iter(self._store.transact(old, epochs, careful=careful) if old else [])
        return [
            Outcome(None, refusal=UPGRADE_UNFINISHED, dry_run=command.dry_run) if refused else next(decided)
            for (_, command), refused in zip(commands, new, strict=True)
        ]

    def _addressed(self, entries: Sequence[LaneEntry]) -> list[AddressedCommand]:
        """Return the commands with the accounts that they are for, without those that are misplaced.

        In one pass, for this is done for every command.

        Raises:
            KeyError, AttributeError: a store is not known yet, or an entry is unreadable.
        """
        stores, lane_of = self._stores, self._lane_of
        if lane_of is None:
            return [
                ((stores[entry.command.store_id], entry.command.account_id), entry.command)  # type: ignore[union-attr,misc]
                for entry in entries
            ]
        return [
            ((stores[command.store_id], command.account_id), command)  # type: ignore[union-attr,misc]
            for entry in entries
            if lane_of((command := entry.command).account_id) == entry.partition  # type: ignore[union-attr]
        ]

    def _attempt_some(self, entries: Sequence[LaneEntry], epochs: Mapping[int, int], *, careful: bool) -> list[Outcome]:
        """Do as `_attempt` does, where some entries are unreadable, of a store that is not known yet, or misplaced."""
        self._learn_stores(entries)
        readable = [
            entry
            for entry in entries
            if entry.command and entry.command.store_id in self._stores and not self._dead_letters.is_misplaced(entry)
        ]
        kept = set(map(id, readable))
        # Before the others, whose outcomes would be repeats if one of these could not be stored; twice adds nothing.
        dead = {
            id(entry): self._dead_letters.add_unreadable(entry, epochs) for entry in entries if id(entry) not in kept
        }
        decided = iter(self._attempt(readable, epochs, careful=careful) if readable else [])
        return [next(decided) if id(entry) in kept else dead[id(entry)] for entry in entries]


def _is_cut(error: Exception) -> bool:
    """Return whether the connection broke, and not what Postgres answered on it."""
    return isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08")[:2] in _CUT_CLASSES


def _is_commands_fault(error: Exception) -> bool:
    """Return whether a command of the batch may be the cause, so that trying the rest without it makes sense."""
    if isinstance(error, PartitionsLost | TransactionTooLarge):
        return False
    if isinstance(error, psycopg.Error):
        # A DataError without a state comes from the driver, which could not write a value down.
        return isinstance(error, psycopg.DataError) or (error.sqlstate or "")[:2] in _COMMAND_FAULT_CLASSES
    return True
