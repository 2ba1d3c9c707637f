"""Dry runs: commands that are decided in their turn, as any other, and leave the batch's state as it was.

What is decided for one is decided against a copy, by the rules of all. A key that is taken answers a dry run as it
answers the command itself. Holds that have ended are released once for all dry runs between two other commands, also on
a copy: there may be ten thousand on an account. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from .state import AddressedCommand, BatchState, Outcome

#: Decides commands at a moment, before which so many of the batch were decided.
Decide = Callable[[Iterable[AddressedCommand], BatchState, int, int], list[Outcome]]
#: Releases what has ended on the accounts that a command touches.
Release = Callable[[AddressedCommand, BatchState, int], None]


def decide_with_dry_runs(
    commands: Iterable[AddressedCommand], batch: BatchState, now_us: int, decide: Decide, release: Release
) -> list[Outcome]:
    """Decide commands in order, of which some are dry runs; only the others bring the batch's state up to date."""
    outcomes: list[Outcome] = []
    between: list[AddressedCommand] = []
    released: BatchState | None = None
    for addressed in commands:
        if not addressed[1].dry_run:
            between.append(addressed)
            continue
        if between:
            outcomes += decide(between, batch, now_us, len(outcomes))
            between, released = [], None
        base = batch
        if batch.holders:
            base = released = released or batch.copied()
            release(addressed, released, now_us)
        (outcome,) = decide([addressed], base.copied(), now_us, len(outcomes))
        outcomes.append(msgspec.structs.replace(outcome, dry_run=True))
    return outcomes + decide(between, batch, now_us, len(outcomes))
