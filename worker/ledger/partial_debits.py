"""The rule of a debit that takes what is available where that is less than it asks for. Pure.

Its row has the amount that was taken; what was asked for stands in the content, by which a replay is known, and from
which what is missing follows.
"""

from __future__ import annotations

from typing import cast

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.commands import Debit
from ...schemas.errors import InsufficientBalance
from ...schemas.kinds import ASKED, DEBIT_SIDE, Kind
from ...schemas.statuses import Status
from .entries import move, note
from .state import OBSTACLES, Decision

_ACTIVE, _DEBIT = int(Status.ACTIVE), int(Kind.DEBIT)


def debit_what_is_there(store_id: int, command: LaneCommand, state: AccountState, now_us: int) -> Decision:
    """Take up to what is asked for. Rejected where nothing is available: an entry moves something."""
    debit = cast("Debit", command)
    amount, reference, content = debit.amount, debit.reference, _content_of(debit)
    if state.status != _ACTIVE or state.available <= 0:
        obstacle = OBSTACLES[state.status] if state.status != _ACTIVE else InsufficientBalance.code
        return note(store_id, command, state, now_us, obstacle, DEBIT_SIDE, amount, reference, content=content)
    taken = min(amount, state.available)
    return move(store_id, command, state, now_us, DEBIT_SIDE, taken, reference, kind=_DEBIT, content=content)


def _content_of(debit: Debit) -> str:
    metadata = {} if debit.metadata is None else {"metadata": debit.metadata}
    return msgspec.json.encode({ASKED: str(debit.amount), **metadata}).decode()
