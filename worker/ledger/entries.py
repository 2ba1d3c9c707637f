"""Journal rows and the account after them: how a decision is written down, whatever the rule behind it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.journal import FALLEN_BELOW, JournalRow
from ...schemas.kinds import KIND_OF_WORD, NO_SIDE
from .state import Decision


class Keyed(Protocol):
    """What an entry needs to know of the command it comes from."""

    @property
    def account_id(self) -> str: ...
    @property
    def idempotency_key(self) -> str: ...


def move(
    store_id: int,
    command: Keyed,
    state: AccountState,
    now_us: int,
    side: int,
    amount: int,
    reference: str | None,
    *,
    kind: int,
    reversal_of: int | None = None,
    content: str | None = None,
) -> Decision:
    """Record an entry. This is the hot path: structs are built by position."""
    balance = state.balance + side * amount
    limit, features = state.overdraft_limit, state.features
    held = 0
    if features is not None:
        held, content = features.held, _content_of_fall(features.low_balance, state.balance, balance, content)
    if amount <= 0 or balance - held < -limit:
        raise ArithmeticError(
            f"{command.account_id}: {side * amount} on {state.balance}, {held} of it held, breaks the limit {limit}"
        )
    seq = state.entries + 1
    at_us = max(state.latest_at_us, now_us)
    return (
        AccountState(state.status, balance, limit, seq, state.decisions, at_us, features),
        JournalRow(
            store_id,
            command.account_id,
            seq,
            kind,
            side,
            amount,
            balance,
            limit,
            command.idempotency_key,
            reference,
            reversal_of,
            at_us,
            None,
            content,
            None,
            None,
            None,
            held,
        ),
    )


def _content_of_fall(threshold: int | None, before: int, after: int, content: str | None) -> str | None:
    """Return the content with what the entry falls below: whoever sends it may come when another threshold is set."""
    if threshold is None or not before >= threshold > after:
        return content
    return content_with(content, **{FALLEN_BELOW: str(threshold)})


def content_with(content: str | None, **added: str) -> str:
    """Return the content of a row with something added to it."""
    fields = {} if content is None else msgspec.json.decode(content)
    return msgspec.json.encode({**fields, **added}).decode()


def note(
    store_id: int,
    command: LaneCommand,
    state: AccountState,
    now_us: int,
    rejection: str | None = None,
    side: int = NO_SIDE,
    amount: int | None = None,
    reference: str | None = None,
    *,
    content: str | None = None,
) -> Decision:
    """Record a decision that moves nothing: a change of state, or a rejection with what was asked for."""
    decisions = state.decisions + 1
    at_us = max(now_us, state.latest_at_us)
    row = JournalRow(
        store_id=store_id,
        account_id=command.account_id,
        seq=-decisions,
        kind=int(KIND_OF_WORD[command.kind]),
        side=side,
        amount=amount,
        balance_after=state.balance,
        overdraft_limit=state.overdraft_limit,
        idempotency_key=command.idempotency_key,
        reference=reference,
        reversal_of=None,
        created_at_us=at_us,
        rejection=rejection,
        content=content,
        entries_before=state.entries,
        held_after=state.held,
    )
    return msgspec.structs.replace(state, decisions=decisions, latest_at_us=at_us), row
