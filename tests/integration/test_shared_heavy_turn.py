"""Of all workers one at a time does what is held back, and what a worker does not end, time does."""

from collections.abc import Callable, Iterator

import pytest
import redis

from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.local.redis_server import EmbeddedRedis
from creditlane.schemas.settings import Settings
from creditlane.worker.lanes import shared_heavy_turn
from creditlane.worker.lanes.shared_heavy_turn import SharedHeavyTurn

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
    one, other = SharedHeavyTurn(client, keys), SharedHeavyTurn(client, keys)

    assert one.take()
    assert not other.take()
    one.end(0.0)
    assert other.take()


def test_after_a_turn_the_lanes_rest(client: redis.Redis, lanes: redis.Redis, keys: Keys) -> None:
    one, other = SharedHeavyTurn(client, keys), SharedHeavyTurn(client, keys)
    one.take()

    one.end(600.0)

    assert not other.take()
    assert 0 < lanes.pttl(keys.held_turn) <= 600_000
    one.end(0.05)
    assert wait_until(other.take, seconds=DEADLINE_SECONDS)


def test_a_worker_that_dies_in_its_turn_is_not_waited_for(
    client: redis.Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_heavy_turn, "TURN_MS", 50)
    SharedHeavyTurn(client, keys).take()

    assert wait_until(SharedHeavyTurn(client, keys).take, seconds=DEADLINE_SECONDS)


def test_a_turn_that_never_ends_is_passed_over(client: redis.Redis, keys: Keys) -> None:
    """Given something under the turn's name that does not expire, then a worker waits for a while, and goes at last."""
    moments = iter((0.0, 1.0, shared_heavy_turn.MAX_WAIT_SECONDS, shared_heavy_turn.MAX_WAIT_SECONDS + 0.1, 9.0))
    client.set(keys.held_turn, "for ever")
    worker = SharedHeavyTurn(client, keys, lambda: next(moments))

    assert [worker.take() for _ in range(5)] == [False, False, False, True, False]


def test_all_workers_hear_that_one_has_something_else_to_do(
    client: redis.Redis, lanes: redis.Redis, keys: Keys
) -> None:
    """Given a worker with other work, then another one hears of it, for a while; it is said again and again, but not
    with every read."""
    moments = iter((0.0, shared_heavy_turn.NOTE_SECONDS / 2, shared_heavy_turn.NOTE_SECONDS))
    one, other = SharedHeavyTurn(client, keys, lambda: next(moments)), SharedHeavyTurn(client, keys)
    assert not other.others_are_at_work()

    one.note_others()
    assert other.others_are_at_work()
    assert 0 < lanes.pttl(keys.others_at_work) <= shared_heavy_turn.OTHERS_MS

    client.set(keys.others_at_work, "0")
    one.note_others()
    assert lanes.get(keys.others_at_work) == b"0"
    one.note_others()
    assert lanes.get(keys.others_at_work) == b"1"


def test_a_full_redis_stops_no_worker(own_redis: Callable[[], EmbeddedRedis], keys: Keys) -> None:
    """Given a Redis without room, then nothing that is said of turns fails: what is held back is done all the same, and
    with it memory is freed."""
    server = own_redis()
    with redis.Redis.from_url(redis_url_of("worker", server.url, keys.prefix)) as client:
        with redis.Redis.from_url(server.url) as admin:
            admin.config_set("maxmemory", "1")
        worker = SharedHeavyTurn(client, keys)

        worker.note_others()

        assert worker.take()
        worker.end(0.5)
        assert worker.take()
        worker.end(0.0)


def test_whatever_stands_under_the_names_of_turns_stops_no_worker(
    client: redis.Redis, lanes: redis.Redis, keys: Keys
) -> None:
    """Given keys of another type by hand, then others count as at work, the turn is taken at last, and ended."""
    moments = iter((0.0, shared_heavy_turn.MAX_WAIT_SECONDS + 0.1, 9.0))
    for key in (keys.others_at_work, keys.held_turn):
        lanes.rpush(key, "by hand")
    worker = SharedHeavyTurn(client, keys, lambda: next(moments))

    assert worker.others_are_at_work()
    assert [worker.take(), worker.take()] == [False, True]
    worker.end(0.0)
    worker.note_others()
    assert worker.others_are_at_work()
