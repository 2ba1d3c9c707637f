"""Holds as the store has them: those that a batch names or that have ended, read and written as sets.

A batch without them pays nothing: nothing is asked of Postgres unless a command names a hold, or one of the accounts
has open ones that may have ended. All of it is read under the locks of the lanes, so nobody changes it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec
import psycopg

from ...schemas.accounts import AccountState
from ...schemas.commands import Capture
from ...schemas.identifiers import ACCOUNT_PREFIX, hold_position_of
from ...schemas.journal import JournalRow
from ...schemas.kinds import Kind
from ...schemas.results import moment_of
from ..ledger.state import AccountKey, AddressedCommand, BatchState, HoldState, Outcome
from ..ledger.transactions import MAX_AHEAD_US
from . import sql
from .outbox import decided_rows

#: Most holds that end before one batch.
MAX_ENDING = 10_000
#: The commands that name a hold.
NAMING_WORDS = frozenset(kind.word for kind in (Kind.CAPTURE, Kind.VOID, Kind.EXTEND))

Connection = psycopg.Connection[tuple[Any, ...]]
_features_of = attrgetter("features")


def count_open_holds(connection: Connection, states: dict[AccountKey, AccountState]) -> None:
    """Add to accounts that have just been read how many holds are open, where anything is held, and when one ends."""
    holders = [account for account, state in states.items() if state.held]
    if not holders:
        return
    for store_id, account_id, count, earliest_us in connection.execute(sql.COUNT_OPEN_HOLDS, _columns(holders)):
        account = store_id, ACCOUNT_PREFIX + account_id.hex
        features = states[account].features
        if features is not None:
            features = msgspec.structs.replace(features, open_holds=count, earliest_end_us=earliest_us)
            states[account] = msgspec.structs.replace(states[account], features=features)


def load_holds(
    connection: Connection,
    commands: Sequence[AddressedCommand],
    kinds: Iterable[str],
    batch: BatchState,
    now_us: int,
) -> bool:
    """Bring the holds into the batch's state that these commands name, and those that end before they are decided.

    Returns False if more have ended than one transaction releases for several commands; then nothing is decided.
    """
    accounts = batch.accounts
    if not NAMING_WORDS.isdisjoint(kinds):
        _load_named(connection, commands, batch)
    if list(map(_features_of, accounts.values())).count(None) == len(accounts):
        return True
    # A transaction of several accounts may bring one of them to the time of another, which is that much ahead at most.
    horizons: dict[AccountKey, int] = {}
    for account, state in accounts.items():
        features = state.features
        if features is None or features.earliest_end_us is None:
            continue
        batch.holders.add(account)
        horizon_us = max(now_us, state.latest_at_us) + MAX_AHEAD_US
        if features.earliest_end_us <= horizon_us and account not in batch.next_ends:
            horizons[account] = horizon_us
    return not horizons or _load_ending(connection, horizons, batch, limit=MAX_ENDING if len(commands) > 1 else None)


def write_holds(connection: Connection, batch: BatchState) -> bool:
    """Store what has become of the batch's holds. Returns False if one was no longer open, and nothing may be kept."""
    made, changed = sorted(batch.holds_made), sorted(batch.holds_changed - batch.holds_made)
    batch.holds_made.clear()
    batch.holds_changed.clear()
    if made:
        connection.execute(sql.INSERT_HOLDS, _values(made, batch))
    return not changed or connection.execute(sql.CHANGE_HOLDS, _values(changed, batch)).rowcount == len(changed)


def rows_with_ends(outcomes: Sequence[Outcome], expired: list[tuple[int, JournalRow]]) -> list[JournalRow]:
    """Return every row that was decided now, in the order of the decisions, and take those of ends off the list."""
    rows: list[JournalRow] = []
    decided = 0
    for index, row in expired:
        rows += decided_rows(outcomes[decided:index])
        rows.append(row)
        decided = index
    expired.clear()
    return rows + decided_rows(outcomes[decided:])


def _load_named(connection: Connection, commands: Sequence[AddressedCommand], batch: BatchState) -> None:
    named = {
        ((account[0], position.account_id), position.seq)
        for account, command in commands
        if command.kind in NAMING_WORDS
        # A void or an extension has the field as well.
        and (position := hold_position_of(cast("Capture", command).hold_id)) is not None
    }
    wanted = [(account, number) for account, number in named if number not in batch.holds.get(account, {})]
    if not wanted:
        return
    columns = {**_columns([account for account, _ in wanted]), "seqs": [number for _, number in wanted]}
    _keep(connection.execute(sql.LOAD_HOLDS, columns), batch)


def _load_ending(
    connection: Connection, horizons: Mapping[AccountKey, int], batch: BatchState, *, limit: int | None
) -> bool:
    columns = {**_columns(horizons), "horizons": [moment_of(horizon_us) for horizon_us in horizons.values()]}
    most = None if limit is None else limit + 1
    records = connection.execute(sql.LOAD_ENDING_HOLDS, {**columns, "most": most}).fetchall()
    if limit is not None and len(records) > limit:
        return False
    _keep(records, batch)
    for store_id, account_id, next_end_us in connection.execute(sql.READ_NEXT_ENDS, columns):
        batch.next_ends[store_id, ACCOUNT_PREFIX + account_id.hex] = next_end_us
    return True


def _keep(records: Iterable[tuple[Any, ...]], batch: BatchState) -> None:
    """Put holds into the batch's state that it has not yet: it may have brought them further than Postgres."""
    for store_id, account_id, seq, status, amount, captured, remaining, reference, created, expires, ended in records:
        of_account = batch.holds.setdefault((store_id, ACCOUNT_PREFIX + account_id.hex), {})
        found = HoldState(status, int(amount), int(captured), int(remaining), reference, created, expires, ended)
        of_account.setdefault(seq, found)


def _values(holds: Sequence[tuple[AccountKey, int]], batch: BatchState) -> dict[str, Any]:
    """Return the holds as the arrays of `sql.INSERT_HOLDS` and `sql.CHANGE_HOLDS`."""
    states = [batch.holds[account][number] for account, number in holds]
    return {
        **_columns([account for account, _ in holds]),
        "seqs": [number for _, number in holds],
        "statuses": [state.status for state in states],
        "amounts": [str(state.amount) for state in states],
        "captured": [str(state.captured) for state in states],
        "remaining": [str(state.remaining) for state in states],
        "references": [state.reference for state in states],
        "created": [moment_of(state.created_at_us) for state in states],
        "expires": [moment_of(state.expires_at_us) for state in states],
        "ended": [None if state.ended_at_us is None else moment_of(state.ended_at_us) for state in states],
    }


def _columns(accounts: Iterable[AccountKey]) -> dict[str, Any]:
    keys = list(accounts)
    return {"stores": [store_id for store_id, _ in keys], "accounts": [account_id[4:] for _, account_id in keys]}
