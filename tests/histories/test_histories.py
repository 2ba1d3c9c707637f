"""Histories of real processes, each with several kinds of clients, are as the guarantees say: with and without faults.

`make faults MINUTES=60 SEED=7` makes one of that length with faults. The seed decides the commands and the faults, not
how the processes run beside each other.
"""

import os
from pathlib import Path

import pytest

from .run import Options, run

SECONDS = 60.0 * float(os.environ.get("CREDITLANE_TEST_MINUTES", "0.75"))
SEED = int(os.environ.get("CREDITLANE_TEST_SEED", "1"))
#: Starting, emptying the lanes and judging come on top, and a busy machine takes its time.
DEADLINE_SECONDS = 3 * SECONDS + 300

pytestmark = [pytest.mark.timeout(DEADLINE_SECONDS), pytest.mark.xdist_group("histories")]


def test_a_history_without_faults_keeps_every_guarantee(workspace: Path) -> None:
    report = run(Options(seconds=min(SECONDS, 45.0), seed=SEED, faults=False), workspace / "calm", print)
    assert report.is_sound, "\n".join(report.lines())


def test_a_history_with_faults_keeps_every_guarantee(workspace: Path) -> None:
    report = run(Options(seconds=SECONDS, seed=SEED), workspace / "faults", print)
    assert report.faults
    assert report.is_sound, "\n".join(report.lines())
