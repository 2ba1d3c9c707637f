"""One connection of a worker goes silent and stays open: the worker gets on within its lease, or others do instead."""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator

import psycopg
import pytest

from creditlane.schemas.settings import Settings

from ..tcp_link import TcpLink, postgres_address, redis_address
from .history import History
from .owners import owned_by
from .producing import Producer
from .worker_processes import StartWorker, wait_for

#: Logs how long it took: pytest -o log_cli=true -o log_cli_level=info
log = logging.getLogger(__name__)

LEASE_SECONDS = 2.0
#: How long after the lease everything flows again, in seconds, and how much more a busy machine may take.
AFTER_LEASE_SECONDS = 2.0
BUSY_SECONDS = 10.0
#: What only the connections of one thread of a worker carry.
THREADS = {
    "reader": b"XREAD",
    "applier": b"creditlane-worker ",
    "announcer": b"XADD",
    "keeper": b"creditlane-worker\0",
}


@pytest.fixture
def brief(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_seconds": LEASE_SECONDS})


class Ways:
    """The ways of one worker to both servers."""

    def __init__(self, settings: Settings, postgres: TcpLink, redis: TcpLink) -> None:
        self._links = (postgres, redis)
        database_url = postgres.postgres_url(settings.require_database_url())
        redis_url = redis.redis_url(settings.require_redis_url())
        self.settings = settings.model_copy(update={"database_url": database_url, "redis_url": redis_url})

    def silence(self, thread: str) -> int:
        """Let the connections of one thread be silent for ever. Returns how many there were."""
        return sum(link.silence_open(THREADS[thread]) for link in self._links)


@contextlib.contextmanager
def ways_of(settings: Settings) -> Iterator[Ways]:
    """Give the ways for a worker, with the settings that lead over them; they end with the block."""
    marks = THREADS.values()
    with (
        TcpLink(postgres_address(settings.require_database_url()), marks=marks) as postgres,
        TcpLink(redis_address(settings.require_redis_url()), marks=marks) as redis,
    ):
        yield Ways(settings, postgres, redis)


def wait_until_all_flows(producer: Producer, history: History, seconds: float) -> float:
    """Wait until what was sent after now on every account is decided and announced. Returns how long it took."""
    started = time.monotonic()
    before = len(producer.accepted)
    producer.wait_for_more(8 * len(producer.accounts))
    sent = len(producer.accepted)

    def is_announced() -> bool:
        announced = history.announcements(producer.id)
        return all(number in announced for number in range(before + 1, sent + 1))

    wait_for(is_announced, "everything that was sent after the fault", seconds - (time.monotonic() - started))
    return time.monotonic() - started


def renewals(settings: Settings) -> list[float]:
    with psycopg.connect(settings.require_database_url()) as connection:
        rows = connection.execute("select extract(epoch from expires_at)::float from workers").fetchall()
    return [expires_at for (expires_at,) in rows]


@pytest.mark.parametrize("thread", THREADS)
def test_a_worker_alone_gets_on_within_its_lease_when_a_connection_goes_silent(
    thread: str, brief: Settings, start_worker: StartWorker
) -> None:
    history = History(brief)
    with ways_of(brief) as ways:
        with Producer(brief, accounts=24) as producer:
            # Given a worker at work
            worker = start_worker(ways.settings)
            history.wait_for_more_rows(100)
            # When the connection of one of its threads goes silent
            wait_for(lambda: ways.silence(thread), "a connection of this thread")
            shown = renewals(brief)
            # Then every lane flows again, and it sends heartbeats again
            seconds = wait_until_all_flows(producer, history, LEASE_SECONDS + AFTER_LEASE_SECONDS + BUSY_SECONDS)
            log.info("every lane flowed again after %.2f s", seconds)
            wait_for(lambda: renewals(brief) > shown, "a heartbeat")
        history.check(producer)
    assert not worker.has_ended


@pytest.mark.parametrize("thread", ["applier", "reader", "announcer"])
def test_another_worker_has_the_lanes_of_one_that_does_not_get_on_and_gives_them_back(
    thread: str, brief: Settings, start_worker: StartWorker
) -> None:
    history = History(brief)
    with ways_of(brief) as ways:
        with Producer(brief, accounts=24) as producer:
            # Given two workers at work
            stuck, other = start_worker(ways.settings), start_worker(brief)
            wait_for(lambda: owned_by(brief) == {stuck.pid: 4, other.pid: 4}, "an equal share each")
            history.wait_for_more_rows(100)
            # When one of them no longer gets on
            wait_for(lambda: ways.silence(thread), "a connection of this thread")
            # Then every lane flows again
            seconds = wait_until_all_flows(producer, history, LEASE_SECONDS + AFTER_LEASE_SECONDS + BUSY_SECONDS)
            log.info("every lane flowed again after %.2f s", seconds)
            # And it has a share again when it gets on
            wait_for(lambda: owned_by(brief) == {stuck.pid: 4, other.pid: 4}, "an equal share again")
        history.check(producer)
    assert [stuck.has_ended, other.has_ended] == [False, False]


def test_a_worker_whose_connection_is_silent_stops_when_it_is_asked(brief: Settings, start_worker: StartWorker) -> None:
    history = History(brief)
    producer = Producer(brief)
    producer.open_accounts()
    with ways_of(brief) as ways:
        worker = start_worker(ways.settings)
        history.wait_until_settled()
        assert sum(map(ways.silence, THREADS)) >= 4
        worker.signal(signal.SIGTERM)
        assert worker.wait_for_exit() == 0
    # And what it owned is soon another's
    start_worker(brief)
    producer.write(50)
    history.check(producer)
