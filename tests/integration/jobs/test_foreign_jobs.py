"""Whoever can write to Redis gets none of their code run: what is no job of ours ends in the failed registry."""

import json
import os
import pickle
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.command import send_shutdown_command
from rq.job import JobStatus
from rq.serializers import PickleSerializer
from structlog.testing import capture_logs

from creditlane.lanes.rq_queues import DELIVERIES, JOBS, QueueName
from creditlane.local.processes import wait_until
from creditlane.local.redis_server import EmbeddedRedis
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.checked_jobs import MAX_DATA_BYTES, CheckedJob
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.entrypoints import PERFORM_RUN, REPORT_EXHAUSTED, ROUND
from creditlane.worker.jobs.queues import open_queue, read_refusals
from creditlane.worker.jobs.rq_worker import JobsWorker
from creditlane.worker.jobs.runs import request_run
from creditlane.worker.jobs.status import living_processes, read_jobs

from ...redis_users import redis_url_of
from .conftest import DEADLINE_SECONDS, LENGTH, StartJobs

#: A module that says so when it is imported, and what in it could be called.
PLANTED = "planted_beside_creditlane"
PLANTED_FUNCTION = f"{PLANTED}.called"


def data(name: object = LENGTH, instance: object = None, args: Any = ([1],), kwargs: Any = None) -> bytes:
    return json.dumps([name, instance, args, kwargs or {}]).encode()


def plant(queue: Queue, name: str, fields: dict[str, Any]) -> None:
    """Write a job into Redis without RQ, as anybody could who can write there."""
    queue.connection.hset(f"rq:job:{name}", mapping=fields)
    queue.connection.rpush(queue.key, name)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """A module that can be imported by its name; returns whether it was."""
    (tmp_path / f"{PLANTED}.py").write_text("def called(*_arguments, **_named): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda: PLANTED in sys.modules


@pytest.fixture
def refusals() -> list[None]:
    """One for each job that was refused."""
    return []


@pytest.fixture
def worker(jobs_queue: Queue, refusals: list[None], request: pytest.FixtureRequest) -> Iterator[JobsWorker]:
    request.getfixturevalue("length_job")
    name = f"{jobs_queue.name}-wary"
    worker = JobsWorker(jobs_queue, name, threading.Event(), on_refusal=lambda: refusals.append(None))
    worker.register_birth()
    yield worker
    worker.register_death()


def work(worker: JobsWorker, count: int = 1) -> None:
    for _ in range(count):
        taken = worker.dequeue_job_and_maintain_ttl(None)
        assert taken is not None
        worker.execute_job(*taken)


def failure_of(queue: Queue, name: str) -> str:
    assert queue.failed_job_registry.get_job_ids(cleanup=False) == [name]
    job = queue.fetch_job(name)
    assert job is not None
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


def refused_in(settings: Settings) -> list[tuple[QueueName, int]]:
    return [(queue.queue, queue.refused) for queue in read_jobs(settings).queues]


@pytest.mark.parametrize("name", [JOBS, DELIVERIES])
def test_a_command_that_was_written_into_redis_is_not_run(
    name: QueueName,
    start_jobs: StartJobs,
    settings: Settings,
    client_of_redis: redis.Redis,
    connection: Connection,
    tmp_path: Path,
) -> None:
    """Given a process at work, when a job is written into Redis that runs a command, then it fails and says why, is
    counted, and the process goes on with ours."""
    queue = open_queue(settings, name, client_of_redis)
    marker = tmp_path / "executed"
    process = start_jobs(name, tried=False)
    identifier = f"{settings.redis_prefix}-attack"

    plant(queue, identifier, {"data": zlib.compress(data("subprocess.getoutput", None, [f"id > {marker}"]))})

    registry = queue.failed_job_registry
    assert wait_until(lambda: identifier in registry.get_job_ids(cleanup=False), seconds=DEADLINE_SECONDS)
    assert "names a function that is none of Creditlane's jobs" in failure_of(queue, identifier)
    assert wait_until(lambda: (name, 1) in refused_in(settings), seconds=DEADLINE_SECONDS)
    if name == JOBS:
        run_id = request_run(connection, "retention")
        done = "select status from job_runs where run_id = %s"
        assert wait_until(lambda: connection.execute(done, [run_id]).fetchone() == (3,), seconds=DEADLINE_SECONDS)
    assert process.poll() is None
    assert not marker.exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": data(PLANTED_FUNCTION)}, "none of Creditlane's jobs"),
        ({"data": data("builtins.eval", None, ["1"])}, "none of Creditlane's jobs"),
        ({"data": data("eval", None, ["1"])}, "none of Creditlane's jobs"),
        ({"data": data("creditlane.worker.jobs.runs.load_settings", None, [])}, "none of Creditlane's jobs"),
        ({"data": data(f"{LENGTH}.__class__")}, "none of Creditlane's jobs"),
        ({"data": data(None)}, "none of Creditlane's jobs"),
        ({"data": data([LENGTH])}, "none of Creditlane's jobs"),
        ({"data": data("__len__", [1], [])}, "none of Creditlane's jobs"),
        ({"data": data(LENGTH, [1], [])}, "a method of an object"),
        ({"data": data(kwargs={"obj": [1]})}, "arguments by name"),
        ({"data": data(args=["one", "two"])}, "its arguments are none of such a job"),
        ({"data": data(args={"0": 1})}, "its arguments are none of such a job"),
        ({"data": data(), "success_callback_name": PLANTED_FUNCTION}, "a callback"),
        ({"data": data(args=[[1], 2]), "failure_callback_name": PLANTED_FUNCTION}, "a callback"),
        ({"data": data(), "stopped_callback_name": PLANTED_FUNCTION}, "a callback"),
        ({"data": data(), "webhooks": '[{"url": "http://127.0.0.1:1/", "job_status": "failed"}]'}, "a webhook of RQ's"),
        ({"data": data(), "repeats_left": "1000000"}, "repetitions"),
        ({"data": data(), "dependency_ids": '["another"]'}, "dependencies"),
        ({"data": data(), "rate_limit_key": "all", "rate_limit_concurrency": 1}, "a rate limit"),
        ({"data": data(), "meta": "[]"}, "its meta is no object"),
        ({"data": data(), "meta": pickle.dumps({})}, "its meta is no object"),
        ({"data": pickle.dumps((PLANTED_FUNCTION, None, (), {}))}, "cannot be read"),
        ({"data": b"[" * 100_000}, "cannot be read"),
        ({"data": b"\xff"}, "cannot be read"),
        ({"data": zlib.compress(b"0" * 100_000_000)}, f"more than {MAX_DATA_BYTES:,} bytes"),
        ({"data": data(), "timeout": "soon"}, "cannot be read"),
        ({"data": data(), "status": "wonderful"}, "cannot be read"),
        ({"data": data(), "created_at": b"\xff\xfe"}, "cannot be read"),
        ({"data": data(), "origin": b"\xff\xfe", "description": b"\xff\xfe"}, "cannot be read"),
    ],
)
def test_a_job_that_is_not_ours_fails_and_nothing_of_it_is_imported(
    fields: dict[str, Any],
    reason: str,
    worker: JobsWorker,
    refusals: list[None],
    jobs_queue: Queue,
    planted: Callable[[], bool],
) -> None:
    identifier = f"{jobs_queue.name}-strange"
    plant(jobs_queue, identifier, fields)

    work(worker)

    assert reason in failure_of(jobs_queue, identifier)
    assert len(refusals) == 1
    assert jobs_queue.connection.llen(jobs_queue.intermediate_queue_key) == 0
    assert not planted()


def test_a_job_of_ours_that_says_it_is_of_another_queue_is_one_of_the_queue_it_stands_on(
    worker: JobsWorker, jobs_queue: Queue
) -> None:
    identifier = f"{jobs_queue.name}-astray"
    plant(jobs_queue, identifier, {"data": data(), "origin": "another"})

    work(worker)

    assert jobs_queue.finished_job_registry.get_job_ids(cleanup=False) == [identifier]
    assert jobs_queue.connection.llen(jobs_queue.intermediate_queue_key) == 0


def test_a_job_is_json_whatever_serializer_it_is_read_with(client_of_redis: redis.Redis, redis_prefix: str) -> None:
    pickled = pickle.dumps((PERFORM_RUN, None, (1,), {}))
    client_of_redis.hset(f"rq:job:{redis_prefix}-pickled", mapping={"data": pickled})

    job = CheckedJob.fetch(f"{redis_prefix}-pickled", client_of_redis, PickleSerializer)

    assert isinstance(job, CheckedJob)
    assert "cannot be read" in str(job.refusal)


def test_what_is_no_job_at_all_holds_up_no_job_of_ours(worker: JobsWorker, jobs_queue: Queue) -> None:
    """Given entries that cannot be an id, a key of another type and one that is gone, then ours is done after them."""
    client = jobs_queue.connection
    client.set(f"rq:job:{jobs_queue.name}-text", "a string")
    client.rpush(jobs_queue.key, b"\xff\xfe", "a/b:c", "", f"{jobs_queue.name}-text", f"{jobs_queue.name}-gone")
    ours = jobs_queue.enqueue(LENGTH, [1, 2])

    work(worker)
    worker.last_cleaned_at = None  # type: ignore[assignment]
    worker.run_maintenance_tasks()

    assert ours.get_status() == JobStatus.FINISHED
    assert jobs_queue.count == client.llen(jobs_queue.intermediate_queue_key) == 0


@pytest.mark.usefixtures("length_job")
def test_jobs_that_our_user_may_not_read_hold_up_no_job_of_ours(
    own_redis: Callable[[], EmbeddedRedis], own_prefix: str, settings: Settings
) -> None:
    """Given jobs of another program's on our queue, and where RQ keeps those under way, in a Redis with users, then
    ours is done next, the others are thrown away and counted, and nothing is waited for."""
    server = own_redis()
    mine = settings.model_copy(update={"redis_prefix": own_prefix})
    with (
        redis.Redis.from_url(server.url) as others,
        redis.Redis.from_url(redis_url_of("jobs", server.url, own_prefix), protocol=2) as client,
    ):
        queue = open_queue(mine, JOBS, client)
        plant(open_queue(mine, JOBS, others), "b2f7c7f0-0000-4000-8000-000000000001", {"data": data()})
        plant(open_queue(mine, JOBS, others), "another-program-1", {"data": data()})
        others.rpush(queue.intermediate_queue_key, "another-program-2")
        others.hset("rq:job:another-program-2", mapping={"data": data()})
        others.zadd(queue.started_job_registry.key, {"another-program-3:execution": 1})
        others.hset("rq:job:another-program-3", mapping={"data": data()})
        ours = queue.enqueue(LENGTH, [1, 2], job_id=f"{own_prefix}-ours")
        worker = JobsWorker(queue, f"{queue.name}-strict", threading.Event())
        worker.register_birth()

        with capture_logs() as lines:
            work(worker)

        assert ours.get_status() == JobStatus.FINISHED
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == []
        assert queue.count == others.llen(queue.intermediate_queue_key) == 0
        assert read_refusals(mine, JOBS, others) == 2
        worker.register_death()


@pytest.mark.usefixtures("length_job")
def test_a_job_that_a_process_died_with_on_its_way_is_found_by_another(
    own_redis: Callable[[], EmbeddedRedis], own_prefix: str, settings: Settings
) -> None:
    """Given a job that was taken off its queue and never begun, in a Redis with users, when another process cleans up,
    then it notes when it saw that first, and a minute later the job has failed, so that it can be requeued."""
    server = own_redis()
    mine = settings.model_copy(update={"redis_prefix": own_prefix})
    with redis.Redis.from_url(redis_url_of("jobs", server.url, own_prefix), protocol=2) as client:
        queue = open_queue(mine, JOBS, client)
        job = queue.enqueue(LENGTH, [1, 2], job_id=f"{own_prefix}-taken")
        client.blmove(queue.key, queue.intermediate_queue_key, 1)
        worker = JobsWorker(queue, f"{queue.name}-cleaning", threading.Event())
        first_seen = f"{queue.intermediate_queue_key}:first_seen:{job.id}"

        with capture_logs() as lines:
            worker.run_maintenance_tasks()
            client.set(first_seen, float(client.get(first_seen) or "nan") - 120)  # type: ignore[arg-type]
            worker.run_maintenance_tasks()

        assert [line["event"] for line in lines if line["log_level"] == "error"] == []
        assert client.llen(queue.intermediate_queue_key) == 0
        assert job.id in queue.failed_job_registry


def test_registries_that_were_filled_by_others_end_no_process(worker: JobsWorker, jobs_queue: Queue) -> None:
    """Given entries that RQ itself cannot read where it keeps jobs under way, then the next job is done."""
    jobs_queue.connection.rpush(jobs_queue.intermediate_queue_key, b"\xff\xfe")
    jobs_queue.connection.zadd(jobs_queue.started_job_registry.key, {b"\xff:\xfe": 1})
    worker.last_cleaned_at = None  # type: ignore[assignment]
    ours = jobs_queue.enqueue(LENGTH, [1, 2])

    work(worker)

    assert ours.get_status() == JobStatus.FINISHED


@pytest.mark.usefixtures("length_job")
def test_a_callback_of_a_job_that_seems_abandoned_is_not_called(jobs_queue: Queue, planted: Callable[[], bool]) -> None:
    fields = {"data": data(), "status": "started", "origin": jobs_queue.name, "failure_callback_name": PLANTED_FUNCTION}
    jobs_queue.connection.hset(f"rq:job:{jobs_queue.name}-abandoned", mapping=fields)
    jobs_queue.connection.zadd(jobs_queue.started_job_registry.key, {f"{jobs_queue.name}-abandoned:execution": 1})

    jobs_queue.started_job_registry.cleanup()

    assert jobs_queue.failed_job_registry.get_job_ids(cleanup=False) == [f"{jobs_queue.name}-abandoned"]
    assert not planted()


def test_no_process_listens_to_commands_of_rq(
    start_jobs: StartJobs, settings: Settings, client_of_redis: redis.Redis, connection: Connection
) -> None:
    """Given a process at work, when Redis asks it to shut down, then it does the next job."""
    process = start_jobs(tried=False)
    assert wait_until(lambda: len(living_processes(settings, JOBS)) == 1, seconds=DEADLINE_SECONDS)
    (living,) = living_processes(settings, JOBS)

    send_shutdown_command(client_of_redis, living.name)

    assert client_of_redis.pubsub_numsub(f"rq:pubsub:{living.name}") == [(f"rq:pubsub:{living.name}".encode(), 0)]
    run_id = request_run(connection, "retention")
    done = "select status from job_runs where run_id = %s"
    assert wait_until(lambda: connection.execute(done, [run_id]).fetchone() == (3,), seconds=DEADLINE_SECONDS)
    assert process.poll() is None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (ROUND, []),
        (PERFORM_RUN, [7]),
        (REPORT_EXHAUSTED, [1, "0" * 8 + "-0000" * 3 + "-" + "0" * 12, ["1" * 8 + "-1111" * 3 + "-" + "1" * 12]]),
    ],
)
def test_a_failed_job_of_ours_is_ours_when_it_is_read_again(name: str, arguments: list[Any], jobs_queue: Queue) -> None:
    """As RQ writes it, with all of its fields."""
    job = jobs_queue.enqueue(name, *arguments, failure_ttl=-1, result_ttl=0)

    read = jobs_queue.fetch_job(job.id)

    assert isinstance(read, CheckedJob)
    assert (read.refusal, read.func_name, read.args) == (None, name, arguments)
    assert callable(read.func)


def test_a_process_does_not_import_from_the_folder_it_was_started_in(tmp_path: Path) -> None:
    (tmp_path / f"{PLANTED}.py").write_text("")
    program = (
        "import importlib.util\n"
        "from creditlane.worker.jobs.import_path import limit_import_path\n"
        f"before = importlib.util.find_spec('{PLANTED}')\n"
        "limit_import_path()\n"
        f"print(before is not None, importlib.util.find_spec('{PLANTED}'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "True None\n"
