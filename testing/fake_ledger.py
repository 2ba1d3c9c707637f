"""A ledger in memory that clients of any number of stores may share: lanes, scheduled commands, results, a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from threading import RLock
from typing import NamedTuple

from ..lanes.encoding import LaneCommand, decode_command, encode_command
from ..producer.client.chunks import Chunk, addressed_for_later
from ..producer.client.resolve import lost, queued
from ..producer.ledger.lookups import valid_moment
from ..schemas.commands import Command, Expiry
from ..schemas.errors import LaneFull
from ..schemas.results import Result, as_dry_run, moment_of, result_of_refusal, result_of_row
from ..schemas.tickets import Ticket
from .clock import FakeClock, microseconds_of
from .scheduled_commands import ScheduledCommands
from .store_ledger import StoreLedger
from .store_webhooks import StoreWebhooks


class _Waiting(NamedTuple):
    """A command on its lane."""

    lane_entry: str
    partition: int
    fingerprint: str
    command: LaneCommand


class _Decided(NamedTuple):
    fingerprint: str
    result: Result


class FakeLedger:
    """Decides commands as they are accepted, by the worker's own rules, at the time of its clock.

    Threads may share one. Every store that a client names is there. Two decisions never have the same time: where the
    clock stands still, each is a microsecond after the one before it.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        #: What `schedule`, times of entries and balances of the past go by; move it as the test needs.
        self.clock: FakeClock = clock or FakeClock()
        self._lock = RLock()
        self._stores: dict[str, StoreLedger] = {}
        self._webhooks: dict[str, StoreWebhooks] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._decided: dict[str, _Decided] = {}
        self._scheduled = ScheduledCommands()
        self._is_paused = False
        self._latest_us = 0
        self._accepted = 0

    def pause(self) -> None:
        """Decide nothing any more, as if no worker ran: what is accepted stays queued, and waiting for it is in vain.

        A client's `debit` raises OutcomeUnknown then, at once, and its lanes fill up to the setting `lane_limit`.
        """
        with self._lock:
            self._is_paused = True

    def resume(self) -> None:
        """Decide what is queued, in order, and what is accepted from now on."""
        with self._lock:
            self._is_paused = False
            self._decide_waiting()
            self._enqueue_due()

    def now(self) -> datetime:
        """Return the time: that of the clock, or of the latest decision where that is a little later."""
        return max(self.clock.now(), moment_of(self._latest_us))

    def store(self, store_id: str) -> StoreLedger:
        """Return a store's ledger, with everything decided that is due."""
        with self._lock:
            self._enqueue_due()
            return self._store(store_id)

    def webhooks(self, store_id: str) -> StoreWebhooks:
        """Return a store's endpoints and deliveries, with everything decided that is due."""
        with self._lock:
            self._enqueue_due()
            return self._webhooks_of(store_id)

    def accept(self, chunk: Chunk, lane_limit: int) -> list[bytes]:
        """Put the commands on their lanes, decide them, and return the ids of their lane entries.

        Raises:
            LaneFull: a lane has no room for all of them; none is accepted.
        """
        with self._lock:
            self._enqueue_due()
            on_lanes = Counter(waiting.partition for waiting in self._waiting.values())
            for partition, indexes in chunk.lanes.items():
                if on_lanes[partition] + len(indexes) > lane_limit:
                    raise LaneFull(partition=partition)
            partitions = {index: partition for partition, indexes in chunk.lanes.items() for index in indexes}
            entries = [
                self._enqueue(partitions[index], chunk.fingerprints[index], encoded)
                for index, encoded in enumerate(chunk.encoded)
            ]
            self._decide_waiting()
            return [entry.encode() for entry in entries]

    def result(self, ticket: Ticket) -> Result:
        """Return what is known of the ticket's command.

        Raises:
            OutcomeUnknown: no such command was accepted here.
        """
        with self._lock:
            self._enqueue_due()
            waiting, decided = self._waiting.get(ticket.lane_entry), self._decided.get(ticket.lane_entry)
            if decided is not None and decided.fingerprint == ticket.fingerprint:
                return decided.result
            if waiting is not None and waiting.fingerprint == ticket.fingerprint:
                return queued(ticket)
            raise lost(ticket)

    def pending(self, store_id: str, account_id: str) -> int:
        """Return how many commands of the account are accepted and not decided."""
        with self._lock:
            self._enqueue_due()
            commands: Sequence[LaneCommand] = [waiting.command for waiting in self._waiting.values()]
            return sum((command.store_id, command.account_id) == (store_id, account_id) for command in commands)

    def schedule(self, command: Command, store_id: str, at: datetime) -> str:
        """Have the command put on its lane at this time, and return its key.

        Raises:
            InvalidCommand: it is no command, another store's or a dry run, or the time has no offset.
            IdempotencyKeyMismatch: another command is scheduled under the key.
        """
        command, at = addressed_for_later(command, store_id), valid_moment(at)
        with self._lock:
            self._enqueue_due()
            # What is past is due now.
            self._scheduled.schedule(command, store_id, max(at, self.clock.now()))
            self._enqueue_due()
        return command.idempotency_key

    def cancel(self, idempotency_key: str, store_id: str) -> bool:
        """Forget a scheduled command, and return whether it was still to be put on its lane."""
        with self._lock:
            self._enqueue_due()
            return self._scheduled.cancel(idempotency_key, store_id)

    def _store(self, store_id: str) -> StoreLedger:
        return self._stores.setdefault(store_id, StoreLedger(len(self._stores) + 1, store_id, self.now))

    def _webhooks_of(self, store_id: str) -> StoreWebhooks:
        return self._webhooks.setdefault(store_id, StoreWebhooks(store_id, self.now))

    def _enqueue_due(self) -> None:
        """Put every command on its lane whose time has come, each as of its own time."""
        for encoded, at in self._scheduled.take_due(self.clock.now()):
            # Nobody has a ticket of it, so neither lane nor digest are asked for.
            self._enqueue(0, "", encoded)
            self._decide_waiting(at)
        if not self._is_paused:
            for store in self._stores.values():
                self._release_ended(store)

    def _release_ended(self, store: StoreLedger) -> None:
        """Release every hold whose end has passed, each as of that, as a job has it done on accounts at rest."""
        now_us = microseconds_of(self.clock.now())
        while (end := store.next_end()) is not None and end[0] <= now_us:
            at_us, account_id = end
            self._latest_us = max(at_us, self._latest_us + 1)
            command = decode_command(encode_command(Expiry(account_id=account_id), store.store_id))
            decided = store.decide(command, self._latest_us)
            self._webhooks_of(store.store_id).publish_rows(store, decided.expired, self._latest_us)

    def _enqueue(self, partition: int, fingerprint: str, encoded: bytes) -> str:
        self._accepted += 1
        entry = f"{microseconds_of(self.now()) // 1_000}-{self._accepted}"
        self._waiting[entry] = _Waiting(entry, partition, fingerprint, decode_command(encoded))
        return entry

    def _decide_waiting(self, at: datetime | None = None) -> None:
        while self._waiting and not self._is_paused:
            self._decide(self._waiting.pop(next(iter(self._waiting))), at or self.clock.now())

    def _decide(self, waiting: _Waiting, at: datetime) -> None:
        command = waiting.command
        store = self._store(command.store_id)
        self._latest_us = max(microseconds_of(at), self._latest_us + 1)
        outcome, expired = store.decide(command, self._latest_us)
        if outcome.row is not None:
            result = result_of_row(outcome.row, replayed=outcome.replayed)
        elif outcome.refusal is not None:
            result = result_of_refusal(outcome.refusal, command.account_id, command.idempotency_key)
        else:
            raise ArithmeticError("a decision has neither a row nor a refusal")
        if outcome.dry_run:
            result = as_dry_run(result, outcome.row, outcome.further)
        self._decided[waiting.lane_entry] = _Decided(waiting.fingerprint, result)
        webhooks = self._webhooks_of(command.store_id)
        webhooks.publish_rows(store, expired, self._latest_us)
        webhooks.publish(store, command, outcome, self._latest_us)
