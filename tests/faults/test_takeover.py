"""What a killed worker owned is another's in one step, also under load, and whatever the clock had said meanwhile.

With CREDITLANE_TEST_LONG=1 at a lease of ten seconds, ten times.
"""

import logging
import random
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from creditlane.audit.whole import verify
from creditlane.schemas.commands import Command, Credit, Post, PostEntry
from creditlane.schemas.settings import Settings

from .extent import LONG, SEEDS
from .owners import owned_by
from .producing import Producer
from .worker_processes import StartWorker, WorkerProcess, wait_for

#: Logs how long it took: pytest -o log_cli=true -o log_cli_level=info
log = logging.getLogger(__name__)

LEASE_SECONDS = 10.0 if LONG else 2.0
#: What everything that follows a kill may take beyond the lease, and what a busy machine may add, in seconds.
AFTER_LEASE_SECONDS = 2.0
BUSY_SECONDS = 0.0 if LONG else 5.0
#: How long a batch of another lane keeps leases locked, in seconds, and how many of them there are at a time.
LOCKED_SECONDS = 0.1
BATCHES_AT_ONCE = 2
AN_HOUR_AHEAD = "update workers set expires_at = expires_at + interval '1 hour'"
#: What every heartbeat says becomes what it would be if the clock had just jumped ahead.
AN_HOUR_LATER = "update workers set expires_at = expires_at - interval '1 hour' where expires_at > now()"


class PostingProducer(Producer):
    """Sends transactions between accounts of all lanes among its other commands."""

    def _random_command(self) -> Command:
        choose = self._random
        if choose.randrange(3):
            return super()._random_command()
        source, target = choose.sample(self.accounts, 2)
        return Post(
            reference="moved",
            entries=(
                PostEntry(account_id=source, side="debit", amount=1),
                PostEntry(account_id=target, side="credit", amount=1),
            ),
            idempotency_key=f"{self.id} post {choose.getrandbits(64):x}",
        )


@pytest.fixture
def shared_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_seconds": LEASE_SECONDS, "batch_limit": 100})


@pytest.fixture
def producer(shared_settings: Settings) -> Iterator[Producer]:
    """Writes to every lane while the test goes on."""
    with PostingProducer(shared_settings, accounts=40) as producer:
        yield producer


def wait_until_every_account_moves(settings: Settings, producer: Producer, seconds: float) -> float:
    """Wait until a credit to each account, sent now, is applied. Returns how long it took."""
    started = time.monotonic()
    credits_sent = [
        Credit(account_id=account, amount=1, reference="after", idempotency_key=f"after {account} {started}")
        for account in producer.accounts
    ]
    sender = Producer(settings, seed=random.randrange(1 << 60))
    sender.send(credits_sent)
    keys = [command.idempotency_key for command in credits_sent]
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:

        def all_applied() -> bool:
            counted = connection.execute("select count(*) from journal where idempotency_key = any(%s)", [keys])
            return counted.fetchone() == (len(keys),)

        wait_for(all_applied, "a credit to every account", seconds)
    return time.monotonic() - started


@pytest.mark.parametrize("seed", SEEDS)
def test_every_lane_flows_again_within_the_lease_and_two_seconds_of_a_kill(
    seed: int, shared_settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    # Given three workers that share the lanes under load
    workers = [start_worker(shared_settings) for _ in range(3)]
    wait_for(lambda: sorted(owned_by(shared_settings).values()) == [2, 3, 3], "a share each")
    wait_until_every_account_moves(shared_settings, producer, 20)
    # When one of them is killed
    random.Random(seed).choice(workers).end()
    # Then
    seconds = wait_until_every_account_moves(
        shared_settings, producer, LEASE_SECONDS + AFTER_LEASE_SECONDS + BUSY_SECONDS
    )
    log.info("every lane flowed again after %.2f s", seconds)
    assert sorted(owned_by(shared_settings).values()) == [4, 4]
    assert verify(shared_settings.require_database_url()).failed == []


class Reaching:
    """Keeps some leases locked all of the time, as batches do whose transactions reach into those lanes."""

    def __init__(self, settings: Settings, partitions: list[int]) -> None:
        self._settings = settings
        self._partitions = partitions
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(BATCHES_AT_ONCE)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        statement = "select 1 from leases where partition = any(%s) order by partition for update"
        with psycopg.connect(self._settings.require_database_url()) as connection:
            while not self._stopping.is_set():
                connection.execute(statement, [self._partitions])
                self._stopping.wait(LOCKED_SECONDS)
                connection.commit()


def lanes_of(settings: Settings, worker: WorkerProcess) -> list[int]:
    with psycopg.connect(settings.require_database_url()) as connection:
        statement = "select partition from leases join workers using (worker_id) where process_id = %s order by 1"
        return [partition for (partition,) in connection.execute(statement, [worker.pid])]


def test_lanes_that_others_keep_locked_are_taken_in_one_step_too(
    shared_settings: Settings, start_worker: StartWorker
) -> None:
    killed, other = start_worker(shared_settings), start_worker(shared_settings)
    wait_for(lambda: owned_by(shared_settings) == {killed.pid: 4, other.pid: 4}, "an equal share each")
    lanes = lanes_of(shared_settings, killed)
    with Reaching(shared_settings, lanes):
        killed.end()
        wait_for(
            lambda: len(lanes_of(shared_settings, other)) == 8,
            "the lanes of the one that was killed",
            LEASE_SECONDS + AFTER_LEASE_SECONDS + BUSY_SECONDS,
        )


def test_a_worker_killed_while_the_clock_was_wrong_keeps_its_lanes_no_longer_than_its_lease(
    shared_settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    # Given two workers that sent heartbeats while the clock was an hour ahead
    killed, other = start_worker(shared_settings), start_worker(shared_settings)
    wait_for(lambda: owned_by(shared_settings) == {killed.pid: 4, other.pid: 4}, "an equal share each")
    # When the clock is right again, and one is killed before it shows more
    killed.end()
    with psycopg.connect(shared_settings.require_database_url()) as connection:
        connection.execute(AN_HOUR_AHEAD)
    # Then the other waits for no longer than it would have waited anyway
    slack = 0.5 + LEASE_SECONDS * 0.4
    wait_until_every_account_moves(
        shared_settings, producer, LEASE_SECONDS + slack + AFTER_LEASE_SECONDS + BUSY_SECONDS
    )


def test_a_jump_of_the_clock_costs_nobody_its_lanes(
    shared_settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    # Given two workers with a share each
    for _ in range(2):
        start_worker(shared_settings)
    wait_for(lambda: sorted(owned_by(shared_settings).values()) == [4, 4], "an equal share each")
    with psycopg.connect(shared_settings.require_database_url(), autocommit=True) as connection:
        before = connection.execute("select partition, worker_id, epoch from leases order by 1").fetchall()
        # When every lease is over at once, again and again, by the clock
        end = time.monotonic() + 2 * LEASE_SECONDS
        while time.monotonic() < end:
            connection.execute(
                "update workers set expires_at = expires_at - interval '1 hour' where expires_at > now()"
            )
            wait_until_every_account_moves(shared_settings, producer, 20)
        # Then each still has what it had
        assert connection.execute("select partition, worker_id, epoch from leases order by 1").fetchall() == before
