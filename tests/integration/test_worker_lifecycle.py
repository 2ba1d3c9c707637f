"""A worker process starts only where it may, waits for servers that are not there, and leaves nothing half done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from creditlane.lanes.encoding import encode_command
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Credit
from creditlane.schemas.settings import Settings

from ..faults.connections import cut_postgres_connections
from ..faults.history import History
from ..faults.owners import known_workers, owned_lanes
from ..faults.producing import Producer
from ..faults.worker_processes import NO_FAILPOINT, Failpoint, StartWorker, WorkerProcess, start_worker, wait_for

__all__ = ["start_worker"]


def errors_of(worker: WorkerProcess) -> list[str]:
    return worker.log_path.read_text().splitlines()


def test_a_worker_configured_for_other_partitions_does_not_start(settings: Settings, start_worker: StartWorker) -> None:
    worker = start_worker(settings, partitions=16)
    assert worker.wait_for_exit() == 1
    [error] = errors_of(worker)
    assert error.startswith("creditlane worker: CREDITLANE_PARTITIONS is 16, but the database was initialised with 8;")
    assert known_workers(settings) == owned_lanes(settings) == 0


def test_a_worker_does_not_start_on_an_empty_database(
    settings: Settings, empty_database_url: str, start_worker: StartWorker
) -> None:
    worker = start_worker(settings, database_url=empty_database_url)
    assert worker.wait_for_exit() == 1
    assert errors_of(worker) == [
        "creditlane worker: The database has not the current schema; run `creditlane migrate`."
    ]


def test_a_worker_does_not_start_on_a_newer_schema(settings: Settings, start_worker: StartWorker) -> None:
    with psycopg.connect(settings.require_database_url()) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    worker = start_worker(settings)
    assert worker.wait_for_exit() == 1
    assert len(errors_of(worker)) == 1
    assert "schema 9999" in errors_of(worker)[0]


@pytest.mark.parametrize("missing", ["redis_url", "database_url"])
def test_a_worker_without_the_addresses_of_its_servers_says_so(
    missing: str, settings: Settings, start_worker: StartWorker
) -> None:
    worker = start_worker(settings, **{missing: None})
    assert worker.wait_for_exit() == 1
    assert len(errors_of(worker)) == 1
    assert f"CREDITLANE_{missing.upper()} is not set" in errors_of(worker)[0]


@pytest.mark.parametrize("absent", ["redis_url", "database_url"])
def test_a_worker_waits_for_a_server_that_is_not_there_and_stops_when_asked(
    absent: str, settings: Settings, tmp_path: Path, start_worker: StartWorker
) -> None:
    urls = {"redis_url": f"unix://{tmp_path}/nobody.sock", "database_url": f"postgresql:///nothing?host={tmp_path}"}
    worker = start_worker(settings, **{absent: urls[absent]})
    worker.wait_for_log("cannot start yet, trying again", failures=2)
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_exit() == 0


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_finishes_the_batch_and_gives_everything_back(
    request_to_stop: signal.Signals, settings: Settings, start_worker: StartWorker
) -> None:
    # Given a worker at work
    settings = settings.model_copy(update={"batch_limit": 20, "lease_seconds": 30.0})
    with Producer(settings) as producer:
        first = start_worker(settings)
        History(settings).wait_for_more_rows(100)
        # When it is asked to stop
        first.signal(request_to_stop)
        # Then it leaves, without waiting for its lease to run out, and the next goes on at once
        assert first.wait_for_exit() == 0
        assert known_workers(settings) == owned_lanes(settings) == 0
        decided = History(settings).rows()
        second = start_worker(settings)
        History(settings).wait_for_more_rows(100)
    History(settings).check(producer)
    assert len(producer.accepted) > decided
    assert not second.has_ended
    # And what the first had decided it had also announced and deleted: nothing was done again
    assert_nothing_was_done_twice(settings, producer)


def assert_nothing_was_done_twice(settings: Settings, producer: Producer) -> None:
    """Check that each command was announced once, and as a repeat only if the producer had repeated it."""
    announced = History(settings).announcements(producer.id)
    seen: set[str] = set()
    for number, command in enumerate(producer.accepted, 1):
        assert [announcement.replayed for announcement in announced[number]] == [command.idempotency_key in seen]
        seen.add(command.idempotency_key)


@pytest.mark.parametrize("step", ["commit", "announce"])
def test_a_stop_waits_until_what_is_decided_is_announced_and_deleted(
    step: str, settings: Settings, start_worker: StartWorker
) -> None:
    # Given a worker with a backlog that is asked to stop while it is slow to announce
    settings = settings.model_copy(update={"batch_limit": 20})
    producer = Producer(settings)
    producer.open_accounts()
    producer.write(200)
    worker = start_worker(settings, Failpoint("linger", step, 3))
    worker.wait_for_log("step", step=step, count=3)
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_exit() == 0
    # Then the next finds nothing that was decided before
    start_worker(settings)
    History(settings).check(producer)
    assert_nothing_was_done_twice(settings, producer)


def test_a_stop_while_idle_takes_no_time(settings: Settings, start_worker: StartWorker) -> None:
    worker = start_worker(settings)
    worker.wait_for_log("partitions changed")
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_exit() == 0
    assert worker.has_logged("worker stopped")
    assert known_workers(settings) == owned_lanes(settings) == 0


def test_a_batch_that_fails_during_a_stop_is_not_overtaken_by_the_next(
    settings: Settings, start_worker: StartWorker
) -> None:
    # Given a worker that stands still inside a transaction, with more batches of the same lanes already read
    settings = settings.model_copy(update={"batch_limit": 20, "lease_seconds": 5.0})
    producer = Producer(settings, accounts=1)
    producer.open_accounts()
    producer.write(200)
    worker = start_worker(settings, Failpoint("stop", "write", 2))
    worker.wait_until_stopped()
    # When its connection breaks just while it is asked to stop
    cut_postgres_connections(settings)
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGCONT)
    assert worker.wait_for_exit() == 0
    # Then nothing of what follows was applied before it, or deleted with it
    start_worker(settings)
    History(settings).check(producer)


def test_a_result_that_cannot_be_announced_during_a_stop_stays_on_the_lane(
    settings: Settings, start_worker: StartWorker
) -> None:
    # Given a Redis that refuses the announcements of the first batch, and takes those of the ones after it
    settings = settings.model_copy(update={"batch_limit": 20, "lease_seconds": 60.0})
    keys = Keys(settings.redis_prefix)
    producer = Producer(settings, accounts=1)
    account_id = producer.accounts[0]
    lane = keys.lane(partition_of(account_id, producer.partitions))
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        # There is no id after this one.
        client.xadd(keys.replies("deaf"), {"a": "[]"}, id=f"{2**64 - 1}-{2**64 - 1}")
        for number in range(1, 21):
            command = Credit(account_id=account_id, amount=1, reference="deaf", idempotency_key=f"deaf {number}")
            client.xadd(lane, {"c": encode_command(command, settings.store), "r": f"deaf/{number}"})
        producer.open_accounts()
        producer.write(100)
        worker = start_worker(settings, NO_FAILPOINT)
        worker.wait_for_log("results cannot be announced, trying again")
        worker.wait_for_log("step", step="commit", count=3)
        # When the worker is asked to stop
        worker.signal(signal.SIGTERM)
        assert worker.wait_for_exit() == 0
        # Then everything still stands there, and the next worker announces it
        assert client.xlen(lane) == 20 + len(producer.accepted)
        client.delete(keys.replies("deaf"))
        start_worker(settings)
        History(settings).wait_until_settled()
    assert sorted(History(settings).announcements("deaf")) == list(range(1, 21))
    assert sorted(History(settings).announcements(producer.id)) == list(range(1, len(producer.accepted) + 1))


@pytest.mark.parametrize("step", ["read", "commit", "announce", "delete"])
def test_a_fault_that_no_stage_expects_ends_the_process_and_the_next_goes_on(
    step: str, settings: Settings, start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"batch_limit": 10, "lease_seconds": 30.0})
    producer = Producer(settings)
    producer.open_accounts()
    producer.write(200)
    worker = start_worker(settings, Failpoint("raise", step, 2))
    assert worker.wait_for_exit() == 1
    assert worker.has_logged("worker fails")
    assert known_workers(settings) == owned_lanes(settings) == 0
    start_worker(settings)
    History(settings).check(producer)


def test_a_worker_publishes_to_producers_how_many_partitions_there_are(
    settings: Settings, start_worker: StartWorker
) -> None:
    key = Keys(settings.redis_prefix).installation
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        start_worker(settings)
        wait_for(lambda: client.get(key), "the mirror")
        assert client.get(key) == b'{"partitions":8}'


def test_a_wrong_number_of_partitions_does_not_stay_in_redis(settings: Settings, start_worker: StartWorker) -> None:
    """Given a worker at work, when somebody changes what producers read, then it is soon as before, and logged."""
    key, right = Keys(settings.redis_prefix).installation, b'{"partitions":8}'
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        worker = start_worker(settings)
        wait_for(lambda: client.get(key) == right, "the mirror")
        client.set(key, '{"partitions":4}')
        wait_for(lambda: client.get(key) == right, "its correction")
        worker.wait_for_log("producers could read a wrong number of partitions, start those again that did")
        client.delete(key)
        client.lpush(key, "of another type")
        wait_for(lambda: client.type(key) == b"string" and client.get(key) == right, "its correction")
    assert not worker.has_ended


def is_alive(runtime_dir: Path, prefix: str) -> bool:
    """Whether `creditlane worker alive` says so, as a health check asks it."""
    command = [sys.executable, "-c", "from creditlane.cli.main import main; main()", "worker", "alive"]
    variables = {"CREDITLANE_RUNTIME_DIR": str(runtime_dir), "CREDITLANE_REDIS_PREFIX": prefix}
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False).returncode == 0


def test_a_worker_is_alive_while_it_runs_and_not_while_it_stands_still(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(settings, runtime_dir=str(tmp_path), lease_seconds=0.5)
    wait_for(lambda: is_alive(tmp_path, settings.redis_prefix), "life")

    worker.signal(signal.SIGSTOP)
    wait_for(lambda: not is_alive(tmp_path, settings.redis_prefix), "its silence")
    worker.signal(signal.SIGCONT)
    wait_for(lambda: is_alive(tmp_path, settings.redis_prefix), "life")

    worker.signal(signal.SIGTERM)
    assert worker.wait_for_exit() == 0
    assert not is_alive(tmp_path, settings.redis_prefix)
    assert list(tmp_path.glob("heartbeat-*")) == []


def test_a_worker_that_waits_for_its_servers_is_alive(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(settings, runtime_dir=str(tmp_path), database_url="postgresql://nobody@127.0.0.1:1/none")
    wait_for(lambda: is_alive(tmp_path, settings.redis_prefix), "life")


def test_a_worker_works_where_its_heartbeat_cannot_be_written(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    worker = start_worker(settings, runtime_dir=str(tmp_path / "file"))
    worker.wait_for_log("partitions changed")
    assert sum("will not see this worker" in line["event"] for line in worker.log()) == 1
