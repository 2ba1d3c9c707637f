"""The rules of reversals: what one undoes, in which order, and that no more is reversed than there was.

A reversal is judged as a whole: it is made if no account ends below its limit, whatever way the original took. Hence it
gives to each account before it takes from it, so that no balance on the way is below both that before and that after.
It lists its entries in the order of the original, so its first is the one that undoes the original's first, whatever
its number on the account. A transaction of one entry may be reversed in parts; a whole reversal undoes what they have
left. Of one of several entries no rule says how a part would be shared out, so there is none. How its entries are
made is that of every transaction: `transactions`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.commands import Reverse, reversal_key
from ...schemas.identifiers import Position, position_of
from ...schemas.journal import JournalRow
from ...schemas.kinds import DEBIT_SIDE, SPANNING, Kind
from ...schemas.statuses import Status
from .legs import Leg, Obstacle, judge
from .state import OBSTACLES, BatchState

_ACTIVE, _REVERSE = int(Status.ACTIVE), int(Kind.REVERSE)
_REVERSE_WORD = Kind.REVERSE.word


def reversal_of(store_id: int, command: LaneCommand, batch: BatchState) -> JournalRow | None:
    """Return the reversal that another attempt has made already of the whole that this command wants to reverse."""
    if command.kind != _REVERSE_WORD or cast("Reverse", command).amount is not None:
        return None
    row = batch.known.get((store_id, reversal_key(command.idempotency_key)))
    return row if row is not None and row.account_id == command.account_id else None


def positions_of(first: JournalRow) -> list[Position]:
    """Return where all the entries of the transaction are whose first entry this is, in its order."""
    if first.content is None or first.kind not in SPANNING:
        return [Position(first.account_id, first.seq)]
    entries = msgspec.json.decode(first.content).get("entries")
    return (
        [Position(entry["account_id"], entry["seq"]) for entry in entries]
        if entries
        else [Position(first.account_id, first.seq)]
    )


def legs_of_reversal(store_id: int, command: LaneCommand, batch: BatchState) -> tuple[list[Leg], str | None]:
    """Return the entries that undo the transaction, in its order, and its reference.

    Raises:
        Obstacle: the account is not active, there is no such transaction on it, it is a reversal itself, or less of it
            is left than is to be undone.
    """
    status = batch.accounts[store_id, command.account_id].status
    if status != _ACTIVE:
        raise Obstacle(OBSTACLES[status])
    reverse = cast("Reverse", command)
    position = position_of(reverse.transaction_id)
    first = batch.originals.get((store_id, position)) if position else None
    if first is None or first.account_id != command.account_id or first.transaction_seq is not None:
        raise Obstacle("transaction_not_found")
    wanted = Leg(first.account_id, command.idempotency_key, -first.side, reverse.amount or first.amount or 0)
    if first.kind == _REVERSE:
        raise Obstacle("reversal_not_reversible", wanted, reference=first.reference)
    originals = [batch.originals[store_id, position] for position in positions_of(first)]
    if len(originals) == 1:
        return [_leg_of_one(store_id, reverse, first, wanted, batch)], first.reference
    if reverse.amount is not None:
        raise Obstacle("reversal_not_divisible", wanted, reference=first.reference)
    key = reversal_key(command.idempotency_key)
    legs = [Leg(entry.account_id, key, -entry.side, entry.amount or 0, reversal_of=entry.seq) for entry in originals]
    return legs, first.reference


def _leg_of_one(store_id: int, reverse: Reverse, original: JournalRow, wanted: Leg, batch: BatchState) -> Leg:
    """Return the entry that undoes all that is left of this one, or so much of it as was asked for."""
    undone = batch.reversed.get((store_id, Position(original.account_id, original.seq)), 0)
    remaining = (original.amount or 0) - undone
    is_whole = reverse.amount is None
    if remaining <= 0:
        raise Obstacle("already_reversed", None if is_whole else wanted, reference=original.reference)
    if not is_whole and wanted.amount > remaining:
        raise Obstacle("reversal_exceeds_original", wanted, reference=original.reference, remaining=remaining)
    return Leg(
        wanted.account_id,
        reversal_key(wanted.idempotency_key) if is_whole else wanted.idempotency_key,
        wanted.side,
        remaining if is_whole else wanted.amount,
        reversal_of=original.seq,
    )


def count_reversed(store_id: int, rows: Sequence[JournalRow], batch: BatchState) -> None:
    """Take down how much of each entry these entries of a reversal have undone."""
    for row in rows:
        if row.reversal_of is not None:
            key = store_id, Position(row.account_id, row.reversal_of)
            batch.reversed[key] = batch.reversed.get(key, 0) + (row.amount or 0)


def order_of_reversal(legs: Sequence[Leg]) -> list[int]:
    """Return in which order the entries of a reversal are made: those that give before those that take."""
    return sorted(range(len(legs)), key=lambda index: legs[index].side == DEBIT_SIDE)


def judge_whole(legs: list[Leg], states: list[AccountState], reference: str | None) -> None:
    """Let the legs pass if no account ends below its limit, given the account of each before all of them.

    Raises:
        Obstacle: of the first leg, in the order listed, whose account is not active or would end below its limit.
    """
    taken: dict[str, int] = {}
    for leg in legs:
        taken[leg.account_id] = taken.get(leg.account_id, 0) - leg.side * leg.amount
    for leg, state in zip(legs, states, strict=True):
        judge(leg, state, taken[leg.account_id], reference)
