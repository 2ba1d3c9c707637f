"""What each store has on a lane is counted where it is put there and deleted, and no wrong count outlives it."""

from collections.abc import Callable, Iterator

import pytest
import redis

from creditlane import Client, Debit, LaneFull, Settings
from creditlane.lanes.keys import Keys
from creditlane.lanes.scripts import ENQUEUE_SCRIPT
from creditlane.local.redis_server import EmbeddedRedis
from creditlane.producer.client.chunks import Chunk
from creditlane.producer.client.enqueue import ChunkEnqueue
from creditlane.schemas.fair_shares import SHARE_OF_FREE
from creditlane.worker.lanes.deleter import Deleter
from creditlane.worker.lanes.entries import Batch, parse_entry
from creditlane.worker.lanes.redis_session import RedisFaults, RedisSession

from ..redis_users import redis_url_of

ACCOUNT = "cca_" + "a1" * 16
MANY, FEW = "store_many", "store_few"
PARTITION, EPOCH = 0, 1
DEADLINE_SECONDS = 20.0


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings.redis_prefix)


@pytest.fixture
def lanes(settings: Settings) -> Iterator[redis.Redis]:
    """The lanes, to one who may do anything with them."""
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        yield client


@pytest.fixture
def producer(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url_of("producer", settings.require_redis_url(), settings.redis_prefix)) as client:
        yield client


@pytest.fixture
def deleter(settings: Settings, keys: Keys) -> Iterator[Deleter]:
    url = redis_url_of("worker", settings.require_redis_url(), settings.redis_prefix)
    session = RedisSession(url, RedisFaults(), answer_seconds=DEADLINE_SECONDS)
    yield Deleter(session.client, keys)
    session.close()


Put = Callable[..., str | None]


@pytest.fixture
def put(producer: redis.Redis, settings: Settings) -> Put:
    """Put debits of a store on the lane, as the API does; returns what the lane has no room for, if any."""
    numbers = iter(range(1_000_000))

    def put(store: str, count: int, *, share: int = SHARE_OF_FREE, reference: str = "r", **limits: int) -> str | None:
        chunk = Chunk(store, 1)
        for _ in range(count):
            key = f"key {next(numbers)}"
            chunk.add(Debit(account_id=ACCOUNT, amount=1, reference=reference, idempotency_key=key))
        enqueue = ChunkEnqueue(chunk, settings.model_copy(update=limits), "", 0, keep=False, share_of_free=share)
        (call,) = enqueue.calls()
        answer = producer.execute_command("EVAL", ENQUEUE_SCRIPT, *call[2:])  # type: ignore[no-untyped-call]
        enqueue.settle([answer])
        return None if enqueue.is_done else answer.decode()

    return put


def counted(lanes: redis.Redis, keys: Keys) -> dict[str, int]:
    return {field.decode(): int(count) for field, count in lanes.hgetall(keys.backlog(PARTITION)).items()}


def standing(lanes: redis.Redis, keys: Keys) -> dict[str, int]:
    """Return what the counts must be."""
    counts: dict[str, int] = {}
    for entry in on_lane(lanes, keys).entries:
        assert entry.command is not None
        store = entry.command.store_id
        for field in (store, ""):
            counts[field or "/commands"] = counts.get(field or "/commands", 0) + 1
            counts[f"{field}/bytes"] = counts.get(f"{field}/bytes", 0) + len(entry.payload)
    return counts


def on_lane(lanes: redis.Redis, keys: Keys, start: int = 0, end: int | None = None) -> Batch:
    entries = lanes.xrange(keys.lane(PARTITION))[start:end]
    raw = [(entry, [part for pair in fields.items() for part in pair]) for entry, fields in entries]
    return Batch([parse_entry(PARTITION, entry, fields) for entry, fields in raw], {PARTITION: EPOCH})


@pytest.mark.parametrize("same_redis", [True, False])
def test_counts_follow_what_is_put_and_deleted(
    same_redis: bool, put: Put, deleter: Deleter, lanes: redis.Redis, keys: Keys
) -> None:
    """Given two stores on a lane, then their counts are exact after each part that is deleted, at once or one by one,
    and after the last there are none. Deleting again counts nothing."""
    for store, count in ((MANY, 5), (FEW, 2), (MANY, 3)):
        assert put(store, count) is None
    assert counted(lanes, keys) == standing(lanes, keys)

    for _ in range(5):
        part = on_lane(lanes, keys, 0, 2)
        deleter.delete(part, same_redis=same_redis)
        deleter.delete(part, same_redis=same_redis)
        assert counted(lanes, keys) == standing(lanes, keys)

    assert lanes.exists(keys.lane(PARTITION), keys.backlog(PARTITION)) <= 1
    assert counted(lanes, keys) == {}


def test_what_is_deleted_from_between_others_is_counted(
    put: Put, deleter: Deleter, lanes: redis.Redis, keys: Keys
) -> None:
    put(MANY, 2)
    put(FEW, 2)
    put(MANY, 2)
    batch = on_lane(lanes, keys, 1, 4)

    deleter.delete(Batch(batch.entries, batch.epochs, gaps=frozenset({PARTITION})), same_redis=True)

    assert counted(lanes, keys) == standing(lanes, keys)
    assert len(on_lane(lanes, keys).entries) == 3


def test_a_store_that_fills_a_lane_leaves_room_for_another(put: Put, lanes: redis.Redis, keys: Keys) -> None:
    """Given a lane for 100 commands, when one store sends for ever, then it has three quarters, and another has a
    share of the rest; and what the first one may have is judged anew then."""
    refusals = [put(MANY, 1, lane_limit=100) for _ in range(200)]

    assert refusals == [None] * 75 + ["store commands"] * 125
    assert [put(FEW, 1, lane_limit=100) for _ in range(10)] == [None] * 10
    assert put(MANY, 1, lane_limit=100) == "store commands"
    assert (counted(lanes, keys)[MANY], counted(lanes, keys)[FEW]) == (75, 10)


def test_bytes_count_as_commands_do(put: Put, lanes: redis.Redis, keys: Keys) -> None:
    """Given lanes for 100 kB, when a store sends fat commands, then it has three quarters of the bytes; and without
    shares a lane takes no more after its last byte, whatever the command."""
    fat = "x" * 250
    refusals = [put(MANY, 1, reference=fat, lane_bytes=100_000) for _ in range(400)]
    has = counted(lanes, keys)["store_many/bytes"]

    assert set(refusals) == {None, "store bytes"}
    assert 75_000 <= has < 76_000
    assert put(FEW, 1, lane_bytes=100_000) is None
    assert put(MANY, 100, share=0, reference=fat, lane_bytes=100_000) is None
    assert put(FEW, 1, share=0, lane_bytes=100_000) == "bytes"


def test_nothing_is_too_large_for_an_empty_lane(put: Put) -> None:
    assert put(MANY, 100, lane_limit=100, lane_bytes=1) is None


def test_a_client_of_the_operator_has_all_that_is_free(
    make_client: Callable[[Settings], Client], settings: Settings
) -> None:
    client = make_client(settings.model_copy(update={"lane_limit": 8}))
    debits = [Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key=f"{n}") for n in range(9)]

    assert len(client.enqueue_many(debits[:8])) == 8
    with pytest.raises(LaneFull, match="limit of 8 commands"):
        client.enqueue(debits[8])


@pytest.mark.parametrize("left", [0, 2])
def test_what_an_operator_trims_by_hand_is_held_against_nobody(
    left: int, put: Put, lanes: redis.Redis, keys: Keys
) -> None:
    """Given a lane that a store has filled, in commands and bytes, and that is trimmed by hand, when others keep it
    from ever being empty, then there is room for the store at once, and what comes is counted from nothing."""
    fat = "x" * 250
    while put(MANY, 1, reference=fat, lane_bytes=20_000) is None:
        pass
    assert put(FEW, 1, lane_bytes=20_000) is None

    lanes.xtrim(keys.lane(PARTITION), maxlen=left, approximate=False)

    assert [put(store, 1, lane_bytes=20_000) for store in (MANY, FEW, MANY)] == [None] * 3
    assert (counted(lanes, keys)[FEW], counted(lanes, keys)[MANY], counted(lanes, keys)["/commands"]) == (1, 2, 3)


@pytest.mark.parametrize("has_backlog", [True, False])
def test_a_full_redis_takes_no_command_on_an_empty_lane(
    has_backlog: bool, own_redis: Callable[[], EmbeddedRedis], settings: Settings, keys: Keys
) -> None:
    """Given a Redis without room, then what is put on an empty lane is refused, whatever counts were left there."""
    chunk = Chunk(MANY, 1)
    chunk.add(Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key="key"))
    (call,) = ChunkEnqueue(chunk, settings, "", 0, keep=False, share_of_free=SHARE_OF_FREE).calls()
    with redis.Redis.from_url(own_redis().url) as client:
        if has_backlog:
            client.hset(keys.backlog(PARTITION), mapping={MANY: 7, "/commands": 7})
        client.config_set("maxmemory", "1")

        with pytest.raises(redis.ResponseError, match="maxmemory"):
            client.execute_command("EVAL", ENQUEUE_SCRIPT, *call[2:])  # type: ignore[no-untyped-call]

        assert client.exists(keys.lane(PARTITION)) == 0
        client.config_set("maxmemory", "0")
        assert len(client.execute_command("EVAL", ENQUEUE_SCRIPT, *call[2:])) == 1  # type: ignore[no-untyped-call]
        assert int(client.hget(keys.backlog(PARTITION), "/commands") or 0) == 1


def test_what_was_not_counted_leaves_no_debt(put: Put, deleter: Deleter, lanes: redis.Redis, keys: Keys) -> None:
    """Given commands on a lane that nobody counted, as by an older release, when they are deleted, then what comes
    afterwards is counted from nothing."""
    put(MANY, 5)
    lanes.delete(keys.backlog(PARTITION))
    put(MANY, 2)

    deleter.delete(on_lane(lanes, keys, 0, 5), same_redis=True)
    deleter.delete(on_lane(lanes, keys), same_redis=True)
    put(MANY, 2)

    assert counted(lanes, keys) == standing(lanes, keys)


def test_counts_that_cannot_be_kept_stop_nobody(put: Put, deleter: Deleter, lanes: redis.Redis, keys: Keys) -> None:
    """Given something else under the name of the counts, then commands come and go as ever."""
    put(MANY, 1)
    lanes.delete(keys.backlog(PARTITION))
    lanes.set(keys.backlog(PARTITION), "text")

    assert put(MANY, 2) is None
    deleter.delete(on_lane(lanes, keys), same_redis=True)

    assert lanes.xlen(keys.lane(PARTITION)) == 0
    assert put(MANY, 1) is None
    assert counted(lanes, keys) == standing(lanes, keys)


def test_what_a_store_alone_has_is_taken_off_by_average(
    put: Put, deleter: Deleter, lanes: redis.Redis, keys: Keys
) -> None:
    """Given one store's commands of unlike lengths, when parts of them are deleted, then their number is exact, their
    bytes are what so many have on average, and nothing is left of either in the end."""
    for length in (1, 200, 1, 200):
        put(MANY, 1, reference="x" * length)
    whole = counted(lanes, keys)["/bytes"]

    deleter.delete(on_lane(lanes, keys, 0, 1), same_redis=True)
    assert counted(lanes, keys)[MANY] == 3
    assert counted(lanes, keys)["/bytes"] == counted(lanes, keys)[f"{MANY}/bytes"] == whole - whole // 4
    deleter.delete(on_lane(lanes, keys), same_redis=True)

    assert not lanes.exists(keys.backlog(PARTITION))
