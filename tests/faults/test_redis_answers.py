"""A Redis that is full, silent, another than before, or has something else on a lane: the worker goes on by itself."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis

from creditlane.lanes.encoding import encode_command
from creditlane.lanes.keys import COMMAND_FIELD, Keys
from creditlane.lanes.routing import partition_of
from creditlane.local.servers import EmbeddedRedis
from creditlane.schemas.commands import Credit
from creditlane.schemas.settings import Settings

from .history import History
from .owners import owned_by
from .producing import Producer
from .worker_processes import NO_FAILPOINT, Failpoint, StartWorker, wait_for

#: Ids that a clock gives out which is an hour ahead.
AHEAD_MS = 3_600_000
CANNOT_READ = "lanes cannot be read, trying again"


@pytest.fixture
def server(own_redis: Callable[[], EmbeddedRedis]) -> EmbeddedRedis:
    return own_redis()


@pytest.fixture
def settings(settings: Settings, server: EmbeddedRedis) -> Settings:
    # With a lease that outlasts the test, nothing that heals with a lease is taken for what is tested.
    return settings.model_copy(update={"redis_url": server.url, "batch_limit": 20, "lease_seconds": 60.0})


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.require_redis_url()) as made:
        yield made


@pytest.mark.parametrize("has_mirror", [True, False])
def test_a_worker_starts_on_a_full_redis_and_frees_its_memory(
    has_mirror: bool, settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    # Given a backlog, and a Redis that takes nothing more
    producer = Producer(settings)
    producer.open_accounts()
    producer.write(200)
    if has_mirror:
        client.set(Keys(settings.redis_prefix).installation, '{"partitions":4}')
    client.config_set("maxmemory", 1)
    client.config_set("maxmemory-policy", "noeviction")
    # When a worker starts
    worker = start_worker(settings)
    # Then all is decided and off the lanes, without anybody's help
    history = History(settings)
    history.wait_until_settled()
    assert not worker.has_ended
    assert history.rows() == len({command.idempotency_key for command in producer.accepted})
    # And a wrong number of partitions is not left for producers to find
    assert client.get(Keys(settings.redis_prefix).installation) is None
    # And once there is memory, results are announced again
    client.config_set("maxmemory", 0)
    announced = len(producer.accepted)
    producer.write(50)
    wait_for(lambda: len(history.announcements(producer.id)) == len(producer.accepted) - announced, "the results")
    assert not worker.has_logged("results cannot be announced, trying again")


def test_a_full_redis_loses_no_fence_for_good(
    settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    """Given a worker that took its lanes while Redis was full, when there is memory, then it raises their fences."""
    client.config_set("maxmemory", 1)
    worker = start_worker(settings)
    worker.wait_for_log("partitions changed")
    fences = [Keys(settings.redis_prefix).fence(partition) for partition in range(settings.partitions or 0)]
    producer = Producer(settings)
    client.config_set("maxmemory", 0)
    producer.open_accounts()
    History(settings).wait_until_settled()
    wait_for(lambda: client.exists(*fences) == len(fences), "the fences")


def test_a_worker_takes_no_lanes_while_redis_takes_no_writes(
    settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    # Given a worker that cannot get on with its lanes, since its server has become a replica
    worker = start_worker(settings, lease_seconds=1.0)
    wait_for(lambda: owned_by(settings) == {worker.pid: 8}, "its lanes")
    client.replicaof("127.0.0.1", "1")
    with psycopg.connect(settings.require_database_url()) as connection:
        connection.execute("update leases set epoch = epoch + 1")
    worker.wait_for_log("a stage does not get on, giving all partitions back")
    failed = worker.count_logged(CANNOT_READ)
    # When it checks again and again, then it finds each time that nothing is better
    worker.wait_for_log(CANNOT_READ, after=failed + 2)
    assert not worker.has_logged("all stages get on again")
    # And when the server is a primary again, then it goes on by itself
    client.replicaof("NO", "ONE")
    wait_for(lambda: owned_by(settings) == {worker.pid: 8}, "its lanes")
    producer = Producer(settings)
    producer.open_accounts()
    History(settings).check(producer)


def test_a_redis_that_was_silent_is_used_again_within_a_lease(
    settings: Settings, server: EmbeddedRedis, start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"lease_seconds": 3.0})
    history = History(settings)
    producer = Producer(settings)
    producer.open_accounts()
    worker = start_worker(settings)
    history.wait_until_settled()
    assert server.pid is not None
    # Given a Redis that accepts connections and never answers, for longer than anybody waits
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # Then the worker does not wait for it any longer than half of its lease, again and again
        worker.wait_for_log("lanes cannot be read, trying again", after=2)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    # When it answers again, then the lanes flow within a lease and two seconds
    silent_until = time.monotonic()
    producer.write(50)
    history.wait_until_settled()
    assert time.monotonic() - silent_until < settings.lease_seconds + 2
    history.check(producer)
    assert not worker.has_ended


@pytest.mark.parametrize("ends_connections", [True, False])
def test_commands_with_lower_ids_than_were_decided_are_decided_too(
    ends_connections: bool, settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    # Given a worker that stands still after the commit of what a Redis gave out whose clock was ahead
    producer = Producer(settings)
    producer.open_accounts()
    keys = Keys(settings.redis_prefix)
    lanes = {partition_of(account, producer.partitions) for account in producer.accounts}
    for partition in lanes:
        last = client.xrevrange(keys.lane(partition), count=1)[0][0]
        ahead = int(last.partition(b"-")[0]) + AHEAD_MS
        for number in range(5):
            client.xadd(keys.lane(partition), {COMMAND_FIELD: b"no command"}, id=f"{ahead}-{number}")
    worker = start_worker(settings, Failpoint("stop", "commit"), batch_limit=1_000)
    worker.wait_until_stopped()
    # When that Redis is lost, and new commands have lower ids
    for partition in lanes:
        client.delete(keys.lane(partition))
    if ends_connections:
        client.client_kill_filter(_type="normal", skipme=True)
    producer.write(100)
    worker.signal(signal.SIGCONT)
    # Then every one of them is decided
    History(settings).check(producer)
    assert not worker.has_ended


def test_a_new_command_under_the_id_of_a_decided_one_is_decided(
    settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    """Given a fail-over that lost the tail of a lane, when new commands get the very ids of that tail while a batch
    waits to be deleted, then they are not taken for it."""
    producer = Producer(settings, accounts=1)
    producer.open_accounts()
    lane = Keys(settings.redis_prefix).lane(partition_of(producer.accounts[0], producer.partitions))
    producer.write(20)
    entries = client.xrange(lane)
    worker = start_worker(settings, Failpoint("stop", "commit"), batch_limit=1_000)
    worker.wait_until_stopped()
    client.delete(lane)
    for number, (entry, fields) in enumerate(entries):
        if number >= len(entries) // 2:
            command = Credit(
                account_id=producer.accounts[0], amount=1, reference="new", idempotency_key=f"new {number}"
            )
            fields = {COMMAND_FIELD: encode_command(command, settings.store)}  # noqa: PLW2901
        client.xadd(lane, fields, id=entry)
    client.client_kill_filter(_type="normal", skipme=True)
    worker.signal(signal.SIGCONT)
    history = History(settings)
    history.wait_until_settled()
    [effects] = history.effects().values()
    decided = {effect.idempotency_key for effect in effects}
    assert {f"new {number}" for number in range(len(entries) // 2, len(entries))} <= decided
    assert {command.idempotency_key for command in producer.accepted} <= decided


def test_a_string_on_one_lane_stops_that_lane_alone(
    settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    keys = Keys(settings.redis_prefix)
    producer = Producer(settings, accounts=3)
    producer.open_accounts()
    worker = start_worker(settings)
    history = History(settings)
    history.wait_until_settled()
    # Given a lane of no account, which another program has written to
    free = (set(range(producer.partitions)) - {partition_of(a, producer.partitions) for a in producer.accounts}).pop()
    client.set(keys.lane(free), "not a stream")
    worker.wait_for_log("a lane cannot be read", key=keys.lane(free))
    # Then commands on the others are decided
    rows = history.rows()
    producer.write(50)
    wait_for(lambda: history.rows() > rows, "commands on other lanes")
    # And when the key is gone, then the lane is read again
    client.delete(keys.lane(free))
    client.xadd(keys.lane(free), {COMMAND_FIELD: b"no command"})
    wait_for(lambda: worker.has_logged("command dead-lettered", partition=free), "the lane to be read")
    history.wait_until_settled()
    assert not worker.has_ended


def test_a_result_that_redis_refuses_for_a_reason_of_its_own_does_not_stand_in_the_way(
    settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    """Given a reply stream that takes no more entries, when announcing to it has been refused for half a lease,
    then what is decided leaves the lane: who waits finds it in Postgres."""
    settings = settings.model_copy(update={"lease_seconds": 1.0})
    keys = Keys(settings.redis_prefix)
    producer = Producer(settings, accounts=1)
    # There is no id after this one.
    client.xadd(keys.replies(producer.id), {"a": "[]"}, id=f"{2**64 - 1}-{2**64 - 1}")
    producer.open_accounts()
    worker = start_worker(settings, NO_FAILPOINT)
    History(settings).wait_until_settled()
    worker.wait_for_log("results are not announced; who waits finds them in Postgres")
    assert History(settings).rows() == 1
