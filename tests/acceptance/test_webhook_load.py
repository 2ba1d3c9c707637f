"""Under load, sick endpoints do not keep healthy ones from theirs, and kills lose nothing; `make webhooks` in short."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

EVENTS, STORES = 2_000, 4
HEALTHY = 10


@pytest.fixture(scope="module")
def found() -> Any:
    command = [sys.executable, "-m", "creditlane.benchmarks.webhook_load", "--json", "--hurry"]
    sizes = [f"--events={EVENTS}", f"--stores={STORES}", f"--healthy={HEALTHY}", "--deadline-seconds=80"]
    run = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", ["healthy", "sick", "kills"])
def test_healthy_endpoints_get_all_of_theirs_and_nothing_is_lost(found: Any, name: str) -> None:
    assert found[name]["deliveries"] == EVENTS // STORES * HEALTHY
    assert found[name]["lost"] == 0


def test_without_kills_nothing_is_sent_twice(found: Any) -> None:
    assert (found["healthy"]["repeated"], found["sick"]["repeated"]) == (0, 0)


def test_jobs_receiver_and_redis_were_killed_meanwhile(found: Any) -> None:
    assert found["kills"]["kills"] == 6


def test_sick_endpoints_do_not_hold_up_the_healthy(found: Any) -> None:
    """Given five endpoints that hang, for ten seconds a request, then the others do not wait for even one of them."""
    assert found["sick"]["seconds"] < found["healthy"]["seconds"] + 9
