"""The entries that a transaction wants to make, and what can stand in the way of one."""

from __future__ import annotations

import msgspec

from ...schemas.accounts import AccountState
from ...schemas.errors import MaxBalanceExceeded
from ...schemas.kinds import CREDIT_SIDE, DEBIT_SIDE
from ...schemas.statuses import Status
from .limits import room_below_max
from .state import OBSTACLES

_ACTIVE = int(Status.ACTIVE)


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One entry that a transaction wants to make."""

    account_id: str
    idempotency_key: str
    side: int
    amount: int
    #: Of a reversal: seq of the entry of this account that it undoes.
    reversal_of: int | None = None


class Obstacle(Exception):  # never leaves the deciding of a transaction
    """Why the transaction cannot be made."""

    def __init__(
        self,
        rejection: str,
        leg: Leg | None = None,
        state: AccountState | None = None,
        *,
        reference: str | None = None,
        needed: int | None = None,
        remaining: int | None = None,
    ) -> None:
        super().__init__(rejection)
        self.rejection = rejection
        #: Of the transaction, as far as it is known.
        self.reference = reference
        self.leg = leg
        self.state = state
        #: What the account does not cover: all that the transaction takes from it, or this entry of it.
        self.needed = needed if needed is not None or leg is None else leg.amount
        #: Of a reversal that asked for more: what is left of the original.
        self.remaining = remaining


def judge(leg: Leg, state: AccountState, needed: int, reference: str | None) -> None:
    """Let an entry pass whose account is active and covers what is needed.

    Raises:
        Obstacle: it is not, or does not.
    """
    if state.status != _ACTIVE:
        raise Obstacle(OBSTACLES[state.status], leg, state, reference=reference)
    if leg.side == DEBIT_SIDE and state.available < needed:
        raise Obstacle("insufficient_balance", leg, state, reference=reference, needed=needed)
    # A reversal gives back what was taken, also above the maximum.
    if leg.side == CREDIT_SIDE and leg.reversal_of is None and state.features is not None:
        room = room_below_max(state)
        if room is not None and leg.amount > room:
            raise Obstacle(MaxBalanceExceeded.code, leg, state, reference=reference)
