"""The limits of an account: how they are set, and what the maximum balance leaves room for. Pure.

What a debit may take is judged by what is available, of which the credit limit is a part; which entry falls below the
low balance is written down where entries are made, in `entries`.
"""

from __future__ import annotations

from typing import cast

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import NO_FEATURES, AccountState, used_of_limit
from ...schemas.commands import SetLimit
from ...schemas.errors import CreditLimitInUse
from ...schemas.journal import MAX_BALANCE
from ...schemas.statuses import Status
from .entries import content_with, note
from .state import OBSTACLES, BatchState, Decision

_CHANGEABLE = {int(Status.ACTIVE), int(Status.FROZEN)}


def set_limit(store_id: int, command: SetLimit, state: AccountState, _batch: BatchState, now_us: int) -> Decision:
    """Set a limit of the account or take it away; the rule of the kind."""
    lane_command, content = cast("LaneCommand", command), content_of_limit(command)
    if state.status not in _CHANGEABLE:
        return note(store_id, lane_command, state, now_us, OBSTACLES[state.status], content=content)
    if command.limit == "credit_limit" and (command.amount or 0) < used_of_limit(state.balance, state.held):
        return note(store_id, lane_command, state, now_us, CreditLimitInUse.code, content=content)
    return note(store_id, lane_command, _with_limit(state, command), now_us, content=content)


def _with_limit(state: AccountState, command: SetLimit) -> AccountState:
    if command.limit == "credit_limit":
        return msgspec.structs.replace(state, overdraft_limit=command.amount or 0)
    features = msgspec.structs.replace(state.features or NO_FEATURES, **{command.limit: command.amount})
    # Who uses nothing of it any more is on the fast path again.
    return msgspec.structs.replace(state, features=None if features == NO_FEATURES else features)


def content_of_limit(command: SetLimit) -> str:
    """Return what was asked for, as the journal has it: without an amount, the limit is taken away."""
    amount = {} if command.amount is None else {"amount": str(command.amount)}
    return msgspec.json.encode({"limit": command.limit, **amount}).decode()


def room_below_max(state: AccountState) -> int | None:
    """Return what may be credited to the account; None: anything."""
    if state.features is None or state.features.max_balance is None:
        return None
    return max(0, state.features.max_balance - state.balance)


def content_of_full(state: AccountState, content: str | None) -> str:
    """Return the content of a credit that was refused for the maximum, which stands in no column of the row."""
    maximum = None if state.features is None else state.features.max_balance
    return content_with(content, **{MAX_BALANCE: str(maximum)})
