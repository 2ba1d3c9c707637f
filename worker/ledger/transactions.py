"""Transactions of one or several entries: posts and reversals. All entries or none.

A post makes its entries in the order given, and none of them may go below a limit. A reversal is judged as a whole: it
is made if no account ends below its limit, whatever way the original took. Hence it gives to each account before it
takes from it, so that no balance on the way is below both that before and that after. It lists its entries in the order
of the original, so its first is the one that undoes the original's first, whatever its number on the account.

Pure, as the rest of the ledger: it brings the batch's accounts up to date and gives the rows.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.commands import Post, Reverse, reversal_key
from ...schemas.identifiers import Position, position_of
from ...schemas.journal import JournalRow
from ...schemas.kinds import DEBIT_SIDE, NO_SIDE, SIDE_NAMES, SIDES, SPANNING, Kind
from ...schemas.statuses import Status
from .entries import move, note
from .state import OBSTACLES, AccountKey, BatchState

#: By how much an account's latest time may be ahead of the clock, so that a transaction takes it for its own, in
#: microseconds: as far as a clock that is set is set back.
MAX_AHEAD_US = 1_000_000

_ACTIVE, _REVERSE, _POST = int(Status.ACTIVE), int(Kind.REVERSE), int(Kind.POST)
_REVERSE_WORD, _POST_WORD = Kind.REVERSE.word, Kind.POST.word


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One entry that a transaction wants to make."""

    account_id: str
    idempotency_key: str
    side: int
    amount: int
    #: Of a reversal: seq of the entry of this account that it undoes.
    reversal_of: int | None = None


class _Obstacle(Exception):  # never leaves this module
    """Why the transaction cannot be made."""

    def __init__(
        self,
        rejection: str,
        leg: Leg | None = None,
        state: AccountState | None = None,
        *,
        reference: str | None = None,
        needed: int | None = None,
    ) -> None:
        super().__init__(rejection)
        self.rejection = rejection
        #: Of the transaction, as far as it is known.
        self.reference = reference
        self.leg = leg
        self.state = state
        #: What the account does not cover: all that the transaction takes from it, or this entry of it.
        self.needed = needed if needed is not None or leg is None else leg.amount


def decide_transaction(store_id: int, command: LaneCommand, batch: BatchState, now_us: int) -> list[JournalRow]:
    """Decide a post or a reversal whose key is new. The first row holds the key; on a rejection it is the only one.

    Of a reversal, entries of one account may stand in another order than their numbers.
    """
    account = (store_id, command.account_id)
    moved: dict[AccountKey, AccountState] = {}
    try:
        legs, reference = _legs_of(store_id, command, batch)
        rows = _move_all(store_id, legs, reference, batch, moved, now_us)
    except _Obstacle as obstacle:
        leg = obstacle.leg
        side, amount = (leg.side, leg.amount) if leg and leg.account_id == command.account_id else (NO_SIDE, None)
        state, row = note(
            store_id,
            command,
            batch.accounts[account],
            now_us,
            obstacle.rejection,
            side,
            amount,
            obstacle.reference,
            content=_content_of(command, None, obstacle),
        )
        batch.accounts[account] = state
        return [row]
    batch.accounts.update(moved)
    rows[0] = msgspec.structs.replace(rows[0], content=_content_of(command, rows, None))
    if batch.has_reversals:
        batch.originals.update({(store_id, Position(row.account_id, row.seq)): row for row in rows})
    return rows


def reversal_of(store_id: int, command: LaneCommand, batch: BatchState) -> JournalRow | None:
    """Return the reversal that another attempt has made already of what this command wants to reverse."""
    if command.kind != _REVERSE_WORD:
        return None
    row = batch.known.get((store_id, reversal_key(command.idempotency_key)))
    return row if row is not None and row.account_id == command.account_id else None


def accounts_of(
    store_id: int, command: LaneCommand, originals: dict[tuple[int, Position], JournalRow]
) -> set[AccountKey]:
    """Return every account that a post or a reversal touches, as far as it is known before the batch."""
    if command.kind == _POST_WORD:
        return {(store_id, entry.account_id) for entry in cast("Post", command).entries}
    position = position_of(cast("Reverse", command).transaction_id)
    first = originals.get((store_id, position)) if position else None
    return {(store_id, position.account_id) for position in positions_of(first)} if first else set()


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


def _legs_of(store_id: int, command: LaneCommand, batch: BatchState) -> tuple[list[Leg], str | None]:
    if command.kind == _REVERSE_WORD:
        return _legs_of_reversal(store_id, command, batch)
    post = cast("Post", command)
    legs = [
        Leg(
            entry.account_id,
            command.idempotency_key,
            SIDES[entry.side],
            entry.amount,
        )
        for entry in post.entries
    ]
    if sum(leg.side * leg.amount for leg in legs) != 0:
        raise _Obstacle("unbalanced_transaction", reference=post.reference)
    return legs, post.reference


def _legs_of_reversal(store_id: int, command: LaneCommand, batch: BatchState) -> tuple[list[Leg], str | None]:
    status = batch.accounts[store_id, command.account_id].status
    if status != _ACTIVE:
        raise _Obstacle(OBSTACLES[status])
    position = position_of(cast("Reverse", command).transaction_id)
    first = batch.originals.get((store_id, position)) if position else None
    if first is None or first.account_id != command.account_id or first.transaction_seq is not None:
        raise _Obstacle("transaction_not_found")
    if first.kind == _REVERSE:
        leg = Leg(first.account_id, command.idempotency_key, -first.side, first.amount or 0)
        raise _Obstacle("reversal_not_reversible", leg, reference=first.reference)
    originals = [batch.originals[store_id, position] for position in positions_of(first)]
    key = reversal_key(command.idempotency_key)
    legs = [Leg(entry.account_id, key, -entry.side, entry.amount or 0, reversal_of=entry.seq) for entry in originals]
    return legs, first.reference


def _move_all(
    store_id: int,
    legs: list[Leg],
    reference: str | None,
    batch: BatchState,
    moved: dict[AccountKey, AccountState],
    now_us: int,
) -> list[JournalRow]:
    """Return the rows of all legs, and put the accounts after them into `moved`; nothing else is changed."""
    keys = [(store_id, leg.account_id) for leg in legs]
    # One moment for all of them, and no account's time goes back. An account that a wrong clock has left in the future
    # keeps its own time, and does not hand it on to the others.
    latest = [batch.accounts[key].latest_at_us for key in keys]
    at_us = max([now_us, *(at for at in latest if at <= now_us + MAX_AHEAD_US)])
    is_reversal = legs[0].reversal_of is not None
    order = list(range(len(legs)))
    if is_reversal:
        _judge_whole(legs, [batch.accounts[key] for key in keys], reference)
        order.sort(key=lambda index: legs[index].side == DEBIT_SIDE)
    made: dict[int, JournalRow] = {}
    for index in order:
        leg, key = legs[index], keys[index]
        state = moved.get(key) or batch.accounts[key]
        if not is_reversal:
            _judge(leg, state, leg.amount, reference)
        kind = _REVERSE if is_reversal else _POST
        moved[key], made[index] = move(
            store_id, leg, state, at_us, leg.side, leg.amount, reference, kind=kind, reversal_of=leg.reversal_of
        )
    first = made[0]
    named = {"idempotency_key": "", "transaction_account": first.account_id, "transaction_seq": first.seq}
    return [first, *(msgspec.structs.replace(made[index], **named) for index in range(1, len(legs)))]


def _judge_whole(legs: list[Leg], states: list[AccountState], reference: str | None) -> None:
    """Let the legs pass if no account ends below its limit, given the account of each before all of them.

    Raises:
        _Obstacle: of the first leg, in the order listed, whose account is not active or would end below its limit.
    """
    taken: dict[str, int] = {}
    for leg in legs:
        taken[leg.account_id] = taken.get(leg.account_id, 0) - leg.side * leg.amount
    for leg, state in zip(legs, states, strict=True):
        _judge(leg, state, taken[leg.account_id], reference)


def _judge(leg: Leg, state: AccountState, needed: int, reference: str | None) -> None:
    if state.status != _ACTIVE:
        raise _Obstacle(OBSTACLES[state.status], leg, state, reference=reference)
    if leg.side == DEBIT_SIDE and state.available < needed:
        raise _Obstacle("insufficient_balance", leg, state, reference=reference, needed=needed)


def _content_of(command: LaneCommand, rows: list[JournalRow] | None, obstacle: _Obstacle | None) -> str | None:
    """Return what the columns of the first row do not hold: all entries, metadata, and what stood in the way."""
    content: dict[str, Any] = {}
    if command.kind == _POST_WORD:
        post = cast("Post", command)
        entries = [{"account_id": e.account_id, "side": e.side, "amount": str(e.amount)} for e in post.entries]
        content = {"reference": post.reference, "entries": entries, "metadata": post.metadata}
    elif rows is not None and len(rows) > 1:
        content["entries"] = [
            {"account_id": row.account_id, "side": SIDE_NAMES[row.side], "amount": str(row.amount)} for row in rows
        ]
    if rows is not None and len(rows) > 1:
        content["entries"] = [{**entry, "seq": row.seq} for entry, row in zip(content["entries"], rows, strict=True)]
    if obstacle is not None and obstacle.leg is not None and obstacle.state is not None:
        content["obstacle"] = {
            "account_id": obstacle.leg.account_id,
            "needed": str(obstacle.needed),
            "available": str(obstacle.state.available),
        }
    return msgspec.json.encode(content).decode() if content else None
