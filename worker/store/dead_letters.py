"""Lane entries that cannot be decided become dead letters: for what reason, under what id, and what the producer gets.

That an entry holds no command, is of no store or stands on another's lane is judged here; that a command does not get
through, in `applier`. What becomes of dead letters later is up to operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID

import psycopg
import structlog

from ...lanes.postgres.errors import error_text
from ...schemas.errors import CommandDeadLettered, UndecodableCommand
from ...schemas.journal import Refusal
from ..lanes.entries import LaneEntry
from ..ledger.state import Outcome
from .transaction import LedgerStore

#: Why a command is dead-lettered that is on a lane that is not its account's.
WRONG_LANE = (
    "it stands on a lane that is not its account's: who sent it has another number of partitions. Start that process "
    "anew, without CREDITLANE_PARTITIONS, then replay this dead letter"
)

_log = structlog.get_logger(__name__)


class DeadLetters:
    """Moves entries of one worker to the dead letters."""

    def __init__(
        self, store: LedgerStore, stores: Mapping[str, int], lane_of: Callable[[str], int] | None = None
    ) -> None:
        """Take the stores that are known, by id, which the caller goes on filling, and how an account's lane is found.

        Without `lane_of` nothing counts as misplaced.
        """
        self._store = store
        self._stores = stores
        self._lane_of = lane_of

    def add(self, entry: LaneEntry, epochs: Mapping[int, int], code: str, reason: str) -> Outcome:
        """Move an entry there, and return what its producer gets. Raises as `LedgerStore.transact` does."""
        command = entry.command
        letter: tuple[Any, ...] = (
            self._stores.get(command.store_id, 0) if command else 0,
            _dead_letter_id(entry),
            entry.partition,
            entry.entry_id.decode("ascii", "replace"),
            entry.payload,
            command.idempotency_key if command else None,
            code,
            reason,
        )
        refusal = Refusal(CommandDeadLettered.code, reason, {"dead_letter": str(letter[1])})
        self._store.dead_letter(letter, command, refusal, lease_of(entry, epochs))
        _log.error("command dead-lettered", partition=entry.partition, id=str(letter[1]), code=code, reason=reason)
        return Outcome(None, refusal=refusal)

    def add_unreadable(self, entry: LaneEntry, epochs: Mapping[int, int]) -> Outcome:
        """Move an entry there that holds no command, one of no store, or one that is misplaced."""
        if entry.command is None:
            return self.add(entry, epochs, UndecodableCommand.code, entry.flaw or "")
        if self.is_misplaced(entry):
            return self.add(entry, epochs, "wrong_lane", WRONG_LANE)
        reason = f"store_id: there is no store {entry.command.store_id!r}; create it, then replay this dead letter"
        return self.add(entry, epochs, "unknown_store", reason)

    def is_misplaced(self, entry: LaneEntry) -> bool:
        """Return whether it stands on a lane that is not its account's.

        In order with the account's others it is not there, and who has their lane remembers the account as it was.
        """
        lane_of, command = self._lane_of, entry.command
        return lane_of is not None and command is not None and lane_of(command.account_id) != entry.partition


def lease_of(entry: LaneEntry, epochs: Mapping[int, int]) -> dict[int, int]:
    """Return the lease of the lane on which the entry stands; none where the batch has none."""
    return {entry.partition: epochs[entry.partition]} if epochs else {}


def reason_of(error: Exception) -> str:
    """Return one line on the error, without the values of the row that Postgres would add."""
    if isinstance(error, psycopg.Error):
        return error_text(error) if error.sqlstate else f"client: {error_text(error)}"
    return f"{type(error).__name__}: {error}"


def _dead_letter_id(entry: LaneEntry) -> UUID:
    """Return an id that a redelivery of the same entry gives again."""
    seed = b"%d\0%b\0%b" % (entry.partition, entry.entry_id, entry.payload)
    return UUID(bytes=blake2b(seed, digest_size=16, person=b"creditlane-dead").digest())
