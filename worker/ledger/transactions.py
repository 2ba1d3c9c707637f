"""Transactions of one or several entries: posts and reversals. All entries or none.

A post makes its entries in the order given, and none of them may go below a limit. `reversals` has the rules of those.

Pure, as the rest of the ledger: it brings the batch's accounts up to date and gives the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.commands import Post, Reverse
from ...schemas.errors import MaxBalanceExceeded
from ...schemas.identifiers import Position, position_of
from ...schemas.journal import JournalRow
from ...schemas.kinds import NO_SIDE, SIDE_NAMES, SIDES, Kind
from .entries import move, note
from .legs import Leg, Obstacle, judge
from .limits import room_below_max
from .reversals import count_reversed, judge_whole, legs_of_reversal, order_of_reversal, positions_of
from .state import AccountKey, BatchState

#: By how much an account's latest time may be ahead of the clock, so that a transaction takes it for its own, in
#: microseconds: as far as a clock that is set is set back.
MAX_AHEAD_US = 1_000_000

_REVERSE, _POST = int(Kind.REVERSE), int(Kind.POST)
_REVERSE_WORD, _POST_WORD = Kind.REVERSE.word, Kind.POST.word


def decide_transaction(store_id: int, command: LaneCommand, batch: BatchState, now_us: int) -> list[JournalRow]:
    """Decide a post or a reversal whose key is new. The first row holds the key; on a rejection it is the only one.

    Of a reversal, entries of one account may stand in another order than their numbers.
    """
    account = (store_id, command.account_id)
    moved: dict[AccountKey, AccountState] = {}
    try:
        legs, reference = _legs_of(store_id, command, batch)
        rows = _move_all(store_id, legs, reference, batch, moved, now_us)
    except Obstacle as obstacle:
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
    # What an entry says of itself stays beside what its transaction says.
    rows[0] = msgspec.structs.replace(rows[0], content=_joined(rows[0].content, _content_of(command, rows, None)))
    if batch.has_reversals:
        batch.originals.update({(store_id, Position(row.account_id, row.seq)): row for row in rows})
        count_reversed(store_id, rows, batch)
    return rows


def accounts_of(
    store_id: int, command: LaneCommand, originals: dict[tuple[int, Position], JournalRow]
) -> set[AccountKey]:
    """Return every account that a post or a reversal touches, as far as it is known before the batch."""
    if command.kind == _POST_WORD:
        return {(store_id, entry.account_id) for entry in cast("Post", command).entries}
    position = position_of(cast("Reverse", command).transaction_id)
    first = originals.get((store_id, position)) if position else None
    return {(store_id, position.account_id) for position in positions_of(first)} if first else set()


def _legs_of(store_id: int, command: LaneCommand, batch: BatchState) -> tuple[list[Leg], str | None]:
    if command.kind == _REVERSE_WORD:
        return legs_of_reversal(store_id, command, batch)
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
        raise Obstacle("unbalanced_transaction", reference=post.reference)
    return legs, post.reference


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
    order: Sequence[int] = range(len(legs))
    if is_reversal:
        judge_whole(legs, [batch.accounts[key] for key in keys], reference)
        order = order_of_reversal(legs)
    made: dict[int, JournalRow] = {}
    for index in order:
        leg, key = legs[index], keys[index]
        state = moved.get(key) or batch.accounts[key]
        if not is_reversal:
            judge(leg, state, leg.amount, reference)
        kind = _REVERSE if is_reversal else _POST
        moved[key], made[index] = move(
            store_id, leg, state, at_us, leg.side, leg.amount, reference, kind=kind, reversal_of=leg.reversal_of
        )
    first = made[0]
    named = {"idempotency_key": "", "transaction_account": first.account_id, "transaction_seq": first.seq}
    return [first, *(msgspec.structs.replace(made[index], **named) for index in range(1, len(legs)))]


def _joined(of_entry: str | None, of_transaction: str | None) -> str | None:
    if of_entry is None or of_transaction is None:
        return of_entry or of_transaction
    return msgspec.json.encode({**msgspec.json.decode(of_transaction), **msgspec.json.decode(of_entry)}).decode()


def _content_of(command: LaneCommand, rows: list[JournalRow] | None, obstacle: Obstacle | None) -> str | None:
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
    if command.kind == _REVERSE_WORD and (asked := cast("Reverse", command).amount) is not None:
        content["amount"] = str(asked)
    if obstacle is not None and obstacle.remaining is not None:
        content["remaining"] = str(obstacle.remaining)
    if obstacle is not None and obstacle.leg is not None and obstacle.state is not None:
        content["obstacle"] = {
            "account_id": obstacle.leg.account_id,
            "needed": str(obstacle.needed),
            "available": str(obstacle.state.available),
        }
        if obstacle.rejection == MaxBalanceExceeded.code:
            content["obstacle"]["room"] = str(room_below_max(obstacle.state))
    return msgspec.json.encode(content).decode() if content else None
