"""A stage that does not get on is seen, whatever its thread is waiting for, and the cause names nobody."""

import threading

import psycopg
import pytest
import redis

from creditlane.lanes.postgres.sessions import ServerSilent
from creditlane.schemas.worker_metrics import StageTrouble
from creditlane.worker.progress import ENDED, NO_ANSWER, Progress, cause_of

from .moved_clock import MovedClock


@pytest.fixture
def time() -> MovedClock:
    return MovedClock()


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def progress(time: MovedClock, stopping: threading.Event) -> Progress:
    return Progress(stopping, time)


def test_a_stage_without_work_is_not_stuck(progress: Progress, time: MovedClock) -> None:
    progress.reader.begin()
    progress.reader.end()
    time.now += 100

    assert progress.stuck(10) == {}


def test_a_stage_that_waits_for_one_answer_is_stuck_after_a_lease(progress: Progress, time: MovedClock) -> None:
    progress.applier.begin()
    time.now += 10
    assert progress.stuck(10) == {}
    time.now += 1

    assert progress.stuck(10) == {"applier": StageTrouble(NO_ANSWER, 11, 0)}


def test_attempts_that_fail_are_one_piece_of_work(progress: Progress, time: MovedClock) -> None:
    for _ in range(3):
        progress.reader.begin()
        time.now += 4
        progress.reader.fail(redis.ConnectionError("10.0.0.1:6379"))

    assert progress.stuck(10) == {"reader": StageTrouble("Redis is away", 12, 3)}
    assert progress.troubles(100) == progress.stuck(10)

    progress.reader.end()
    assert progress.troubles(0) == {}


def test_a_part_that_is_done_is_progress(progress: Progress, time: MovedClock) -> None:
    progress.applier.begin()
    for _ in range(3):
        time.now += 6
        progress.applier.advance()

    assert progress.stuck(10) == {}


def test_a_stage_whose_thread_has_ended_is_stuck_unless_it_was_asked_to_end(
    progress: Progress, stopping: threading.Event
) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    progress.threads = {"reader": thread}

    assert progress.stuck(10) == {"reader": StageTrouble(ENDED, 0, 0)}

    stopping.set()
    assert progress.stuck(10) == {}


CAUSES = [
    (ServerSilent("x"), "Postgres does not answer"),
    (psycopg.OperationalError('connection to server at "10.0.0.1" failed'), "Postgres is away"),
    (psycopg.errors.QueryCanceled("secret"), "Postgres answers 57014 (QueryCanceled)"),
    (redis.TimeoutError("10.0.0.1"), "Redis does not answer"),
    (redis.ConnectionError("10.0.0.1"), "Redis is away"),
    (redis.ResponseError("WRONGTYPE Operation against a key"), "Redis answers WRONGTYPE"),
    (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), "Redis answers ReadOnlyError"),
    (RuntimeError("secret"), "RuntimeError"),
]


@pytest.mark.parametrize(("error", "cause"), CAUSES, ids=[cause for _, cause in CAUSES])
def test_a_cause_says_what_is_wrong_and_repeats_nothing(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
