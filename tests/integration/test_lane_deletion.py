"""What is deleted from a lane is what was decided, entry by entry, whatever ids Redis gives out."""

from collections.abc import Iterator

import pytest
import redis

from creditlane.lanes.keys import COMMAND_FIELD, Keys
from creditlane.schemas.settings import Settings
from creditlane.worker.lanes.deleter import MAX_ENTRIES_PER_CALL, Deleter
from creditlane.worker.lanes.entries import Batch, parse_entry
from creditlane.worker.lanes.redis_session import RedisFaults, RedisSession

EPOCH = 5
PARTITION = 3


@pytest.fixture
def session(settings: Settings) -> Iterator[RedisSession]:
    made = RedisSession(settings.require_redis_url(), RedisFaults(), answer_seconds=5.0)
    yield made
    made.close()


@pytest.fixture
def client(session: RedisSession) -> redis.Redis:
    return session.client


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings.redis_prefix)


@pytest.fixture
def deleter(client: redis.Redis, keys: Keys) -> Deleter:
    return Deleter(client, keys)


def put(client: redis.Redis, keys: Keys, entries: dict[str, str], partition: int = PARTITION) -> None:
    for entry, payload in entries.items():
        client.xadd(keys.lane(partition), {COMMAND_FIELD: payload}, id=entry)


def batch_of(client: redis.Redis, keys: Keys, *partitions: int) -> Batch:
    """Read whole lanes."""
    entries = [
        parse_entry(partition, entry, fields)
        for partition in partitions or [PARTITION]
        for entry, fields in client.xrange(keys.lane(partition))
    ]
    return Batch(entries, dict.fromkeys(partitions or [PARTITION], EPOCH))


def left(client: redis.Redis, keys: Keys, partition: int = PARTITION) -> list[tuple[str, str]]:
    return [(entry.decode(), fields[1].decode()) for entry, fields in client.xrange(keys.lane(partition))]


@pytest.mark.parametrize("same_redis", [True, False])
def test_what_was_decided_is_deleted_and_what_came_after_stays(
    same_redis: bool, deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    count = 2 * MAX_ENTRIES_PER_CALL + 1
    put(client, keys, {f"{number}-0": f"command {number}" for number in range(1, count)})
    batch = batch_of(client, keys)
    put(client, keys, {f"{count}-0": "new"})

    assert deleter.delete(batch, same_redis=same_redis) == set()

    assert left(client, keys) == [(f"{count}-0", "new")]


@pytest.mark.parametrize("same_redis", [True, False])
def test_lower_ids_of_a_redis_that_lost_its_lanes_are_not_deleted(
    same_redis: bool, deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    """Given a decided batch, when the lane was lost and new commands have lower ids, then none of those is deleted."""
    put(client, keys, {"100-0": "old 1", "100-1": "old 2"})
    batch = batch_of(client, keys)
    client.delete(keys.lane(PARTITION))
    put(client, keys, {"7-0": "new 1", "8-0": "new 2"})

    deleter.delete(batch, same_redis=same_redis)

    assert left(client, keys) == [("7-0", "new 1"), ("8-0", "new 2")]


def test_ids_that_are_given_out_again_are_not_deleted(deleter: Deleter, client: redis.Redis, keys: Keys) -> None:
    """Given a fail-over to a replica that had only the first of three commands and whose clock is behind, when new
    commands get the ids of the others, then of these only the first is deleted."""
    put(client, keys, {"100-0": "old 1", "100-1": "old 2", "100-2": "old 3"})
    batch = batch_of(client, keys)
    client.delete(keys.lane(PARTITION))
    put(client, keys, {"100-0": "old 1", "100-1": "new 2", "100-2": "old 3"})

    deleter.delete(batch, same_redis=False)

    assert left(client, keys) == [("100-1", "new 2")]


@pytest.mark.parametrize("last", [("100-2", "new 3"), ("100-3", "new 3")])
def test_a_lane_whose_last_decided_entry_is_another_is_not_trimmed(
    last: tuple[str, str], deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    """Given a tail that was lost without the connection ending, then what came instead stays."""
    put(client, keys, {"100-0": "old 1", "100-1": "old 2", "100-2": "old 3"})
    batch = batch_of(client, keys)
    client.delete(keys.lane(PARTITION))
    put(client, keys, {"100-0": "old 1", "100-1": "new 2", **dict([last])})

    deleter.delete(batch, same_redis=True)

    assert left(client, keys) == [("100-1", "new 2"), last]


def test_the_same_command_sent_again_by_another_is_not_what_was_decided(
    deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    """Given a command sent again after a fail-over, under the id that it had, when its first reading is deleted, then
    it stays: who sent it waits for its own answer."""
    client.xadd(keys.lane(PARTITION), {"c": "command", "r": "p1/1"}, id="100-0")
    batch = batch_of(client, keys)
    client.delete(keys.lane(PARTITION))
    client.xadd(keys.lane(PARTITION), {"c": "command", "r": "p1/2"}, id="100-0")

    deleter.delete(batch, same_redis=False)

    assert len(left(client, keys)) == 1


@pytest.mark.parametrize("same_redis", [True, False])
def test_entries_without_a_command_are_deleted_too(
    same_redis: bool, deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    lane = keys.lane(PARTITION)
    client.execute_command("XADD", lane, "1-0", "x", "1", "x", "2")  # type: ignore[no-untyped-call]
    client.execute_command("XADD", lane, "2-0", b"\xff", b"\x00")  # type: ignore[no-untyped-call]

    deleter.delete(batch_of(client, keys), same_redis=same_redis)

    assert client.xlen(lane) == 0


@pytest.mark.parametrize("same_redis", [True, False])
def test_a_later_owners_lane_is_left_alone_and_reported(
    same_redis: bool, deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    for partition in (PARTITION, PARTITION + 1):
        put(client, keys, {"1-0": "command"}, partition)
    batch = batch_of(client, keys, PARTITION, PARTITION + 1)
    client.set(keys.fence(PARTITION), EPOCH + 1)

    assert deleter.delete(batch, same_redis=same_redis) == {PARTITION}

    assert (client.xlen(keys.lane(PARTITION)), client.xlen(keys.lane(PARTITION + 1))) == (1, 0)


@pytest.mark.parametrize("same_redis", [True, False])
def test_a_fence_that_is_no_number_stands_in_nobodys_way(
    same_redis: bool, deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    for partition in (PARTITION, PARTITION + 1):
        put(client, keys, {"1-0": "command"}, partition)
    client.set(keys.fence(PARTITION), "keep out")
    client.rpush(keys.fence(PARTITION + 1), "a list")

    assert deleter.delete(batch_of(client, keys, PARTITION, PARTITION + 1), same_redis=same_redis) == set()

    assert client.exists(keys.lane(PARTITION), keys.lane(PARTITION + 1)) == 2
    assert client.xlen(keys.lane(PARTITION)) == client.xlen(keys.lane(PARTITION + 1)) == 0


@pytest.mark.parametrize("same_redis", [True, False])
def test_a_lane_that_has_become_something_else_holds_up_no_other(
    same_redis: bool, deleter: Deleter, client: redis.Redis, keys: Keys
) -> None:
    for partition in (PARTITION, PARTITION + 1):
        put(client, keys, {"1-0": "command"}, partition)
    batch = batch_of(client, keys, PARTITION, PARTITION + 1)
    client.set(keys.lane(PARTITION), "not a stream")

    assert deleter.delete(batch, same_redis=same_redis) == set()

    assert client.xlen(keys.lane(PARTITION + 1)) == 0


def test_a_connection_is_not_replaced_without_a_word(
    session: RedisSession, client: redis.Redis, settings: Settings
) -> None:
    """Given a connection that the other end has closed, when it is used, then that is a fault, and only after it there
    is a new one: behind the name there may be another server by now."""
    with redis.Redis.from_url(settings.require_redis_url()) as other:
        other.client_kill_filter(_id=client.client_id())
    with pytest.raises(redis.ConnectionError):
        client.ping()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    before = session.number
    session.fail()
    assert client.ping()
    assert session.number == before + 1


def test_a_fault_of_one_stage_ends_the_connections_of_all(settings: Settings) -> None:
    faults = RedisFaults()
    one, other = (RedisSession(settings.require_redis_url(), faults, answer_seconds=5.0) for _ in range(2))
    first = other.client.client_id()
    assert not other.keep_up()

    one.fail()

    assert other.keep_up()
    assert (other.client.client_id(), other.number) != (first, 0)
    assert not one.keep_up()
    one.close()
    other.close()
