"""A lease keeper gives back and takes what it can, whatever others keep locked meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg
import pytest
from structlog.testing import capture_logs

from creditlane.schemas.settings import Settings
from creditlane.worker.connections import connect_postgres
from creditlane.worker.lanes.leases import LeaseKeeper
from creditlane.worker.lanes.ownership import Ownership
from creditlane.worker.metrics import Metrics
from creditlane.worker.progress import Progress

from ..faults.worker_processes import wait_for

ME = "me"
OTHER = "the other"
LEASE_SECONDS = 2.0
#: Another worker with a heartbeat now, for so long. Nobody sends another in these tests.
HEARTBEAT = """
insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck, release)
values (%s, 'elsewhere', 1, clock_timestamp() + make_interval(secs => %s), '{}', %s, %s, 1)
"""
REPLACING = "ending the sessions of workers that send no heartbeats or do not get on"
LOCK_LEASES = "select 1 from leases where partition = any(%s) order by partition for update"


class Time:
    """A clock by which a stage has been at its work for as long as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def keeping(settings: Settings, *, is_stuck: bool) -> Iterator[None]:
    """A keeper that runs in this process, for a worker that gets on or does not."""
    stopping, time = Event(), Time()
    progress = Progress(stopping, time)
    if is_stuck:
        progress.applier.begin()
        time.now = 2 * LEASE_SECONDS
    keeper = LeaseKeeper(
        settings.require_database_url(), ME, Ownership(), Metrics(), progress, stopping, lease_seconds=LEASE_SECONDS
    )
    thread = Thread(target=keeper.run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        keeper.leave()


@pytest.fixture
def watcher(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def lanes_of(watcher: psycopg.Connection[tuple[object, ...]], worker_id: str) -> set[object]:
    statement = "select partition from leases where worker_id = %s"
    return {partition for (partition,) in watcher.execute(statement, [worker_id])}


def test_lanes_that_another_keeps_locked_do_not_keep_a_stuck_worker_from_giving_back_the_rest(
    settings: Settings, watcher: psycopg.Connection[tuple[object, ...]]
) -> None:
    # Given a worker that does not get on, and a living one in whose batch some of its lanes are locked
    watcher.execute("update leases set worker_id = case when partition < 4 then %s else %s end", [ME, OTHER])
    watcher.execute(HEARTBEAT, [OTHER, 300.0, 300.0, False])
    with connect_postgres(settings.require_database_url(), worker_id=OTHER) as other:
        other.execute(LOCK_LEASES, [[0, 2]])
        # When it gives its lanes back, then these alone stay, and nobody who lives is disturbed
        with keeping(settings, is_stuck=True):
            wait_for(lambda: lanes_of(watcher, ME) == {0, 2}, "the lanes that nobody has locked")
            other.commit()
            wait_for(lambda: not lanes_of(watcher, ME), "the other lanes")
    assert lanes_of(watcher, OTHER) == {4, 5, 6, 7}


def test_a_stuck_worker_ends_the_sessions_of_a_silent_one_that_keep_its_lanes_locked(
    settings: Settings, watcher: psycopg.Connection[tuple[object, ...]]
) -> None:
    # Given a worker that does not get on, since one that died keeps its lanes locked
    watcher.execute("update leases set worker_id = case when partition < 4 then %s else %s end", [ME, OTHER])
    watcher.execute(HEARTBEAT, [OTHER, 0.0, LEASE_SECONDS, False])
    with connect_postgres(settings.require_database_url(), worker_id=OTHER) as dead:
        dead.execute(LOCK_LEASES, [[0, 1, 2, 3]])
        # When there is nobody else, then it ends that session itself, and its lanes are free
        with keeping(settings, is_stuck=True):
            wait_for(lambda: not lanes_of(watcher, ME), "its lanes to be nobody's", 15)
        with pytest.raises(psycopg.OperationalError):
            dead.execute("select 1")


def test_a_locked_row_of_a_silent_worker_costs_no_connection(
    settings: Settings, watcher: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Given a worker to be replaced, whose row somebody keeps locked, then it is only asked again for its lanes."""
    watcher.execute("update leases set worker_id = %s", [OTHER])
    watcher.execute(HEARTBEAT, [OTHER, 300.0, 300.0, True])
    with psycopg.connect(settings.require_database_url()) as locking:
        locking.execute("select 1 from workers where worker_id = %s for update", [OTHER])
        with capture_logs() as logs, keeping(settings, is_stuck=False):
            wait_for(lambda: len([log for log in logs if log["event"] == REPLACING]) > 1, "another attempt")
            locking.commit()
            wait_for(lambda: len(lanes_of(watcher, ME)) == 8, "the lanes of the one that is replaced")
    assert "leases cannot be renewed, trying again" not in [log["event"] for log in logs]
