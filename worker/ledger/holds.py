"""The rules of holds: what one sets aside, what becomes of that, and that it ends by itself.

A hold is open until it is used up by captures, voided, or expired, and then never changes. What it sets aside is part
of what its account holds, so each rule moves both together. The moment that decides is that of the row: the batch's
clock, or the latest moment of the account where that is later, since time never goes back along an account. What has
ended by then is released before anything else is decided there, each by a row of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, ClassVar, cast

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import NO_FEATURES, AccountState
from ...schemas.commands import (
    DEFAULT_HOLD_SECONDS,
    EXPIRY_KEY_PREFIX,
    MAX_HOLD_SECONDS,
    MAX_OPEN_HOLDS,
    Capture,
    Extend,
    Hold,
    Void,
)
from ...schemas.errors import (
    CaptureExceedsHold,
    ExpiresAtOutOfRange,
    HoldCaptured,
    HoldExpired,
    HoldNotFound,
    HoldVoided,
    InsufficientBalance,
    TooManyHolds,
)
from ...schemas.identifiers import HOLD_PREFIX, hold_id, hold_position_of
from ...schemas.kinds import DEBIT_SIDE, Kind
from ...schemas.results import microseconds_of, moment_of
from ...schemas.statuses import HoldStatus, Status
from .entries import move, note
from .state import OBSTACLES, AccountKey, BatchState, Decision, HoldState

_SECOND_US = 1_000_000
_ACTIVE, _FROZEN = int(Status.ACTIVE), int(Status.FROZEN)
_OPEN = int(HoldStatus.OPEN)
#: Why nothing can be done with a hold of this status.
ENDED: dict[int, str] = {
    int(HoldStatus.CAPTURED): HoldCaptured.code,
    int(HoldStatus.VOIDED): HoldVoided.code,
    int(HoldStatus.EXPIRED): HoldExpired.code,
}


class Refused(Exception):  # never leaves this module
    """Why a command on a hold cannot be done, and what of it is said in the row."""

    def __init__(self, rejection: str, **said: Any) -> None:
        super().__init__(rejection)
        self.rejection = rejection
        self.said = said


class _End(msgspec.Struct, frozen=True):
    """The end of a hold, as `note` takes it for a command."""

    account_id: str
    idempotency_key: str
    kind: ClassVar[str] = Kind.EXPIRY.word


def hold(store_id: int, command: LaneCommand, state: AccountState, batch: BatchState, now_us: int) -> Decision:
    """Set an amount aside."""
    asked = cast("Hold", command)
    at_us = max(now_us, state.latest_at_us)
    content: dict[str, Any] = _end_asked(asked)
    if asked.metadata is not None:
        content["metadata"] = asked.metadata
    try:
        end_us = _judge_hold(asked, state, at_us)
    except Refused as refused:
        rejection = refused.rejection
        return note(
            store_id,
            command,
            state,
            now_us,
            rejection,
            amount=asked.amount,
            reference=asked.reference,
            content=_encoded(content),
        )
    content["ends_at"] = _moment_text(end_us)
    after = set_aside(state, asked.amount, opened=1, end_us=end_us)
    after, row = note(
        store_id, command, after, now_us, amount=asked.amount, reference=asked.reference, content=_encoded(content)
    )
    made = HoldState(_OPEN, asked.amount, 0, asked.amount, asked.reference, at_us, end_us)
    account = (store_id, command.account_id)
    batch.holds.setdefault(account, {})[-row.seq] = made
    batch.holds_made.add((account, -row.seq))
    batch.holders.add(account)
    return after, row


def capture(store_id: int, command: LaneCommand, state: AccountState, batch: BatchState, now_us: int) -> Decision:
    """Debit what a hold has set aside."""
    asked = cast("Capture", command)
    content = {name: getattr(asked, name) for name in ("hold_id", "final", "allow_overage")}
    content |= {name: value for name in ("reference", "metadata") if (value := getattr(asked, name)) is not None}
    if asked.amount is not None:
        content["amount"] = str(asked.amount)
    amount, reference = asked.amount, asked.reference
    try:
        found = _open_hold(store_id, asked, state, batch, {_ACTIVE})
        amount, reference = asked.amount or found.remaining, asked.reference or found.reference
        _judge_amount(asked, amount, found, state)
    except Refused as refused:
        content |= refused.said
        encoded = _encoded(content)
        return note(store_id, command, state, now_us, refused.rejection, DEBIT_SIDE, amount, reference, content=encoded)
    at_us = max(now_us, state.latest_at_us)
    captured = take(found, amount, at_us, final=asked.final)
    released = found.remaining - captured.remaining
    content |= {"released": str(released), "remaining": str(captured.remaining)}
    after = set_aside(state, -released, opened=0 if captured.status == _OPEN else -1)
    _change(store_id, asked, batch, captured)
    return move(
        store_id,
        command,
        after,
        now_us,
        DEBIT_SIDE,
        amount,
        reference,
        kind=int(Kind.CAPTURE),
        content=_encoded(content),
    )


def void(store_id: int, command: LaneCommand, state: AccountState, batch: BatchState, now_us: int) -> Decision:
    """Release what is left of a hold; on a frozen account as well, since it only gives back."""
    asked = cast("Void", command)
    content = _encoded({"hold_id": asked.hold_id})
    try:
        found = _open_hold(store_id, asked, state, batch, {_ACTIVE, _FROZEN})
    except Refused as refused:
        return note(store_id, command, state, now_us, refused.rejection, content=content)
    _change(store_id, asked, batch, end(found, HoldStatus.VOIDED, max(now_us, state.latest_at_us)))
    after = set_aside(state, -found.remaining, opened=-1)
    return note(store_id, command, after, now_us, amount=found.remaining, reference=found.reference, content=content)


def extend(store_id: int, command: LaneCommand, state: AccountState, batch: BatchState, now_us: int) -> Decision:
    """Move the end of a hold."""
    asked = cast("Extend", command)
    content: dict[str, Any] = {"hold_id": asked.hold_id, **_end_asked(asked)}
    try:
        found = _open_hold(store_id, asked, state, batch, {_ACTIVE})
        end_us = _end_of(asked, max(now_us, state.latest_at_us))
    except Refused as refused:
        return note(store_id, command, state, now_us, refused.rejection, content=_encoded(content))
    content["ends_at"] = _moment_text(end_us)
    _change(store_id, asked, batch, msgspec.structs.replace(found, expires_at_us=end_us))
    after = set_aside(state, 0, end_us=end_us)
    return note(store_id, command, after, now_us, reference=found.reference, content=_encoded(content))


def release_ended(account: AccountKey, batch: BatchState, now_us: int, outcome: int) -> None:
    """Release what has ended on the account before it is decided for this outcome, in the order in which it ended."""
    state = batch.accounts[account]
    at_us = max(now_us, state.latest_at_us)
    if state.features is None or state.features.earliest_end_us is None or state.features.earliest_end_us > at_us:
        return
    store_id, account_id = account
    holds = batch.holds.get(account, {})
    opened = {number: found for number, found in holds.items() if found.status == _OPEN}
    due = sorted((found.expires_at_us, number) for number, found in opened.items() if found.expires_at_us <= at_us)
    for end_us, number in due:
        found = opened.pop(number)
        identifier = hold_id(account_id, number)
        state, row = note(
            store_id,
            cast("LaneCommand", _End(account_id, expiry_key(identifier))),
            set_aside(state, -found.remaining, opened=-1),
            now_us,
            amount=found.remaining,
            reference=found.reference,
            content=_encoded({"hold_id": identifier}),
        )
        holds[number] = end(found, HoldStatus.EXPIRED, end_us)
        batch.holds_changed.add((account, number))
        batch.expired.append((outcome, row))
    batch.accounts[account] = _ending(state, opened.values(), batch.next_ends.get(account), at_us)


def expiry_key(identifier: str) -> str:
    """Return the key of the row that says of this hold that it has expired."""
    return EXPIRY_KEY_PREFIX + identifier.removeprefix(HOLD_PREFIX)


def take(found: HoldState, amount: int, at_us: int, *, final: bool) -> HoldState:
    """Return an open hold after a capture of so much. Nothing is left of it after a final one."""
    captured, left = found.captured + amount, max(0, found.remaining - amount)
    if final or left == 0:
        ended = msgspec.structs.replace(found, captured=captured)
        return end(ended, HoldStatus.CAPTURED, at_us)
    return msgspec.structs.replace(found, captured=captured, remaining=left)


def end(found: HoldState, status: HoldStatus, at_us: int) -> HoldState:
    """Return an open hold as it ends.

    Raises:
        ArithmeticError: it has ended already.
    """
    if found.status != _OPEN:
        raise ArithmeticError(f"a hold of status {found.status} cannot become {status:d}")
    return msgspec.structs.replace(found, status=int(status), remaining=0, ended_at_us=at_us)


def set_aside(state: AccountState, amount: int, *, opened: int = 0, end_us: int | None = None) -> AccountState:
    """Return the account with so much more held, in so many more holds, one of which ends at this moment."""
    features = state.features or NO_FEATURES
    held, open_holds = features.held + amount, features.open_holds + opened
    if held < 0 or open_holds < 0 or (held > 0) != (open_holds > 0):
        raise ArithmeticError(f"{held} would be held by {open_holds} holds")
    earliest = features.earliest_end_us
    if end_us is not None:
        earliest = end_us if earliest is None else min(earliest, end_us)
    changed = msgspec.structs.replace(
        features, held=held, open_holds=open_holds, earliest_end_us=earliest if open_holds else None
    )
    return msgspec.structs.replace(state, features=None if changed == NO_FEATURES else changed)


def _ending(state: AccountState, opened: Collection[HoldState], next_end_us: int | None, at_us: int) -> AccountState:
    """Return the account with a new bound for when the first of its open holds ends, of which only some are known."""
    features = state.features
    if features is None or not features.open_holds:
        return state
    ends = [found.expires_at_us for found in opened]
    if len(opened) < features.open_holds:
        # All that have ended are known, so the others end later.
        ends.append(at_us + 1 if next_end_us is None else next_end_us)
    return msgspec.structs.replace(state, features=msgspec.structs.replace(features, earliest_end_us=min(ends)))


def _open_hold(
    store_id: int, asked: Capture | Void | Extend, state: AccountState, batch: BatchState, statuses: set[int]
) -> HoldState:
    """Return the hold, if it is open and its account has one of the statuses.

    Raises:
        Refused: one of both is not so.
    """
    if state.status not in statuses:
        raise Refused(OBSTACLES[state.status])
    position = hold_position_of(asked.hold_id)
    found = batch.holds.get((store_id, position.account_id), {}).get(position.seq) if position else None
    if found is None:
        raise Refused(HoldNotFound.code)
    if found.status != _OPEN:
        raise Refused(ENDED[found.status])
    return found


def _judge_hold(asked: Hold, state: AccountState, at_us: int) -> int:
    """Return when the hold ends, if it can be made now.

    Raises:
        Refused: it cannot.
    """
    if state.status != _ACTIVE:
        raise Refused(OBSTACLES[state.status])
    end_us = _end_of(asked, at_us)
    if state.available < asked.amount:
        raise Refused(InsufficientBalance.code)
    if state.features is not None and state.features.open_holds >= MAX_OPEN_HOLDS:
        raise Refused(TooManyHolds.code)
    return end_us


def _judge_amount(asked: Capture, amount: int, found: HoldState, state: AccountState) -> None:
    overage = amount - found.remaining
    if overage > 0 and not asked.allow_overage:
        raise Refused(CaptureExceedsHold.code, remaining=str(found.remaining))
    if overage > state.available:
        obstacle = {"account_id": asked.account_id, "needed": str(overage), "available": str(state.available)}
        raise Refused(InsufficientBalance.code, obstacle=obstacle)


def _change(store_id: int, asked: Capture | Void | Extend, batch: BatchState, changed: HoldState) -> None:
    position = hold_position_of(asked.hold_id)
    if position is not None:
        account = (store_id, position.account_id)
        batch.holds[account][position.seq] = changed
        batch.holds_changed.add((account, position.seq))


def _end_of(asked: Hold | Extend, at_us: int) -> int:
    if asked.expires_at is None:
        seconds = DEFAULT_HOLD_SECONDS if asked.expires_in_seconds is None else asked.expires_in_seconds
        return at_us + seconds * _SECOND_US
    end_us = microseconds_of(asked.expires_at)
    if not at_us < end_us <= at_us + MAX_HOLD_SECONDS * _SECOND_US:
        raise Refused(ExpiresAtOutOfRange.code)
    return end_us


def _end_asked(asked: Hold | Extend) -> dict[str, Any]:
    if asked.expires_at is not None:
        return {"expires_at": asked.expires_at.isoformat()}
    return {} if asked.expires_in_seconds is None else {"expires_in_seconds": asked.expires_in_seconds}


def _moment_text(at_us: int) -> str:
    moment: datetime = moment_of(at_us)
    return moment.isoformat()


def _encoded(content: dict[str, Any]) -> str | None:
    return msgspec.json.encode(content).decode() if content else None
