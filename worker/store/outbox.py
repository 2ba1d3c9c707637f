"""The outbox: which of a batch's decisions become events, written in the transaction that makes them true.

The journal has all that happened and never changes, so a row of the outbox only points into it: at decisions of one
store, in the order in which they were made. What events they become, and for whom, is made of it later, off the lanes.
A store without endpoints and a command without a callback cost nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import psycopg

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.journal import JournalRow, Refusal
from ..ledger.state import AccountKey, AddressedCommand, Outcome
from . import sql
from .outbox_binary import OutboxRow, copy_bytes
from .subscriptions import Subscriptions, Wanted

#: Most decisions that one row points at, so that those of one store do not make another's wait for long.
MAX_ROW_DECISIONS = 500

_encode = msgspec.json.Encoder().encode
_seq_of, _store_of = attrgetter("seq"), attrgetter("store_id")
#: How many decisions the account had with each new row of a part.
Sequences = Mapping[tuple[int, str, int], int]


class Callback(msgspec.Struct, frozen=True, gc=False):
    """A result that is to be sent to the URL that came with its command, as it stands in the outbox."""

    url: str
    idempotency_key: str
    account_id: str
    #: `seq` of the journal row that is the result; None where there is none.
    seq: int | None
    #: How many decisions the account had with that row; None where it was decided before: the fan-out looks it up.
    sequence: int | None
    #: The result where there is no row: code, message and details.
    refusal: dict[str, Any] | None


class Contents(msgspec.Struct):
    """What one part of a batch writes to the outbox for one store: rows of the journal, and results."""

    rows: list[JournalRow] = []
    #: How many decisions its account had with each of the rows.
    sequences: list[int] = []
    callbacks: list[Callback] = []


class Outbox:
    """Writes the outbox rows of one worker's transactions. They are true if the transaction is committed."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._subscriptions = Subscriptions()
        self._version = 0
        self._has_written = False

    def begin(self, subscriptions_version: int) -> None:
        """Look at the subscriptions as the transaction that has just begun sees them, or later."""
        self._version = subscriptions_version

    def write(
        self,
        commands: Sequence[AddressedCommand],
        outcomes: Sequence[Outcome],
        rows: list[JournalRow],
        states: Mapping[AccountKey, AccountState],
        *,
        has_callbacks: bool,
    ) -> None:
        """Write the outbox rows of a part of a batch, given its journal rows in order and its accounts after them."""
        wanted = self._subscriptions.of_stores(self._connection, self._version, set(map(_store_of, rows)))
        if not wanted and not has_callbacks:
            return
        sequences = sequences_of(rows, states)
        contents = contents_of(rows, sequences, wanted) if wanted else {}
        if has_callbacks:
            by_row = {(row.store_id, row.account_id, row.seq): at for row, at in zip(rows, sequences, strict=True)}
            for ((store_id, _), command), outcome in zip(commands, outcomes, strict=True):
                if command.callback_url is not None and not outcome.dry_run:
                    callback = _callback(store_id, command, command.callback_url, outcome, by_row)
                    contents.setdefault(store_id, Contents()).callbacks.append(callback)
        self._insert(contents)

    def write_refusal(self, store_id: int, command: LaneCommand, refusal: Refusal) -> None:
        """Write the result of a command that leaves no row, if it is to be sent anywhere."""
        if command.callback_url is not None and not command.dry_run:
            callback = _callback(store_id, command, command.callback_url, Outcome(None, refusal=refusal), {})
            self._insert({store_id: Contents(callbacks=[callback])})

    def take_written(self) -> bool:
        """Return whether any row was written since this was last asked. Those of a batch rolled back count too."""
        had_written, self._has_written = self._has_written, False
        return had_written

    def _insert(self, contents: Mapping[int, Contents]) -> None:
        outbox_rows = [
            OutboxRow(
                store_id,
                [row.account_id for row in of_store.rows[start : start + MAX_ROW_DECISIONS]],
                [row.seq for row in of_store.rows[start : start + MAX_ROW_DECISIONS]],
                of_store.sequences[start : start + MAX_ROW_DECISIONS],
                _encode(callbacks) if (callbacks := of_store.callbacks[start : start + MAX_ROW_DECISIONS]) else None,
            )
            for store_id, of_store in contents.items()
            for start in range(0, max(len(of_store.rows), len(of_store.callbacks)), MAX_ROW_DECISIONS)
        ]
        if not outbox_rows:
            return
        self._has_written = True
        with self._connection.cursor() as cursor, cursor.copy(sql.COPY_OUTBOX) as copy:
            copy.write(copy_bytes(outbox_rows))


def decided_rows(outcomes: Iterable[Outcome]) -> list[JournalRow]:
    """Return every row that was decided now, in the order of the decisions, each account's in the order of its seq.

    A transaction lists its entries as its caller does; a reversal makes them in another order.
    """
    rows: list[JournalRow] = []
    for outcome in outcomes:
        if outcome.row is not None and not outcome.replayed and not outcome.dry_run:
            if outcome.further:
                rows += sorted((outcome.row, *outcome.further), key=_seq_of)
            else:
                rows.append(outcome.row)
    return rows


def sequences_of(rows: list[JournalRow], states: Mapping[AccountKey, AccountState]) -> list[int]:
    """Return for each row how many decisions its account had with it, given the accounts after all of them."""
    if min([row.seq for row in rows], default=1) > 0:
        # Nothing but entries, as nearly always: whatever else was decided was decided before.
        return [row.seq + states[row.store_id, row.account_id].decisions for row in rows]
    # Decisions that moved nothing, of each account, at the row that is looked at.
    decisions: dict[AccountKey, int] = {}
    sequences = []
    for row in reversed(rows):
        account = (row.store_id, row.account_id)
        if row.seq < 0:
            decisions[account] = -row.seq - 1
            sequences.append((row.entries_before or 0) - row.seq)
        else:
            sequences.append(row.seq + decisions.get(account, states[account].decisions))
    sequences.reverse()
    return sequences


def contents_of(rows: list[JournalRow], sequences: list[int], wanted: Mapping[int, Wanted]) -> dict[int, Contents]:
    """Return which of these rows each store subscribes to, given how many decisions their accounts had with each."""
    stores = {row.store_id for row in rows}
    contents = {store_id: Contents([], []) for store_id in stores & wanted.keys()}
    if len(stores) == 1 and all(wanted[store_id].everything for store_id in contents):
        return {store_id: Contents(rows, sequences) for store_id in contents}
    for row, sequence in zip(rows, sequences, strict=True):
        of_store = contents.get(row.store_id)
        if of_store is not None and wanted[row.store_id].includes(row):
            of_store.rows.append(row)
            of_store.sequences.append(sequence)
    return contents


def _callback(store_id: int, command: LaneCommand, url: str, outcome: Outcome, by_row: Sequences) -> Callback:
    row, refusal = outcome.row, outcome.refusal
    return Callback(
        url,
        command.idempotency_key,
        command.account_id,
        None if row is None else row.seq,
        None if row is None else by_row.get((store_id, row.account_id, row.seq)),
        None if refusal is None else msgspec.structs.asdict(refusal),
    )
