"""Dry runs: commands that are decided in their turn, as any other, and leave the batch's state as it was.

What is decided for one is decided against a copy, by the rules of all. A key that is taken answers a dry run as it
answers the command itself. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from .state import AddressedCommand, BatchState, Outcome

#: Decides commands at a moment, before which so many of the batch were decided.
Decide = Callable[[Iterable[AddressedCommand], BatchState, int, int], list[Outcome]]


def decide_with_dry_runs(
    commands: Iterable[AddressedCommand], batch: BatchState, now_us: int, decide: Decide
) -> list[Outcome]:
    """Decide commands in order, of which some are dry runs; only the others bring the batch's state up to date."""
    outcomes: list[Outcome] = []
    between: list[AddressedCommand] = []
    for addressed in commands:
        if not addressed[1].dry_run:
            between.append(addressed)
            continue
        outcomes += decide(between, batch, now_us, len(outcomes))
        between = []
        (outcome,) = decide([addressed], batch.copied(), now_us, len(outcomes))
        outcomes.append(msgspec.structs.replace(outcome, dry_run=True))
    return outcomes + decide(between, batch, now_us, len(outcomes))
