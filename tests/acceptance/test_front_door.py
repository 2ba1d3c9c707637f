"""What one client without a key does to others; `python -m creditlane.benchmarks.front_door` in short."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(300)

NAMES = ["a header of 40 MiB", "/metrics"]


def test_it_shows_what_others_notice() -> None:
    command = [sys.executable, "-m", "creditlane.benchmarks.front_door", "--json", "--seconds=1"]
    run = subprocess.run([*command, *(f"--only={name}" for name in NAMES)], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert set(found) == {"alone", *NAMES}
    assert all(each["probes"] > 0 and 0 < each["p50_ms"] <= each["max_ms"] for each in found.values())


def test_what_it_does_not_know_is_one_clear_line() -> None:
    command = [sys.executable, "-m", "creditlane.benchmarks.front_door", "--only=nothing"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert "there is no 'nothing'" in run.stderr
