"""Servers that answer with an error, or not at all: no process ends of it, and each goes on by itself."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job, JobStatus
from rq.suspension import suspend

from creditlane.lanes.backoff import Backoff
from creditlane.lanes.rq_queues import QueueName
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedRedis
from creditlane.schemas.settings import Settings
from creditlane.worker.connections import connect_redis
from creditlane.worker.jobs import runs
from creditlane.worker.jobs.database import Connection, connect
from creditlane.worker.jobs.entrypoints import PERFORM_RUN
from creditlane.worker.jobs.queues import open_queue
from creditlane.worker.jobs.rq_worker import JobsWorker
from creditlane.worker.jobs.runs import Run, request_run
from creditlane.worker.jobs.status import living_processes

from ...roles import settings_of
from .conftest import DEADLINE_SECONDS

#: Two of those that do the jobs, and one that delivers.
QUEUES: list[QueueName] = ["jobs", "jobs", "deliveries"]
DONE = "select status from job_runs where run_id = %s"

Refusal = Callable[[redis.Redis], None]


class Process:
    """An RQ process with its log."""

    def __init__(self, environment: dict[str, str], queue: str, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "creditlane.worker.jobs", "--queue", queue]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file)

    def has_logged(self, text: str) -> bool:
        return text in self.log.read_text()


@pytest.fixture
def own(settings: Settings, own_redis: Callable[[], EmbeddedRedis]) -> Settings:
    """Settings with a Redis that may be spoilt."""
    return settings.model_copy(update={"redis_url": own_redis().url})


@pytest.fixture
def processes(
    own: Settings, environment_of: Callable[[Settings], dict[str, str]], tmp_path: Path
) -> Iterator[list[Process]]:
    started = [
        Process(environment_of(settings_of("jobs", own)), queue, tmp_path / f"{number}.log")
        for number, queue in enumerate(QUEUES)
    ]
    wait_for(lambda: alive(own) == sorted(each.process.pid for each in started), "all processes")
    yield started
    for each in started:
        each.process.kill()
        each.process.wait()


def alive(settings: Settings) -> list[int]:
    return sorted(found.process_id for queue in set(QUEUES) for found in living_processes(settings, queue))


def wait_for(condition: Callable[[], object], what: str) -> None:
    assert wait_until(lambda: bool(condition()), seconds=2 * DEADLINE_SECONDS), what


def check_all_work(own: Settings, processes: list[Process]) -> None:
    """Make sure that the same processes do the next run, and are known to be alive."""
    assert [each.process.poll() for each in processes] == [None] * len(processes)
    with psycopg.connect(own.require_database_url(), autocommit=True) as connection:
        run_id = request_run(connection, "retention")
        wait_for(lambda: connection.execute(DONE, [run_id]).fetchone() == (3,), "a run")
    wait_for(lambda: alive(own) == sorted(each.process.pid for each in processes), "all processes, again")
    assert [each.process.poll() for each in processes] == [None] * len(processes)


def test_a_postgres_that_lets_nothing_be_written_ends_no_process(own: Settings, processes: list[Process]) -> None:
    """Given a Postgres that becomes read-only, as after a fail-over, when it can be written again, then the same
    processes go on, though nobody ends their sessions."""
    name = psycopg.conninfo.conninfo_to_dict(own.require_database_url())["dbname"]
    with psycopg.connect(own.require_database_url(), autocommit=True) as connection:
        connection.execute(f'alter database "{name}" set default_transaction_read_only = on'.encode())
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        for each in processes:
            wait_for(lambda each=each: each.has_logged("read-only transaction"), "notice")
        connection.execute(f'alter database "{name}" reset default_transaction_read_only'.encode())

    check_all_work(own, processes)


@pytest.mark.usefixtures("environment")
def test_a_run_that_meets_a_read_only_postgres_is_done_later(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a run whose process cannot write, then it has not failed, and is done once that is possible."""
    run_id = request_run(connection, "retention")

    def read_only(settings: Settings, **options: Any) -> Connection:
        opened = connect(settings, **options)
        opened.execute("set default_transaction_read_only = on")
        return opened

    with monkeypatch.context() as patched:
        patched.setattr(runs, "connect", read_only)
        put_off = runs.perform_run(run_id)

    assert put_off == {"run": run_id, "status": "postponed", "reason": "Postgres is away"}
    assert connection.execute(DONE, [run_id]).fetchone() == (1,)
    runs.perform_run(run_id)
    assert connection.execute(DONE, [run_id]).fetchone() == (3,)


def fill_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def free_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", "0")


def demote(client: redis.Redis) -> None:
    client.slaveof("127.0.0.1", "1")


def promote(client: redis.Redis) -> None:
    client.slaveof()


@pytest.mark.parametrize(
    ("refuse", "allow"), [(fill_memory, free_memory), (demote, promote)], ids=["out of memory", "a replica"]
)
def test_a_redis_that_answers_no_ends_no_process(
    refuse: Refusal, allow: Refusal, own: Settings, processes: list[Process]
) -> None:
    with connect_redis(own.require_redis_url()) as client:
        refuse(client)
        for each in processes:
            wait_for(lambda each=each: each.has_logged("Redis is away, trying again"), "notice")
        allow(client)

    check_all_work(own, processes)


def with_a_job(own: Settings, client: redis.Redis) -> tuple[Queue, JobsWorker, Job]:
    """Return a queue, a worker, and a job that it has taken from there."""
    queue = open_queue(own, "jobs", client)
    queue.enqueue(PERFORM_RUN, 1)
    worker = JobsWorker(queue, "refused", threading.Event())
    taken = worker.dequeue_job_and_maintain_ttl(None)
    assert taken is not None
    return queue, worker, taken[0]


@pytest.mark.parametrize(
    ("refuse", "allow"), [(fill_memory, free_memory), (demote, promote)], ids=["out of memory", "a replica"]
)
def test_a_job_whose_end_redis_does_not_take_at_first_has_not_failed(
    refuse: Refusal, allow: Refusal, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_redis(own.require_redis_url()) as client, connect_redis(own.require_redis_url()) as operator:
        queue, worker, taken = with_a_job(own, client)
        monkeypatch.setattr(Job, "perform", lambda _job: refuse(operator))
        monkeypatch.setattr(Backoff, "pause", lambda _backoff: allow(operator) is None)

        worker.execute_job(taken, queue)

        assert taken.get_status() == JobStatus.FINISHED
        assert queue.failed_job_registry.get_job_count() == 0


def test_a_worker_that_redis_does_not_let_go_leaves_no_raw_error_behind(own: Settings) -> None:
    """Given a Redis that refuses, when the worker leaves and its connections are closed, then no thread is left."""
    with connect_redis(own.require_redis_url()) as client, connect_redis(own.require_redis_url()) as operator:
        before = set(threading.enumerate())
        worker = JobsWorker(open_queue(own, "jobs", client), "refused", threading.Event())
        worker.bootstrap(logging_level=None)
        fill_memory(operator)
        with pytest.raises(redis.RedisError):
            worker.teardown()
        free_memory(operator)
        assert set(threading.enumerate()) <= before


def test_a_worker_whose_redis_goes_away_in_a_job_just_begins_anew(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_redis(own.require_redis_url()) as client, connect_redis(own.require_redis_url()) as operator:
        queue, worker, taken = with_a_job(own, client)
        monkeypatch.setattr(Job, "perform", lambda _job: fill_memory(operator))
        monkeypatch.setattr(Backoff, "pause", lambda _backoff: False)

        with pytest.raises(StopRequested):
            worker.execute_job(taken, queue)

        free_memory(operator)
        assert taken.get_status() == JobStatus.STARTED


def test_processes_are_known_again_when_redis_was_emptied(own: Settings, processes: list[Process]) -> None:
    with connect_redis(own.require_redis_url()) as client:
        client.flushall()

    check_all_work(own, processes)


def test_who_is_asked_to_stop_stops_also_while_rq_is_suspended(own: Settings) -> None:
    """Given a worker that is suspended, when another part of its process says that it is to end, then it does."""
    stopping = threading.Event()
    with connect_redis(own.require_redis_url()) as client:
        suspend(client)
        worker = JobsWorker(open_queue(own, "jobs", client), "suspended", stopping)
        worker.register_birth()
        waiting = threading.Thread(target=worker.check_for_suspension, args=(False,), daemon=True)
        waiting.start()
        wait_for(lambda: client.hget(worker.key, "state") == b"suspended", "the suspension")

        stopping.set()

        waiting.join(DEADLINE_SECONDS)
        assert not waiting.is_alive()


def test_a_run_is_given_up_when_its_heartbeat_cannot_be_written(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a run in the middle of a statement, when Postgres takes no note of its process for longer than the lease,
    then the process waits for that statement no longer."""
    run = Run(settings, connection, request_run(connection, "retention"), "retention", "me")
    assert run.claim()
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(runs, "LEASE_SECONDS", 0.5)

    def silent(_settings: Settings, **_options: Any) -> Connection:
        raise psycopg.errors.ConnectionTimeout("no answer")

    monkeypatch.setattr(runs, "connect", silent)
    started = time.monotonic()

    with run.kept(), pytest.raises(psycopg.OperationalError, match="Postgres does not answer"):
        connection.execute("select pg_sleep(120)")

    assert time.monotonic() - started < DEADLINE_SECONDS
    assert connection.closed


def test_a_statement_of_a_run_may_take_long_while_the_run_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.05)
    with connect(settings, silence_seconds=0.2) as connection:
        run = Run(settings, connection, request_run(connection, "retention"), "retention", "me")
        assert run.claim()
        with run.kept():
            connection.execute("select pg_sleep(1)")
        run.check()
