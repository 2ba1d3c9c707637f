"""One store's fat batch beside another store's debits; `python -m creditlane.benchmarks.fat_batches` in short."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

POSTS, CREDITS = 60, 120
#: Far above what it takes where the cores are free, and far below the ten seconds of a lease.
MOST_MS = 4_000


@pytest.fixture(scope="module")
def found() -> Any:
    command = [sys.executable, "-m", "creditlane.benchmarks.fat_batches", "--json"]
    sizes = [f"--posts={POSTS}", f"--credits={CREDITS}", "--alone-seconds=1"]
    run = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(("name", "commands"), [("posts", POSTS), ("credits", CREDITS)])
def test_a_fat_batch_gets_through_beside_others(found: Any, name: str, commands: int) -> None:
    assert found[name]["commands"] == commands
    assert found[name]["beside_p95_ms"] < MOST_MS
    assert found[name]["worker_memory_mb"] < 200
