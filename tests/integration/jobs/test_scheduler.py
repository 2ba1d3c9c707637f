"""What is due is made once, whatever schedulers, clocks and the killer do. The clock is a row that the test moves."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rq import Queue

from creditlane.local.processes import wait_until
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.database import Connection, connect
from creditlane.worker.jobs.runs import perform_run
from creditlane.worker.jobs.scheduler import Scheduler

from .conftest import DEADLINE_SECONDS, StartJobs
from .tried_work import COUNT

NOON = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

Effects = Callable[[], list[tuple[str, datetime]]]


class Clock:
    """The time as the schedulers have it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.execute("create table test_clock (now timestamptz not null)")
        connection.execute("grant select on test_clock to public")
        connection.execute("insert into test_clock values (%s)", [NOON])

    def set(self, now: datetime) -> None:
        self._connection.execute("update test_clock set now = %s", [now])


@pytest.fixture
def clock(connection: Connection) -> Clock:
    return Clock(connection)


@pytest.fixture
def scheduler(settings: Settings, connection: Connection, clock: Clock, effects: Effects) -> Scheduler:
    """A scheduler whose schedules are written down at noon and half a minute; the first run is due at 12:01."""
    assert (clock, effects()) != (None, None)
    made = scheduler_of(settings)
    made.sync(connection)
    return made


def scheduler_of(settings: Settings, **options: Any) -> Scheduler:
    return Scheduler(settings, threading.Event(), clock="(select now from test_clock)", **options)


def do_all(queue: Queue) -> int:
    """Do the runs that wait on the queue, as an RQ process does, and return how many jobs that were."""
    jobs = queue.get_jobs()
    for job in jobs:
        perform_run(*job.args)
        queue.remove(job.id)
        job.delete()
    return len(jobs)


def due_times(effects: Effects) -> list[datetime]:
    return [due_at for _, due_at in effects()]


def test_nothing_is_due_before_its_time(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock
) -> None:
    scheduler.tick(connection, jobs_queue)
    clock.set(NOON + timedelta(seconds=29))
    scheduler.tick(connection, jobs_queue)

    assert jobs_queue.job_ids == []


def test_a_run_is_made_when_it_is_due_and_done_once(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects
) -> None:
    clock.set(NOON + timedelta(seconds=30))
    for _ in range(5):
        scheduler.tick(connection, jobs_queue)

    assert do_all(jobs_queue) == 1
    assert effects() == [(COUNT, datetime(2026, 3, 1, 12, 1, tzinfo=UTC))]


def test_two_schedulers_at_once_for_many_ticks(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects, settings: Settings
) -> None:
    """Given two schedulers that check at the same moment, a hundred minutes long, then every minute has one effect."""
    together = threading.Barrier(2)

    def tick(one: Scheduler, opened: Connection) -> None:
        together.wait(DEADLINE_SECONDS)
        one.tick(opened, jobs_queue)

    with connect(settings) as other, ThreadPoolExecutor(2) as pool:
        for minute in range(100):
            clock.set(NOON + minute * MINUTE)
            pairs = [(scheduler, connection), (scheduler_of(settings), other)]
            for future in [pool.submit(tick, *pair) for pair in pairs]:
                future.result(DEADLINE_SECONDS)
            do_all(jobs_queue)

    assert due_times(effects) == [NOON - timedelta(seconds=30) + minute * MINUTE for minute in range(1, 100)]


def test_a_clock_that_goes_back_runs_nothing_again(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects
) -> None:
    """Given ten minutes that were done, when the clock goes back an hour and all of it is had again, then what was done
    is not done again, and what comes after it is."""
    for minute in range(1, 11):
        clock.set(NOON + minute * MINUTE)
        scheduler.tick(connection, jobs_queue)
        do_all(jobs_queue)
    done = due_times(effects)

    for minute in range(6, 15):
        clock.set(NOON + minute * MINUTE)
        scheduler.tick(connection, jobs_queue)
        do_all(jobs_queue)

    assert len(done) == 10
    assert due_times(effects) == [done[0] + minute * MINUTE for minute in range(14)]


def test_a_clock_that_leaps_ahead_is_caught_up_with_by_one_run(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects
) -> None:
    clock.set(NOON + timedelta(days=3))
    for _ in range(3):
        scheduler.tick(connection, jobs_queue)
        do_all(jobs_queue)
    clock.set(NOON + timedelta(days=3) + MINUTE)
    scheduler.tick(connection, jobs_queue)
    do_all(jobs_queue)

    first = NOON + timedelta(seconds=30)
    assert due_times(effects) == [first, first + timedelta(days=3)]


def test_a_clock_that_was_ahead_for_a_while_stops_nothing(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects
) -> None:
    """Given a clock that leapt ahead by years and was put right, then work goes on at the right time, not in years."""
    for now in (NOON + timedelta(days=3_000), NOON + MINUTE, NOON + 2 * MINUTE, NOON + 3 * MINUTE):
        clock.set(now)
        scheduler.tick(connection, jobs_queue)
        do_all(jobs_queue)

    first = NOON + timedelta(seconds=30)
    assert due_times(effects) == [first, first + MINUTE, first + 2 * MINUTE]


def test_while_a_run_is_under_way_its_job_waits(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects
) -> None:
    """Given a run that nobody has done yet, when its job is due again and again, then one run catches up on it."""
    for minute in range(1, 6):
        clock.set(NOON + minute * MINUTE)
        scheduler.tick(connection, jobs_queue)
    first = do_all(jobs_queue)
    scheduler.tick(connection, jobs_queue)

    assert (first, do_all(jobs_queue)) == (1, 1)
    assert due_times(effects) == [NOON + timedelta(seconds=30), NOON + timedelta(seconds=30) + MINUTE]


@pytest.mark.parametrize("step", ["run made", "runs made", "job made"])
def test_a_scheduler_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    step: str, start_jobs: StartJobs, effects: Effects, connection: Connection
) -> None:
    """Given a scheduler that is killed before it commits a run, between that and the run's job in RQ, or between the
    job and the note of it; when another one starts, then the run is done once."""
    due_at = make_due(connection)
    killed = start_jobs("deliveries", "kill", step, "1")
    code = killed.wait(DEADLINE_SECONDS)
    start_jobs("jobs")

    assert code == -signal.SIGKILL
    assert wait_until(lambda: due_at in due_times(effects), seconds=DEADLINE_SECONDS)
    assert due_times(effects).count(due_at) == 1
    done = "select count(*) from job_runs where due_at = %s and status = 3"
    assert connection.execute(done, [due_at]).fetchone() == (1,)


def make_due(connection: Connection) -> datetime:
    """Let the tests' scheduled job be due, and return for when."""
    statement = "insert into scheduled_jobs values (%s, '* * * * *', now()) returning next_due_at"
    (due_at,) = connection.execute(statement, [COUNT]).fetchone() or (None,)
    assert isinstance(due_at, datetime)
    return due_at


def test_a_job_that_rq_has_lost_is_made_again(
    scheduler: Scheduler, connection: Connection, jobs_queue: Queue, clock: Clock, effects: Effects
) -> None:
    """Given a run whose job is gone with Redis's data, when it was last seen to a while ago, then it has another."""
    clock.set(NOON + MINUTE)
    scheduler.tick(connection, jobs_queue)
    jobs_queue.empty()
    scheduler.tick(connection, jobs_queue)
    trusted = jobs_queue.count
    connection.execute("update job_runs set enqueued_at = enqueued_at - interval '31 seconds'")
    scheduler.tick(connection, jobs_queue)

    assert (trusted, jobs_queue.count, do_all(jobs_queue), len(effects())) == (0, 1, 1, 1)
