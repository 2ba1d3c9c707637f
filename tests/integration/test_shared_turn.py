"""Of all workers one at a time does what is held back, and what a worker does not end, time does."""

from collections.abc import Iterator

import pytest
import redis

from creditlane.local.processes import wait_until
from creditlane.schemas.keys import Keys
from creditlane.schemas.settings import Settings
from creditlane.worker import shared_turn
from creditlane.worker.shared_turn import SharedTurn

from ..redis_users import redis_url_of

DEADLINE_SECONDS = 20.0


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    url = redis_url_of("worker", settings.require_redis_url(), settings.redis_prefix)
    with redis.Redis.from_url(url) as connected:
        yield connected


@pytest.fixture
def lanes(settings: Settings) -> Iterator[redis.Redis]:
    """The same Redis to one who may do anything."""
    with redis.Redis.from_url(settings.require_redis_url()) as connected:
        yield connected


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings.redis_prefix)


def test_one_worker_at_a_time_has_the_turn(client: redis.Redis, keys: Keys) -> None:
    one, other = SharedTurn(client, keys), SharedTurn(client, keys)

    assert one.take()
    assert not other.take()
    one.end(0.0)
    assert other.take()


def test_after_a_turn_the_lanes_rest(client: redis.Redis, lanes: redis.Redis, keys: Keys) -> None:
    one, other = SharedTurn(client, keys), SharedTurn(client, keys)
    one.take()

    one.end(600.0)

    assert not other.take()
    assert 0 < lanes.pttl(keys.held_turn) <= 600_000
    one.end(0.05)
    assert wait_until(other.take, seconds=DEADLINE_SECONDS)


def test_a_worker_that_dies_in_its_turn_is_not_waited_for(
    client: redis.Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_turn, "TURN_MS", 50)
    SharedTurn(client, keys).take()

    assert wait_until(SharedTurn(client, keys).take, seconds=DEADLINE_SECONDS)


def test_a_turn_that_never_ends_is_passed_over(client: redis.Redis, keys: Keys) -> None:
    """Given something under the turn's name that does not expire, then a worker waits for a while, and goes at last."""
    moments = iter((0.0, 1.0, shared_turn.PATIENCE_SECONDS, shared_turn.PATIENCE_SECONDS + 0.1, 9.0))
    client.set(keys.held_turn, "for ever")
    worker = SharedTurn(client, keys, lambda: next(moments))

    assert [worker.take() for _ in range(5)] == [False, False, False, True, False]


def test_all_workers_hear_that_one_has_something_else_to_do(
    client: redis.Redis, lanes: redis.Redis, keys: Keys
) -> None:
    """Given a worker with other work, then another one hears of it, for a while; it is said again and again, but not
    with every read."""
    moments = iter((0.0, shared_turn.TELL_SECONDS / 2, shared_turn.TELL_SECONDS))
    one, other = SharedTurn(client, keys, lambda: next(moments)), SharedTurn(client, keys)
    assert not other.others_are_at_work()

    one.tell_of_others()
    assert other.others_are_at_work()
    assert 0 < lanes.pttl(keys.others_at_work) <= shared_turn.OTHERS_MS

    client.set(keys.others_at_work, "0")
    one.tell_of_others()
    assert client.get(keys.others_at_work) == b"0"
    one.tell_of_others()
    assert client.get(keys.others_at_work) == b"1"
