"""A run is done once: by its owner, or by whoever takes over from one that is dead or was taken for dead."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from creditlane.local.processes import wait_until
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs import registry
from creditlane.worker.jobs.database import Connection, connect
from creditlane.worker.jobs.runs import MAX_ATTEMPTS, Outcome, Run, RunAbandoned, RunLost, perform_run, request_run
from creditlane.worker.jobs.scheduler import see_to_runs

from .conftest import DEADLINE_SECONDS, StartJobs
from .tried_work import COUNT, HOLD, STUMBLE

Effects = Callable[[], list[tuple[str, datetime]]]


def outcome_of(connection: Connection, run_id: int) -> tuple[Any, ...]:
    row = connection.execute("select status, attempts, outcome from job_runs where run_id = %s", [run_id]).fetchone()
    assert row is not None
    return row


def reached(queue: Queue, settings: Settings, run_id: int, attempt: int) -> None:
    """Wait until the run has begun for the nth time."""
    name = f"{settings.redis_prefix}:{run_id}:{attempt}:reached"
    assert wait_until(lambda: queue.connection.lpop(name) is not None, seconds=DEADLINE_SECONDS)


def go_on(queue: Queue, settings: Settings, run_id: int, attempt: int) -> None:
    queue.connection.rpush(f"{settings.redis_prefix}:{run_id}:{attempt}:go", "1")


def lapse(connection: Connection, run_id: int) -> None:
    """Let the owner of the run be taken for dead."""
    connection.execute("update job_runs set owner_until = now() - interval '1 s' where run_id = %s", [run_id])


def test_a_run_whose_owner_is_killed_is_done_by_another_once(
    start_jobs: StartJobs, effects: Effects, connection: Connection, settings: Settings, jobs_queue: Queue
) -> None:
    """Given a process that is killed in the middle of a run, when its lease is over, then another does the run."""
    run_id = request_run(connection, HOLD)
    first = start_jobs()
    reached(jobs_queue, settings, run_id, 1)
    first.send_signal(signal.SIGKILL)
    first.wait(DEADLINE_SECONDS)
    start_jobs()
    reached(jobs_queue, settings, run_id, 2)
    go_on(jobs_queue, settings, run_id, 2)

    assert wait_until(lambda: HOLD in dict(effects()), seconds=DEADLINE_SECONDS)
    assert [name for name, _ in effects()].count(HOLD) == 1
    assert outcome_of(connection, run_id) == (3, 2, {"attempts": 2})


def test_an_owner_that_was_paused_brings_about_nothing(
    start_jobs: StartJobs, effects: Effects, connection: Connection, settings: Settings, jobs_queue: Queue
) -> None:
    """Given a process that is stopped past its lease, when another has done the run and the first wakes up, then there
    is one effect and the first goes on with other work."""
    run_id = request_run(connection, HOLD)
    first = start_jobs()
    reached(jobs_queue, settings, run_id, 1)
    first.send_signal(signal.SIGSTOP)
    start_jobs()
    reached(jobs_queue, settings, run_id, 2)
    go_on(jobs_queue, settings, run_id, 2)
    assert wait_until(lambda: HOLD in dict(effects()), seconds=DEADLINE_SECONDS)
    first.send_signal(signal.SIGCONT)
    go_on(jobs_queue, settings, run_id, 1)

    first.send_signal(signal.SIGTERM)
    assert first.wait(DEADLINE_SECONDS) == 0
    assert [name for name, _ in effects()].count(HOLD) == 1
    assert outcome_of(connection, run_id) == (3, 2, {"attempts": 2})


def test_two_that_want_a_run_at_once_are_one_owner(
    connection: Connection, settings: Settings, effects: Effects
) -> None:
    run_id = request_run(connection, HOLD)
    with connect(settings) as other:
        claims = [
            Run(settings, opened, run_id, HOLD, f"owner {n}").claim() for n, opened in enumerate((connection, other))
        ]

    assert (claims, effects()) == ([True, False], [])


def test_what_is_brought_about_and_the_mark_are_one(
    connection: Connection, settings: Settings, effects: Effects
) -> None:
    """Given an owner that was taken for dead, when it finishes after the other, then nothing of it is there."""
    run_id = request_run(connection, HOLD)
    first, second = (Run(settings, connection, run_id, HOLD, owner) for owner in ("first", "second"))
    first.claim()
    lapse(connection, run_id)
    second.claim()

    def effect(opened: Connection) -> None:
        opened.execute("insert into effects values ('x', now())")

    with pytest.raises(RunLost):
        first.save({"rows": 1})
    with pytest.raises(RunLost):
        first.finish(Outcome({}, effect))
    assert effects() == []
    second.finish(Outcome({"by": "second"}, effect))
    assert [name for name, _ in effects()] == ["x"]
    assert outcome_of(connection, run_id) == (3, 2, {"by": "second"})


def test_a_run_that_is_done_is_not_done_again(connection: Connection, effects: Effects) -> None:
    run_id = request_run(connection, COUNT)

    first, second = perform_run(run_id), perform_run(run_id)

    assert (first, second["status"] == "skipped", len(effects())) == ({"run": run_id, "attempts": 1}, True, 1)


def test_whoever_takes_over_goes_on_where_the_other_was(connection: Connection, settings: Settings) -> None:
    run_id = request_run(connection, "export", {"store_id": 1})
    first, second = (Run(settings, connection, run_id, "export", owner) for owner in ("first", "second"))
    first.claim()
    first.save({"rows": 5})
    lapse(connection, run_id)
    second.claim()

    assert (first.progress, second.progress) == ({"rows": 5}, {"rows": 5})
    assert (second.arguments, second.attempts) == ({"store_id": 1}, 2)


def test_a_requested_run_of_a_scheduled_job_is_the_one_under_way(connection: Connection, effects: Effects) -> None:
    first, second = request_run(connection, COUNT), request_run(connection, COUNT)
    perform_run(first)

    assert (first == second, request_run(connection, COUNT) > first, len(effects())) == (True, True, 1)


def test_a_failed_run_stands_in_the_failed_registry_and_rq_requeues_it(
    start_jobs: StartJobs,
    effects: Effects,
    connection: Connection,
    settings: Settings,
    jobs_queue: Queue,
    rq: Callable[..., str],
) -> None:
    """Given a run that fails, when RQ's own command requeues its job, then it is done, from where it was."""
    run_id = request_run(connection, STUMBLE)
    start_jobs()
    failed = jobs_queue.failed_job_registry
    assert wait_until(lambda: failed.get_job_count(cleanup=False) == 1, seconds=DEADLINE_SECONDS)
    (job_id,) = failed.get_job_ids(cleanup=False)
    result = Job.fetch(job_id, connection=jobs_queue.connection, serializer=JSONSerializer).latest_result()
    error = connection.execute("select status, error from job_runs where run_id = %s", [run_id]).fetchone()
    see_to_runs(connection, settings, jobs_queue)

    output = rq("requeue", "--queue", f"{settings.redis_prefix}-jobs", "--serializer", "json", job_id)

    assert error == (4, "RuntimeError: it stumbled")
    assert result is not None
    assert str(result.exc_string).rstrip().endswith("RuntimeError: it stumbled")
    assert "Requeueing 1 jobs" in output
    assert wait_until(lambda: STUMBLE in dict(effects()), seconds=DEADLINE_SECONDS)
    assert wait_until(lambda: failed.get_job_count(cleanup=False) == 0, seconds=DEADLINE_SECONDS)
    assert outcome_of(connection, run_id) == (3, 1, {"attempts": 1})


def test_a_run_that_kills_its_processes_fails_at_last(
    connection: Connection, settings: Settings, effects: Effects
) -> None:
    """Given a run under which process after process has died, then the next one says so and does not try."""
    run_id = request_run(connection, COUNT)
    for number in range(MAX_ATTEMPTS):
        assert Run(settings, connection, run_id, COUNT, f"owner {number}").claim()
        lapse(connection, run_id)

    with pytest.raises(RunAbandoned):
        perform_run(run_id)

    assert (outcome_of(connection, run_id)[0], effects()) == (4, [])
    assert perform_run(run_id) == {"run": run_id, "attempts": 1}


def test_a_run_is_put_off_while_postgres_is_away(
    connection: Connection, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = request_run(connection, COUNT)
    with monkeypatch.context() as away:
        away.setenv("CREDITLANE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
        put_off = perform_run(run_id)

    assert put_off == {"run": run_id, "status": "postponed", "reason": "Postgres is away"}
    assert (perform_run(run_id)["attempts"], len(effects())) == (1, 1)


@pytest.mark.parametrize("name", sorted(registry.KINDS))
def test_every_kind_of_job_can_be_loaded(name: str) -> None:
    assert callable(registry.KINDS[name].load())


def test_due_times_are_on_the_grid_of_cron_in_utc() -> None:
    moment = datetime(2026, 3, 29, 0, 59, 59, 999_999, tzinfo=UTC)

    times = [moment]
    for _ in range(3):
        times.append(registry.next_due("*/30 * * * *", times[-1]))

    hour = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert times[1:] == [hour, hour + timedelta(minutes=30), hour + timedelta(hours=1)]
