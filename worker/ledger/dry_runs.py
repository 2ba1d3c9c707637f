"""Dry runs: commands that are decided in their turn, as any other, and leave the batch's state as it was.

What is decided for one is decided against a copy, by the rules of all. A key that is taken answers a dry run as it
answers the command itself. What has ended of an account's holds is released once for all dry runs of it that have no
other command of the account between them, on a copy as well: there may be a thousand. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from ...schemas.accounts import AccountState
from .state import AccountKey, AddressedCommand, BatchState, HoldState, Outcome

#: Decides commands at a moment, before which so many of the batch were decided.
Decide = Callable[[Iterable[AddressedCommand], BatchState, int, int], list[Outcome]]
#: Releases what has ended on the accounts that a command touches.
Release = Callable[[AddressedCommand, BatchState, int], None]


class _Released(NamedTuple):
    """An account of which has been released what had ended, for dry runs."""

    before: AccountState
    after: AccountState
    holds: dict[int, HoldState]


def decide_with_dry_runs(
    commands: Iterable[AddressedCommand], batch: BatchState, now_us: int, decide: Decide, release: Release
) -> list[Outcome]:
    """Decide commands in order, of which some are dry runs; only the others bring the batch's state up to date."""
    outcomes: list[Outcome] = []
    between: list[AddressedCommand] = []
    released: dict[AccountKey, _Released] = {}
    for addressed in commands:
        if not addressed[1].dry_run:
            between.append(addressed)
            continue
        outcomes += decide(between, batch, now_us, len(outcomes))
        between = []
        twin = batch.copied()
        if batch.holders:
            _release(addressed, twin, now_us, released, release)
        (outcome,) = decide([addressed], twin, now_us, len(outcomes))
        outcomes.append(msgspec.structs.replace(outcome, dry_run=True))
    return outcomes + decide(between, batch, now_us, len(outcomes))


def _release(
    addressed: AddressedCommand,
    twin: BatchState,
    now_us: int,
    released: dict[AccountKey, _Released],
    release: Release,
) -> None:
    """Release what has ended, or take it from an earlier dry run where nothing has happened on the account since."""
    for account, known in released.items():
        if twin.accounts.get(account) is known.before:
            twin.accounts[account] = known.after
            twin.holds[account] = known.holds.copy()
    before = {account: twin.accounts[account] for account in twin.holders}
    release(addressed, twin, now_us)
    for account, state in before.items():
        if twin.accounts[account] is not state:
            released[account] = _Released(state, twin.accounts[account], twin.holds[account].copy())
