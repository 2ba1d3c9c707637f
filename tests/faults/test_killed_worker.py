"""A worker is killed between any two steps of a batch, and the next one takes over: nothing is lost or done twice."""

import random
import signal

import pytest

from creditlane.schemas.settings import Settings

from .extent import BACKLOG, BATCH_LIMIT, SEEDS
from .history import History
from .producing import Producer
from .worker_processes import Failpoint, StartWorker

STEPS = ("read", "write", "copy", "commit", "announce", "delete")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", STEPS)
def test_every_command_has_one_effect_and_one_result_after_a_kill_at(
    step: str, seed: int, settings: Settings, start_worker: StartWorker
) -> None:
    # Given lanes with a backlog, and a producer that goes on writing
    settings = settings.model_copy(update={"lease_seconds": 1.0, "batch_limit": BATCH_LIMIT})
    producer = Producer(settings, seed=seed)
    producer.open_accounts()
    producer.write(BACKLOG)
    nth = random.Random(seed).randint(1, 4)
    with producer:
        # When one worker kills itself at the step and another takes over
        first = start_worker(settings, Failpoint("kill", step, nth))
        assert first.wait_for_exit() == -signal.SIGKILL
        second = start_worker(settings)
        second.wait_for_log("partitions changed", owned=producer.partitions)
        producer.wait_for_more(100)
    # Then
    History(settings).check(producer)
    assert not second.has_ended


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chain_of_workers_each_killed_at_another_step(
    seed: int, settings: Settings, start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"lease_seconds": 0.5, "batch_limit": BATCH_LIMIT})
    producer = Producer(settings, seed=seed + 1_000)
    producer.open_accounts()
    producer.write(BACKLOG)
    steps = random.Random(seed).sample(STEPS, 3)
    for step in steps:
        worker = start_worker(settings, Failpoint("kill", step, 1))
        assert worker.wait_for_exit() == -signal.SIGKILL
    start_worker(settings)
    History(settings).check(producer)
