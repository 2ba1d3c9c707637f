"""The RQ processes as users of RQ know them, and how they end, survive, and wake the deliveries."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.suspension import resume, suspend

from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.schemas.settings import Settings
from creditlane.worker.connections import connect_redis
from creditlane.worker.jobs import rq_worker
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.entrypoints import ROUND
from creditlane.worker.jobs.queues import open_queue
from creditlane.worker.jobs.rq_worker import LIFE_SECONDS, JobsWorker
from creditlane.worker.jobs.runs import request_run
from creditlane.worker.jobs.status import living_processes
from creditlane.worker.jobs.waker import Waker

from ...roles import migrate_with_roles
from .conftest import DEADLINE_SECONDS, LENGTH, StartJobs
from .tried_work import COUNT, HOLD

ENDPOINT = "11111111-1111-1111-1111-111111111111"

Effects = Callable[[], list[Any]]


def alive(settings: Settings, queue: Any = "jobs") -> list[int]:
    return [process.process_id for process in living_processes(settings, queue)]


def test_rq_info_shows_the_processes_each_on_one_queue(
    start_jobs: StartJobs, settings: Settings, rq: Callable[..., str]
) -> None:
    jobs, deliveries = start_jobs("jobs", tried=False), start_jobs("deliveries", tried=False)
    assert wait_until(lambda: len(alive(settings)) == len(alive(settings, "deliveries")) == 1, seconds=DEADLINE_SECONDS)

    lines = rq("info", "--raw").splitlines()

    prefix = settings.redis_prefix
    for process, queue in ((jobs, "jobs"), (deliveries, "deliveries")):
        (line,) = [line for line in lines if f" {process.pid})" in line]
        # Busy, if something is due by its schedule just now.
        assert re.match(f"(idle|busy) {prefix}-{queue}[.] jobs: [0-9]+ finished", line.split(") ")[1])


def test_a_signal_lets_the_job_be_finished(
    start_jobs: StartJobs, effects: Effects, connection: Connection, settings: Settings, jobs_queue: Queue
) -> None:
    """Given a process in the middle of a job, when it is asked to stop, then it finishes the job, takes no other, and
    ends well."""
    first, second = request_run(connection, HOLD), request_run(connection, COUNT)
    process = start_jobs()
    name = f"{settings.redis_prefix}:{first}:1"
    assert wait_until(lambda: jobs_queue.connection.lpop(f"{name}:reached") is not None, seconds=DEADLINE_SECONDS)
    process.send_signal(signal.SIGTERM)
    jobs_queue.connection.rpush(f"{name}:go", "1")

    assert process.wait(DEADLINE_SECONDS) == 0
    assert [effect[0] for effect in effects()] == [HOLD]
    statuses = connection.execute("select run_id, status from job_runs order by run_id").fetchall()
    assert statuses == [(first, 3), (second, 1)]
    assert alive(settings) == []


def test_an_idle_process_stops_at_once(start_jobs: StartJobs, settings: Settings) -> None:
    process = start_jobs(tried=False)
    assert wait_until(lambda: alive(settings) == [process.pid], seconds=DEADLINE_SECONDS)

    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 0


def test_a_process_comes_back_when_redis_and_postgres_were_away(
    own_redis: Callable[[], EmbeddedRedis],
    own_postgres: Callable[[], EmbeddedPostgres],
    settings: Settings,
    environment_of: Callable[[Settings], dict[str, str]],
    start_jobs: StartJobs,
    environment: dict[str, str],
) -> None:
    """Given a process at work, when both servers are killed and come back, then it is the same process that does the
    next run."""
    cache, database = own_redis(), own_postgres()
    url = database.create_database("jobs")
    migrate_with_roles(url, 8)
    own = settings.model_copy(update={"redis_url": cache.url, "database_url": url})
    environment.update(environment_of(own))
    process = start_jobs(tried=False)
    assert wait_until(lambda: alive(own) == [process.pid], seconds=DEADLINE_SECONDS)

    cache.kill()
    database.stop(immediate=True)
    database.start()
    cache.start()

    with psycopg.connect(url, autocommit=True) as connection:
        run_id = request_run(connection, "retention")
        done = "select status from job_runs where run_id = %s"
        assert wait_until(lambda: connection.execute(done, [run_id]).fetchone() == (3,), seconds=2 * DEADLINE_SECONDS)
    assert process.poll() is None
    assert wait_until(lambda: alive(own) == [process.pid], seconds=DEADLINE_SECONDS)


def test_a_suspended_process_takes_no_job(
    own_redis: Callable[[], EmbeddedRedis],
    settings: Settings,
    environment_of: Callable[[Settings], dict[str, str]],
    start_jobs: StartJobs,
    environment: dict[str, str],
    connection: Connection,
) -> None:
    """Given a process that waits for jobs, when RQ's workers are suspended, then it takes the next job once they are
    resumed, and not before. The Redis is the test's own, as the suspension is of all of it."""
    cache = own_redis()
    own = settings.model_copy(update={"redis_url": cache.url})
    environment.update(environment_of(own))
    process = start_jobs(tried=False)
    assert wait_until(lambda: alive(own) == [process.pid], seconds=DEADLINE_SECONDS)
    status = "select status from job_runs where run_id = %s"

    with connect_redis(cache.url) as client:
        suspend(client)
        assert wait_until(
            lambda: [found.state for found in living_processes(own, "jobs")] == ["suspended"], seconds=DEADLINE_SECONDS
        )

        def waits(run_id: int) -> bool:
            return any(f"-retention-{run_id}-" in name for name in open_queue(own, "jobs", client).job_ids)

        run_id = request_run(connection, "retention")
        # What is due by its schedule just now may be in the queue as well.
        assert wait_until(lambda: waits(run_id), seconds=DEADLINE_SECONDS)
        assert connection.execute(status, [run_id]).fetchone() == (1,)
        resume(client)

    assert wait_until(lambda: connection.execute(status, [run_id]).fetchone() == (3,), seconds=DEADLINE_SECONDS)


def test_a_process_on_a_database_without_a_ledger_says_what_to_do(
    empty_database_url: str, environment: dict[str, str]
) -> None:
    import sys

    values = {**environment, "CREDITLANE_DATABASE_URL": empty_database_url}
    command = [sys.executable, "-m", "creditlane.worker.jobs", "--queue", "jobs"]
    done = subprocess.run(command, env=values, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS)

    assert done.returncode == 1
    assert "creditlane migrate" in done.stderr.splitlines()[-1]


class Watched(JobsWorker):
    """Looks at what RQ knows of the job while it is done."""

    def perform_job(self, job: Job, queue: Queue, execution: Any) -> bool:
        first = self.last_heartbeat
        registry = queue.started_job_registry
        self.claimed = self.connection.zscore(registry.key, execution.composite_key)
        self.connection.zadd(registry.key, {execution.composite_key: 1})
        assert wait_until(lambda: self.last_heartbeat != first, seconds=DEADLINE_SECONDS)
        last = self.last_heartbeat
        assert wait_until(lambda: self.last_heartbeat != last, seconds=DEADLINE_SECONDS)
        self.renewed = self.connection.zscore(registry.key, execution.composite_key)
        self.time_to_live = self.connection.ttl(self.key)
        return super().perform_job(job, queue, execution)


@pytest.mark.usefixtures("length_job")
def test_a_process_sends_heartbeats_during_a_long_job(jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a job that may take hours, then its process claims to live for a minute or two, again and again."""
    monkeypatch.setattr(rq_worker, "BEAT_SECONDS", 0.01)
    job = jobs_queue.enqueue(LENGTH, [1, 2], job_timeout=86_400)
    worker = Watched(jobs_queue, "watched", threading.Event())
    worker.register_birth()

    worker.execute_job(job, jobs_queue)
    worker.register_death()

    assert time.time() < worker.claimed <= worker.renewed <= time.time() + LIFE_SECONDS
    assert 0 < worker.time_to_live <= LIFE_SECONDS
    assert job.get_status() == "finished"


@pytest.mark.usefixtures("length_job")
def test_a_job_whose_process_died_is_put_back_and_one_that_raised_is_not(jobs_queue: Queue) -> None:
    from creditlane.worker.jobs.queues import put_back_if_abandoned

    dead = jobs_queue.enqueue(LENGTH, [1], retry=put_back_if_abandoned())
    bad = jobs_queue.enqueue(LENGTH, 1, retry=put_back_if_abandoned())
    worker = JobsWorker(jobs_queue, "mortal", threading.Event())
    worker.register_birth()
    for job in (dead, bad):
        jobs_queue.remove(job)
    # Taken, started, and then no heartbeat.
    execution = worker.prepare_execution(dead)
    worker.prepare_job_execution(dead)
    jobs_queue.connection.zadd(jobs_queue.started_job_registry.key, {execution.composite_key: 1})
    jobs_queue.started_job_registry.cleanup()
    put_back = jobs_queue.job_ids

    worker.execute_job(bad, jobs_queue)
    worker.register_death()

    assert put_back == [dead.id]
    assert jobs_queue.job_ids == [dead.id]
    assert jobs_queue.failed_job_registry.get_job_ids(cleanup=False) == [bad.id]


def test_a_hint_wakes_the_deliveries_at_once_and_once(
    settings: Settings, connection: Connection, client_of_redis: redis.Redis
) -> None:
    """Given an outbox row, when a hint is given, then one round waits, however many hints there are."""
    queue = open_queue(settings, "deliveries", client_of_redis)
    stopping = threading.Event()
    waker = Waker(settings, stopping)
    thread = threading.Thread(target=waker.run)
    thread.start()
    try:
        add_outbox_row(connection)
        for _ in range(3):
            client_of_redis.rpush(Keys(settings.redis_prefix).wake_deliveries, "1")
        assert wait_until(lambda: queue.count > 0, seconds=DEADLINE_SECONDS)
        assert wait_until(
            lambda: client_of_redis.llen(Keys(settings.redis_prefix).wake_deliveries) == 0, seconds=DEADLINE_SECONDS
        )
    finally:
        stopping.set()
        thread.join()

    (job,) = queue.get_jobs()
    assert (job.func_name, job.args, job.kwargs) == (ROUND, [], {})


def test_outbox_rows_are_found_without_a_hint(
    settings: Settings, connection: Connection, client_of_redis: redis.Redis
) -> None:
    queue = open_queue(settings, "deliveries", client_of_redis)
    waker = Waker(settings, threading.Event())

    before = waker.poll(connection, queue)
    add_outbox_row(connection)
    after, again = waker.poll(connection, queue), waker.poll(connection, queue)

    assert (before, after, again, queue.count) == (False, True, False, 1)


def add_outbox_row(connection: Connection) -> None:
    connection.execute("insert into outbox (store_id, accounts, seqs, sequences) values (1, '{}', '{}', '{}')")


@pytest.mark.parametrize(
    ("endpoint", "delivery", "is_due"),
    [
        ("", "", True),
        ("", "next_attempt_at = now() + interval '1 minute'", False),
        ("", "status = 2, next_attempt_at = null", False),
        ("status = 2", "", False),
        ("paused_until = now() + interval '1 minute'", "", False),
        ("paused_until = now() - interval '1 minute'", "", True),
        ("sender = 's', sender_until = now() + interval '1 minute'", "", False),
        ("sender = 's', sender_until = now() - interval '1 minute'", "", True),
    ],
)
def test_a_round_is_needed_when_an_endpoint_without_a_sender_has_something_due(
    endpoint: str,
    delivery: str,
    is_due: bool,
    settings: Settings,
    connection: Connection,
    client_of_redis: redis.Redis,
) -> None:
    queue = open_queue(settings, "deliveries", client_of_redis)
    connection.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "values (1, %s, 1, 1, 'https://example.com', 'whsec_x')",
        [ENDPOINT],
    )
    connection.execute(
        "insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at) "
        "values (1, %s, %s, 1, now(), now())",
        [ENDPOINT, ENDPOINT],
    )
    for table, change in (("webhook_endpoints", endpoint), ("deliveries", delivery)):
        if change:
            connection.execute(f"update {table} set {change}".encode())

    assert Waker(settings, threading.Event()).poll(connection, queue) is is_due


def test_the_two_queues_have_names_of_the_installation(settings: Settings) -> None:
    with connect_redis(settings.require_redis_url()) as client:
        names = [open_queue(settings, queue, client).name for queue in ("deliveries", "jobs")]  # type: ignore[arg-type]

    assert names == [f"{settings.redis_prefix}-deliveries", f"{settings.redis_prefix}-jobs"]
