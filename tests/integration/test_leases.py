"""Worker processes come and go: the lanes are shared fairly, have one owner each, and are never nobody's for long."""

import signal

import psycopg
import pytest

from creditlane.schemas.journal import Refusal
from creditlane.schemas.settings import Settings
from creditlane.worker.connections import connect_postgres
from creditlane.worker.store.transaction import LedgerStore, PartitionsLost

from ..faults.history import History
from ..faults.owners import known_workers, owned_by, owned_lanes
from ..faults.producing import Producer
from ..faults.worker_processes import StartWorker, start_worker, wait_for

__all__ = ["start_worker"]


def wait_for_shares(settings: Settings, *shares: int) -> None:
    """Wait until the living workers own so many lanes each."""
    wait_for(lambda: sorted(owned_by(settings).values()) == sorted(shares), f"shares {shares} of the lanes")


def epochs(settings: Settings) -> dict[int, int]:
    with psycopg.connect(settings.require_database_url()) as connection:
        return dict(connection.execute("select partition, epoch from leases").fetchall())


def test_lanes_follow_the_workers_that_come_leave_and_die(settings: Settings, start_worker: StartWorker) -> None:
    settings = settings.model_copy(update={"lease_seconds": 1.0})
    with Producer(settings) as producer:
        # When workers come one after the other, then each has a fair share
        first = start_worker(settings)
        wait_for_shares(settings, 8)
        second = start_worker(settings)
        wait_for_shares(settings, 4, 4)
        third = start_worker(settings)
        wait_for_shares(settings, 3, 3, 2)
        # When one leaves, then it leaves nothing behind, and the others share what it had
        second.signal(signal.SIGTERM)
        assert second.wait_for_exit() == 0
        assert second.pid not in owned_by(settings)
        assert known_workers(settings) == 2
        wait_for_shares(settings, 4, 4)
        # When one dies, then the last has everything once its lease has run out
        third.end()
        wait_for_shares(settings, 8)
        assert owned_by(settings) == {first.pid: 8}
        producer.wait_for_more(100)
    # Then no command was lost, done twice or overtaken on the way from owner to owner
    History(settings).check(producer)


def test_a_worker_that_leaves_frees_its_lanes_long_before_its_lease_ends(
    settings: Settings, start_worker: StartWorker
) -> None:
    leaving = start_worker(settings, lease_seconds=300.0)
    wait_for_shares(settings, 8)
    staying = start_worker(settings, lease_seconds=0.5)
    leaving.signal(signal.SIGTERM)
    assert leaving.wait_for_exit() == 0
    wait_for(lambda: owned_by(settings) == {staying.pid: 8}, "the lanes of the one that left")
    assert owned_lanes(settings) == 8


def test_a_worker_that_lives_keeps_its_lanes(settings: Settings, start_worker: StartWorker) -> None:
    """A third that comes and goes costs the others no more lanes than its share."""
    settings = settings.model_copy(update={"lease_seconds": 3.0})
    first, second = start_worker(settings), start_worker(settings)
    wait_for_shares(settings, 4, 4)
    before = epochs(settings)
    third = start_worker(settings)
    wait_for_shares(settings, 3, 3, 2)
    third.signal(signal.SIGTERM)
    assert third.wait_for_exit() == 0
    wait_for_shares(settings, 4, 4)
    kept = [partition for partition, epoch in epochs(settings).items() if epoch == before[partition]]
    assert len(kept) == 6
    assert not first.has_ended
    assert not second.has_ended


def test_more_workers_than_lanes_leave_some_without_and_harm_nothing(
    settings: Settings, start_worker: StartWorker, database_url: str
) -> None:
    # Given two lanes only
    with psycopg.connect(database_url) as connection:
        connection.execute("delete from leases where partition > 1")
        connection.execute("update installation set partitions = 2")
    settings = settings.model_copy(update={"partitions": 2, "lease_seconds": 0.5})
    workers = [start_worker(settings) for _ in range(3)]
    wait_for_shares(settings, 1, 1, 0)
    producer = Producer(settings)
    producer.open_accounts()
    producer.write(100)
    History(settings).check(producer)
    assert [worker.has_ended for worker in workers] == [False] * 3


@pytest.mark.parametrize(
    "takeover",
    [
        "update leases set worker_id = 'another', epoch = epoch + 1 where partition = 3",
        "update leases set worker_id = null, epoch = epoch + 1 where partition = 3",
        "update leases set epoch = epoch + 2 where partition = 3",
    ],
    ids=["taken by another", "released", "taken away and back"],
)
def test_a_batch_read_under_an_epoch_that_is_past_stores_nothing(takeover: str, settings: Settings) -> None:
    with connect_postgres(settings.require_database_url()) as connection:
        connection.execute("update leases set worker_id = 'me', epoch = 7")
        connection.commit()
        store = LedgerStore(connection, "me")
        epochs = {2: 7, 3: 7}
        assert store.transact([], epochs) == []
        connection.execute(takeover.encode())
        connection.commit()
        with pytest.raises(PartitionsLost) as lost:
            store.dead_letter((0, "00" * 16, 3, "1-1", b"x", None, "undecodable", "why"), None, Refusal("", ""), epochs)
        assert lost.value.partitions == {3}
        assert connection.execute("select count(*) from dead_letters").fetchone() == (0,)


def test_a_lease_cannot_be_taken_while_a_batch_under_it_is_being_stored(settings: Settings) -> None:
    with (
        connect_postgres(settings.require_database_url()) as owner,
        connect_postgres(settings.require_database_url()) as taker,
    ):
        owner.execute("update leases set worker_id = 'me', epoch = 7")
        owner.commit()
        store = LedgerStore(owner, "me")
        store._lock_lanes(store._open(), {3: 7})
        taker.execute("set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            taker.execute("update leases set epoch = 8 where partition = 3")
        taker.rollback()
        owner.commit()
        assert taker.execute("update leases set epoch = 8 where partition = 3").rowcount == 1


def test_a_transaction_that_stands_still_loses_its_locks_by_itself(settings: Settings) -> None:
    """Also where nobody may end the sessions of others, as behind a pooler."""
    with (
        connect_postgres(settings.require_database_url()) as owner,
        connect_postgres(settings.require_database_url(), autocommit=True) as taker,
    ):
        owner.execute("update leases set worker_id = 'me', epoch = 7")
        owner.commit()
        store = LedgerStore(owner, "me", timeout_seconds=0.2)
        store._lock_lanes(store._open(), {3: 7})
        taker.execute("set lock_timeout = '20s'")
        assert taker.execute("update leases set epoch = 8 where partition = 3").rowcount == 1
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            owner.execute("select 1")
