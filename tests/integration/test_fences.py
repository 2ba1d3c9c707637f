"""An owner by its lease in Postgres passes every fence; one that is none passes no fence."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import redis

from creditlane.lanes.keys import Keys
from creditlane.schemas.settings import Settings
from creditlane.worker.lanes.fences import MAX_EPOCH_LEAP, EpochRaiser, Fences
from creditlane.worker.lanes.ownership import Ownership

from ..faults.worker_processes import wait_for

WORKER = "worker one"


class Owner:
    """A worker's fences, on lanes that it may own or not."""

    def __init__(self, settings: Settings, worker_id: str, client: redis.Redis) -> None:
        self.ownership = Ownership()
        keys = Keys(settings.redis_prefix)
        url = settings.require_database_url()
        self._fences = Fences(client, keys, EpochRaiser(url, worker_id, self.ownership, answer_seconds=5.0))

    def raise_fences(self) -> set[int]:
        """Raise the fences of the lanes owned; return the lanes that may not be read yet."""
        return self._fences.raise_for(self.ownership.current())


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.require_redis_url()) as made:
        yield made


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings.redis_prefix)


@pytest.fixture
def owner(settings: Settings, client: redis.Redis) -> Owner:
    """The owner of lanes 0 to 2, under epoch 3."""
    execute(settings, "update leases set worker_id = %s, epoch = 3 where partition <= 2", WORKER)
    made = Owner(settings, WORKER, client)
    made.ownership.replace({0: 3, 1: 3, 2: 3})
    return made


def execute(settings: Settings, statement: str, *values: object) -> None:
    with psycopg.connect(settings.require_database_url()) as connection:
        connection.execute(statement.encode(), values)


def waits_for_a_lock(settings: Settings) -> bool:
    waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with psycopg.connect(settings.require_database_url()) as connection:
        return connection.execute(waiting).fetchone() is not None


def epochs_of(settings: Settings) -> dict[int, int]:
    with psycopg.connect(settings.require_database_url()) as connection:
        return dict(
            connection.execute("select partition, epoch from leases where partition <= 2 order by 1").fetchall()
        )


def test_a_fence_that_is_lower_is_raised(owner: Owner, client: redis.Redis, keys: Keys) -> None:
    client.set(keys.fence(1), 2)

    assert owner.raise_fences() == set()

    assert [client.get(keys.fence(partition)) for partition in range(3)] == [b"3", b"3", b"3"]


def test_an_owner_goes_above_a_fence_that_is_higher_than_its_lease(
    owner: Owner, client: redis.Redis, keys: Keys, settings: Settings
) -> None:
    """Given a Postgres that was restored to an earlier state, when its owner meets the fences of later epochs, then
    its epochs are above them, in Postgres, in the process and in Redis, and nothing is read under the old ones."""
    client.set(keys.fence(1), 40)
    client.set(keys.fence(2), 4)

    assert owner.raise_fences() == {1, 2}
    assert owner.ownership.current() == epochs_of(settings) == {0: 3, 1: 41, 2: 5}
    assert owner.raise_fences() == set()
    assert [client.get(keys.fence(partition)) for partition in range(3)] == [b"3", b"41", b"5"]


def test_epochs_are_raised_in_the_order_in_which_batches_lock_the_lanes(
    owner: Owner, client: redis.Redis, keys: Keys, settings: Settings
) -> None:
    # Given lanes of which the highest is stored first, and a batch that has locked the first but one
    for partition in (1, 0):
        execute(settings, "update leases set epoch = 3 where partition = %s", partition)
    for partition in range(3):
        client.set(keys.fence(partition), 40)
    owner.ownership.replace({2: 3, 1: 3, 0: 3})
    with psycopg.connect(settings.require_database_url()) as batch, ThreadPoolExecutor(1) as threads:
        batch.execute("select 1 from leases where partition = 1 for update")
        # When the epochs of all of them are raised
        raised = threads.submit(owner.raise_fences)
        wait_for(lambda: waits_for_a_lock(settings), "the raising to wait for the batch")
        # Then the batch can lock the next one
        try:
            batch.execute("select 1 from leases where partition = 2 for update nowait")
        finally:
            batch.rollback()
        assert raised.result() == {0, 1, 2}
    assert epochs_of(settings) == {0: 41, 1: 41, 2: 41}


def test_who_has_no_lease_passes_no_fence(client: redis.Redis, keys: Keys, owner: Owner, settings: Settings) -> None:
    """Given a worker of before that was paused, when it meets the fence of its successor, then it loses the lane and
    changes nothing, in Postgres or in Redis."""
    before = Owner(settings, "worker two", client)
    before.ownership.replace({1: 2})
    owner.raise_fences()

    assert before.raise_fences() == {1}

    assert before.ownership.current() == {}
    assert epochs_of(settings) == {0: 3, 1: 3, 2: 3}
    assert client.get(keys.fence(1)) == b"3"


@pytest.mark.parametrize(
    "written",
    [b"1000000000000000", str(3 + MAX_EPOCH_LEAP + 1).encode(), b"9" * 5_000, b"inf", b"nan", b"keep out", b"\xff\x00"],
)
def test_a_fence_that_somebody_wrote_is_named_and_passed(
    written: bytes,
    owner: Owner,
    client: redis.Redis,
    keys: Keys,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.set(keys.fence(1), written)

    assert owner.raise_fences() == set()

    assert client.get(keys.fence(1)) == b"3"
    assert epochs_of(settings) == {0: 3, 1: 3, 2: 3}
    assert keys.fence(1) in capsys.readouterr().out


def test_a_fence_of_another_type_is_passed(owner: Owner, client: redis.Redis, keys: Keys) -> None:
    client.rpush(keys.fence(1), "a list")

    assert owner.raise_fences() == set()

    assert client.get(keys.fence(1)) == b"3"


def test_fences_that_cannot_be_passed_yet_are_tried_again(
    owner: Owner, client: redis.Redis, keys: Keys, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a Postgres that is away when a fence stands above the lease, then that lane alone waits."""
    client.set(keys.fence(1), 40)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise psycopg.OperationalError("away")

    with monkeypatch.context() as patched:
        patched.setattr("creditlane.worker.lanes.fences.connect_postgres", refuse)
        patched.setattr("creditlane.worker.lanes.fences.RETRY_SECONDS", 0.0)
        assert owner.raise_fences() == {1}
        assert owner.raise_fences() == {1}
    assert epochs_of(settings)[1] == 3
    assert json.dumps(owner.ownership.current()) == json.dumps({0: 3, 1: 3, 2: 3})
    assert owner.raise_fences() == {1}
    assert owner.ownership.current()[1] == 41
