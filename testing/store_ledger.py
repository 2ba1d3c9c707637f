"""One store's ledger in memory: what it was asked, decided by the pure ledger, and kept as the journal keeps it.

It stands where Postgres and the worker's store stand. The rules are the worker's own; here is only what a rule is given
and what becomes of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, cast

import msgspec

from ..lanes.encoding import LaneCommand
from ..schemas.account_names import name_key
from ..schemas.accounts import AccountState
from ..schemas.commands import OpenAccount, Reverse, reversal_key
from ..schemas.identifiers import Position, position_of
from ..schemas.journal import JournalRow
from ..schemas.kinds import SPANNING_WORDS, STATUS_CHANGES, Kind
from ..schemas.statuses import HoldStatus, Status
from ..worker.ledger.decide import decide_all
from ..worker.ledger.reversals import positions_of
from ..worker.ledger.state import UNOPENED, AccountKey, BatchState, HoldState, Outcome
from ..worker.ledger.transactions import accounts_of
from .clock import microseconds_of


@dataclass
class OpenedAccount:
    """What is kept of an account beside its state and its journal."""

    customer_id: str
    name: str
    unit_label: str
    #: As JSON.
    metadata: str | None
    #: Microseconds since 1970 in UTC.
    created_at_us: int
    updated_at_us: int


class Decided(NamedTuple):
    """What became of a command, and the rows of the holds that had ended before it."""

    outcome: Outcome
    expired: list[JournalRow]


class StoreLedger:
    """The accounts and the journal of one store."""

    def __init__(self, number: int, store_id: str, now: Callable[[], datetime]) -> None:
        self.number = number
        self.store_id = store_id
        #: Returns the time.
        self.now = now
        #: In the order in which they were opened.
        self.accounts: dict[str, OpenedAccount] = {}
        #: Every row, in the order of the decisions.
        self.journal: list[JournalRow] = []
        self._states: dict[str, AccountState] = {}
        self._entries: dict[str, list[JournalRow]] = {}
        self._by_key: dict[str, JournalRow] = {}
        #: By customer and name as names are compared: the account that has it, of those that are not closed.
        self._names: dict[tuple[str, str], str] = {}
        #: By account and number, in the order in which they were made; and the rows that made them.
        self._holds: dict[str, dict[int, HoldState]] = {}
        self._made: dict[Position, JournalRow] = {}

    def state(self, account_id: str) -> AccountState:
        """Return the account as it stands."""
        return self._states.get(account_id, UNOPENED)

    def entries(self, account_id: str) -> list[JournalRow]:
        """Return the account's entries, oldest first: entry `seq` has the index `seq - 1`."""
        return self._entries.get(account_id, [])

    def entry(self, position: Position) -> JournalRow | None:
        """Return the entry that stands there."""
        entries = self.entries(position.account_id)
        return entries[position.seq - 1] if 0 < position.seq <= len(entries) else None

    def holds(self, account_id: str) -> dict[int, HoldState]:
        """Return the account's holds by their numbers, oldest first, as they were last decided upon."""
        return self._holds.get(account_id, {})

    def row_of_hold(self, position: Position) -> JournalRow:
        """Return the row that made the hold."""
        return self._made[position]

    def held(self, account_id: str) -> int:
        """Return what the account's holds set aside now: nothing by those whose end has passed."""
        now_us = microseconds_of(self.now())
        open_holds = (hold for hold in self.holds(account_id).values() if hold.status == HoldStatus.OPEN)
        return sum(hold.remaining for hold in open_holds if hold.expires_at_us > now_us)

    def next_end(self) -> tuple[int, str] | None:
        """Return when the first of the open holds ends, and on which account; None where none is open."""
        ends = [
            (hold.expires_at_us, account_id)
            for account_id, holds in self._holds.items()
            for hold in holds.values()
            if hold.status == HoldStatus.OPEN
        ]
        return min(ends, default=None)

    def holder_of_name(self, customer_id: str, name: str) -> str | None:
        """Return the account of this name that is not closed."""
        return self._names.get((customer_id, name_key(name)))

    def sequence_of(self, row: JournalRow) -> int:
        """Return how many decisions the account had with this row of it, those that moved nothing included."""
        of_account = [each.seq for each in self.journal if each.account_id == row.account_id]
        return of_account.index(row.seq) + 1

    def decide(self, command: LaneCommand, now_us: int) -> Decided:
        """Decide the command at this time, keep what was decided unless it is a dry run, and return it."""
        account = (self.number, command.account_id)
        batch = self._batch(account, command)
        batch.has_dry_runs = command.dry_run
        (outcome,) = decide_all([(account, command)], batch, now_us)
        if outcome.dry_run:
            return Decided(outcome, [])
        for (_, account_id), state in batch.accounts.items():
            self._states[account_id] = state
        for (_, account_id), holds in batch.holds.items():
            self._holds[account_id] = holds
        expired = [row for _, row in batch.expired]
        for row in expired:
            self._keep(row)
        if outcome.row is not None and not outcome.replayed:
            rows = sorted((outcome.row, *outcome.further), key=lambda row: row.seq)
            for row in rows:
                self._keep(row)
            if outcome.row.rejection is None:
                self._change_account(command, outcome.row)
        return Decided(outcome, expired)

    def _batch(self, account: AccountKey, command: LaneCommand) -> BatchState:
        """Return all that the command touches."""
        reverse = cast("Reverse", command) if command.kind == Kind.REVERSE.word else None
        originals = self._originals_of(reverse) if reverse is not None else {}
        touched = {account}
        if command.kind in SPANNING_WORDS:
            touched |= accounts_of(self.number, command, originals)
        batch = BatchState({key: self.state(key[1]) for key in touched})
        batch.holds = {key: dict(self.holds(key[1])) for key in touched if key[1] in self._holds}
        batch.holders = set(batch.holds)
        batch.originals, batch.has_reversals = originals, reverse is not None
        if reverse is not None:
            batch.reversed = self._reversed(reverse)
        keys = [command.idempotency_key, *([reversal_key(command.idempotency_key)] if reverse is not None else [])]
        batch.known = {(self.number, key): self._by_key[key] for key in keys if key in self._by_key}
        if command.kind == Kind.OPEN_ACCOUNT.word:
            opening = cast("OpenAccount", command)
            holder = self.holder_of_name(opening.customer_id, opening.name)
            batch.names_taken = {} if holder is None else {account: holder}
        return batch

    def _originals_of(self, command: Reverse) -> dict[tuple[int, Position], JournalRow]:
        """Return the entries of the transaction that is to be reversed, if there is one."""
        position = position_of(command.transaction_id)
        first = None if position is None else self.entry(position)
        if position is None or first is None:
            return {}
        rows = {index: self.entry(index) for index in [position, *positions_of(first)]}
        return {(self.number, index): row for index, row in rows.items() if row is not None}

    def _reversed(self, command: Reverse) -> dict[tuple[int, Position], int]:
        """Return how much is reversed already of what is to be reversed."""
        position = position_of(command.transaction_id)
        if position is None:
            return {}
        of_it = (row for row in self.entries(position.account_id) if row.reversal_of == position.seq)
        return {(self.number, position): sum(row.amount or 0 for row in of_it)}

    def _keep(self, row: JournalRow) -> None:
        self.journal.append(row)
        if row.seq > 0:
            self._entries.setdefault(row.account_id, []).append(row)
        if row.kind == Kind.HOLD and row.rejection is None:
            self._made[Position(row.account_id, -row.seq)] = row
        if row.idempotency_key:
            self._by_key[row.idempotency_key] = row

    def _change_account(self, command: LaneCommand, row: JournalRow) -> None:
        """Keep what an applied command has made of the account that is not in its journal."""
        if row.kind == Kind.OPEN_ACCOUNT:
            opening = cast("OpenAccount", command)
            metadata = None if opening.metadata is None else msgspec.json.encode(opening.metadata).decode()
            self.accounts[row.account_id] = OpenedAccount(
                opening.customer_id, opening.name, opening.unit_label, metadata, row.created_at_us, row.created_at_us
            )
            self._names[opening.customer_id, name_key(opening.name)] = row.account_id
        elif row.kind in STATUS_CHANGES:
            account = self.accounts[row.account_id]
            account.updated_at_us = row.created_at_us
            if self.state(row.account_id).status == Status.CLOSED:
                del self._names[account.customer_id, name_key(account.name)]
        elif row.kind == Kind.SET_LIMIT:
            self.accounts[row.account_id].updated_at_us = row.created_at_us
