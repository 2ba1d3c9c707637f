"""Redis and Postgres go away and come back while a producer writes: the worker outlasts it, says so, loses nothing."""

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
import redis

from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.schemas.settings import Settings

from ..roles import migrate_with_roles
from .connections import cut_postgres_connections
from .extent import BATCH_LIMIT, LONG, SEEDS
from .history import History
from .producing import Producer
from .worker_processes import StartWorker, WorkerProcess, wait_for

PARTITIONS = 8
#: How often each server goes away, or each connection is cut, in one test.
REPEATS = 4 if LONG else 1
CUTS = 20 if LONG else 4


class Servers(NamedTuple):
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    settings: Settings


@pytest.fixture
def servers(own_postgres: Callable[[], EmbeddedPostgres], own_redis: Callable[[], EmbeddedRedis]) -> Servers:
    """A Postgres and a Redis that may be killed."""
    postgres, redis_server = own_postgres(), own_redis()
    migrate_with_roles(postgres.url, PARTITIONS)
    settings = Settings(
        redis_url=redis_server.url,
        database_url=postgres.url,
        partitions=PARTITIONS,
        batch_limit=BATCH_LIMIT,
        lease_seconds=2.0,
    )
    return Servers(postgres, redis_server, settings)


LOSS_OF_REDIS = ("lanes cannot be read, trying again", "results cannot be announced, trying again")
REDIS_IS_BACK = ("lanes are read again", "results are announced again")


def lose_redis(servers: Servers, worker: WorkerProcess) -> None:
    """Kill Redis as a crash would, and start it again on its append-only file once the worker has noticed."""
    noticed = [worker.count_logged(event) for event in LOSS_OF_REDIS]
    recovered = [worker.count_logged(event) for event in REDIS_IS_BACK]
    servers.redis.kill()
    # Whichever of its stages is at Redis then; the reader may be waiting for room behind the announcer.
    wait_for(
        lambda: [worker.count_logged(event) for event in LOSS_OF_REDIS] != noticed, "the loss of Redis to be noticed"
    )
    servers.redis.start()
    wait_for(lambda: [worker.count_logged(event) for event in REDIS_IS_BACK] != recovered, "Redis to be used again")


def lose_postgres(servers: Servers, worker: WorkerProcess) -> None:
    """Stop Postgres in immediate mode, and start it again once the worker has noticed."""
    noticed = worker.count_logged("batch cannot be applied, trying again")
    servers.postgres.stop(immediate=True)
    worker.wait_for_log("batch cannot be applied, trying again", after=noticed)
    recovered = worker.count_logged("batches are applied again")
    servers.postgres.start()
    worker.wait_for_log("batches are applied again", after=recovered)
    worker.wait_for_log("leases are renewed again")


OUTAGES = {"redis": [lose_redis], "postgres": [lose_postgres], "both in turn": [lose_redis, lose_postgres]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("outages", OUTAGES.values(), ids=OUTAGES)
def test_a_worker_outlasts_the_loss_of(
    outages: list[Callable[[Servers, WorkerProcess], None]], seed: int, servers: Servers, start_worker: StartWorker
) -> None:
    history = History(servers.settings)
    with Producer(servers.settings, seed=seed) as producer:
        worker = start_worker(servers.settings)
        history.wait_for_more_rows(random.Random(seed).randint(20, 100))
        for outage in outages * REPEATS:
            outage(servers, worker)
            history.wait_for_more_rows(100)
    history.check(producer)
    assert not worker.has_ended


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_outlasts_cut_connections_to_postgres(
    seed: int, settings: Settings, start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"batch_limit": BATCH_LIMIT})
    history = History(settings)
    with Producer(settings, seed=seed) as producer:
        worker = start_worker(settings)
        for _ in range(CUTS):
            history.wait_for_more_rows(30)
            assert cut_postgres_connections(settings) > 0
    history.check(producer)
    assert not worker.has_ended


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_outlasts_cut_connections_to_redis(
    seed: int, settings: Settings, own_redis: Callable[[], EmbeddedRedis], start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"redis_url": own_redis().url, "batch_limit": BATCH_LIMIT})
    history = History(settings)
    with Producer(settings, seed=seed) as producer, redis.Redis.from_url(settings.require_redis_url()) as client:
        worker = start_worker(settings)
        for _ in range(CUTS):
            history.wait_for_more_rows(30)
            # Everybody's but this one, so the producer's too
            assert client.client_kill_filter(_type="normal", skipme=True) > 0
    history.check(producer)
    assert not worker.has_ended


def test_a_lane_that_redis_lost_and_renumbered_is_read_from_its_head(
    settings: Settings, own_redis: Callable[[], EmbeddedRedis], start_worker: StartWorker
) -> None:
    """A Redis restored from a copy gives out lower ids again: a worker that goes on from its cursor misses them."""
    settings = settings.model_copy(update={"redis_url": own_redis().url})
    history = History(settings)
    producer = Producer(settings)
    producer.open_accounts()
    worker = start_worker(settings)
    history.wait_until_settled()
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.flushall()
        lane = f"{settings.redis_prefix}:{{p0}}:commands"
        client.xadd(lane, {"c": "not a command"}, id="1-1")
        history.wait_until_settled()
        assert client.xlen(lane) == 0
    assert worker.has_logged("command dead-lettered", partition=0)
