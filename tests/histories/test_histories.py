"""Histories of real processes, with several sorts of clients, keep every guarantee: undisturbed, and with faults.

`make faults MINUTES=60 SEED=7` makes one of that length with faults. The seed decides the commands and the faults, and
not how the processes run beside each other.
"""

import os
from pathlib import Path

import pytest

from .run import Options, Report, run

LONG = os.environ.get("CREDITLANE_TEST_LONG") == "1"
SECONDS = 300.0 if LONG else 40.0
SEEDS = range(1, 4) if LONG else range(1, 2)
#: Two cores that other tests use too make everything slow at times, in seconds.
MARGIN_SECONDS = 5.0
#: Starting, emptying the lanes and judging come on top, and a busy machine takes its time.
DEADLINE_SECONDS = 3 * SECONDS + 300

pytestmark = pytest.mark.timeout(DEADLINE_SECONDS)


def judged(options: Options, workspace: Path) -> Report:
    name = "faults" if options.faults else "calm"
    return run(options, workspace / f"{name}-{options.seed}", print)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_without_faults_keeps_every_guarantee(seed: int, workspace: Path) -> None:
    report = judged(Options(seconds=SECONDS, seed=seed, faults=False, margin=MARGIN_SECONDS), workspace)
    assert report.is_sound, "\n".join(report.lines())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_with_faults_keeps_every_guarantee(seed: int, workspace: Path) -> None:
    report = judged(Options(seconds=SECONDS, seed=seed, margin=MARGIN_SECONDS), workspace)
    assert report.faults
    assert report.is_sound, "\n".join(report.lines())
