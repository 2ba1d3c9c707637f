"""A worker is stopped past its lease and continued: what it had begun is fenced off, and it takes part again."""

import signal
from collections.abc import Callable

import psycopg
import pytest
import redis

from creditlane.lanes.keys import Keys
from creditlane.schemas.settings import Settings

from .extent import BACKLOG, BATCH_LIMIT, SEEDS
from .history import History
from .producing import Producer
from .worker_processes import NO_FAILPOINT, Failpoint, StartWorker

LEASES_LOST = "leases lost, dropping what was read under them"


@pytest.fixture
def paused_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_seconds": 1.0, "batch_limit": BATCH_LIMIT})


@pytest.fixture
def lane_state(settings: Settings) -> Callable[[], dict[int, tuple[list[bytes], int]]]:
    """Reads the ids that stand on every lane, and its fence."""
    keys = Keys(settings.redis_prefix)

    def read() -> dict[int, tuple[list[bytes], int]]:
        with redis.Redis.from_url(settings.require_redis_url()) as client:
            return {
                partition: (
                    [entry for entry, _ in client.xrange(keys.lane(partition))],
                    int(client.get(keys.fence(partition)) or 0),
                )
                for partition in range(settings.partitions or 0)
            }

    return read


def epochs_of(settings: Settings) -> dict[int, int]:
    with psycopg.connect(settings.require_database_url()) as connection:
        return dict(connection.execute("select partition, epoch from leases").fetchall())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", ["read", "write", "copy"])
def test_a_batch_begun_before_the_pause_is_not_committed_after_it(
    step: str, seed: int, paused_settings: Settings, start_worker: StartWorker
) -> None:
    # Given a worker that stops itself before the commit of its third batch
    producer = Producer(paused_settings, seed=seed)
    producer.open_accounts()
    producer.write(BACKLOG)
    with producer:
        paused = start_worker(paused_settings, Failpoint("stop", step, 3))
        paused.wait_until_stopped()
        # When another takes over, has decided everything, and the first is continued
        other = start_worker(paused_settings)
        other.wait_for_log("partitions changed", owned=producer.partitions)
        History(paused_settings).wait_for_more_rows(100)
        paused.signal(signal.SIGCONT)
        # Then its commit fails, it takes part again, and everything has one effect and one result
        paused.wait_for_log(LEASES_LOST)
        paused.wait_for_log("partitions changed", workers=2)
        producer.wait_for_more(100)
    History(paused_settings).check(producer)
    assert not paused.has_ended
    assert not other.has_ended


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_committed_before_the_pause_is_announced_by_the_next_owner(
    seed: int, paused_settings: Settings, start_worker: StartWorker
) -> None:
    producer = Producer(paused_settings, seed=seed)
    producer.open_accounts()
    producer.write(BACKLOG)
    paused = start_worker(paused_settings, Failpoint("stop", "commit", 2))
    paused.wait_until_stopped()
    start_worker(paused_settings)
    # Here everything is checked while the first still stands still, and again when it has gone on
    History(paused_settings).check(producer)
    paused.signal(signal.SIGCONT)
    paused.wait_for_log("partitions changed", workers=2)
    producer.write(50)
    History(paused_settings).check(producer)
    assert not paused.has_ended


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", ["commit", "announce"])
def test_a_worker_continued_after_its_commit_deletes_nothing_of_the_next_owners_lane(
    step: str,
    seed: int,
    paused_settings: Settings,
    start_worker: StartWorker,
    lane_state: Callable[[], dict[int, tuple[list[bytes], int]]],
) -> None:
    # Given a worker stopped after its commit, and a next owner that has raised the fences and stands still too
    producer = Producer(paused_settings, seed=seed)
    producer.open_accounts()
    producer.write(BACKLOG)
    batch_limit = 10 * BACKLOG
    paused = start_worker(paused_settings, Failpoint("stop", step), batch_limit=batch_limit)
    paused.wait_until_stopped()
    owner = start_worker(paused_settings, Failpoint("stop", "read"), lease_seconds=10.0)
    producer.write(20)
    owner.wait_until_stopped()
    producer.write(20)
    before = lane_state()
    assert {partition: fence for partition, (_, fence) in before.items()} == epochs_of(paused_settings)
    # When the first goes on
    paused.signal(signal.SIGCONT)
    paused.wait_for_log("step", step="delete", count=1)
    # Then all stands as it stood, until the owner decides it
    assert lane_state() == before
    owner.signal(signal.SIGCONT)
    History(paused_settings).check(producer)


def test_a_worker_stopped_while_idle_gets_lanes_back_and_applies_them(
    paused_settings: Settings, start_worker: StartWorker
) -> None:
    producer = Producer(paused_settings)
    producer.open_accounts()
    paused = start_worker(paused_settings, NO_FAILPOINT)
    History(paused_settings).wait_until_settled()
    paused.signal(signal.SIGSTOP)
    other = start_worker(paused_settings)
    other.wait_for_log("partitions changed", owned=producer.partitions)
    paused.signal(signal.SIGCONT)
    other.wait_for_log("giving up partitions", owned=producer.partitions // 2)
    producer.write(200)
    History(paused_settings).check(producer)
    # It had committed once before it was stopped
    assert paused.has_logged("step", step="commit", count=2)
    assert [paused.has_ended, other.has_ended] == [False, False]
