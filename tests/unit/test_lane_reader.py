"""The lane reader: where each read starts, how much it asks for, and that no entry is passed over."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import redis

from creditlane.schemas.commands import Credit
from creditlane.schemas.encoding import encode_command
from creditlane.schemas.keys import Keys
from creditlane.worker.held_back import HEAVY_BYTES
from creditlane.worker.lane_reader import LANES_AT_ONCE, READ_BYTES, READ_ENTRIES, LaneReader
from creditlane.worker.ownership import Ownership
from creditlane.worker.requests import Batch, parse_request

KEYS = Keys("test")


class Streams:
    """Stands in for Redis: streams of numbered entries, and a record of what was asked."""

    def __init__(self) -> None:
        self.lanes: dict[bytes, list[int]] = {}
        self.payloads: dict[int, bytes] = {}
        self.fences: list[tuple[str, int]] = []
        #: Of each read: how many entries of each of how many lanes.
        self.asked: list[tuple[int, int]] = []
        self.starts: dict[bytes, bytes] = {}
        self.broken = False
        #: Reads that are answered before it breaks.
        self.reads_left: int | None = None

    def register_script(self, _script: str) -> Callable[..., None]:
        return lambda keys, args: self.fences.append((keys[0], args[0]))

    def execute_command(self, *arguments: Any) -> Any:
        if self.broken or self.reads_left == 0:
            raise redis.ConnectionError("gone")
        if self.reads_left is not None:
            self.reads_left -= 1
        command, _, count, *rest = arguments
        assert command == "XREAD"
        if rest[0] == "BLOCK":
            assert 0 < rest[1] <= 250
            rest = rest[2:]
        assert rest.pop(0) == "STREAMS"
        half = len(rest) // 2
        self.starts = dict(zip(rest[:half], rest[half:], strict=True))
        self.asked.append((count, half))
        found = []
        for lane, start in self.starts.items():
            place = tuple(map(int, start.split(b"-")))
            entries = [number for number in self.lanes.get(lane, []) if (number, 0) > place][:count]
            if entries:
                found.append([lane, [[b"%d-0" % number, [b"c", self.payload(number)]] for number in entries]])
        return found or None

    def payload(self, number: int) -> bytes:
        return self.payloads.get(number, b"{}")


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def ownership() -> Ownership:
    return Ownership()


@pytest.fixture
def reader(streams: Streams, ownership: Ownership) -> LaneReader:
    return LaneReader(cast("redis.Redis", streams), KEYS, ownership, batch_limit=100)


def lane(partition: int) -> bytes:
    return KEYS.lane(partition).encode()


def entries_of(batch: Batch) -> list[tuple[int, int]]:
    """Return what was read as (partition, number of the entry)."""
    return [(request.partition, int(request.lane_entry.partition(b"-")[0])) for request in batch.requests]


def test_entries_come_lane_by_lane_in_order(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(2): [1, 4], lane(7): [2, 3]}

    batch = reader.read({2: 5, 7: 6, 3: 1})

    assert entries_of(batch) == [(2, 1), (2, 4), (7, 2), (7, 3)]
    assert batch.epochs == {2: 5, 7: 6}


def test_what_was_read_is_under_way(reader: LaneReader, streams: Streams, ownership: Ownership) -> None:
    streams.lanes = {lane(2): [1]}

    reader.read({2: 5, 7: 6})

    assert ownership.is_under_way(2, 5)
    assert not ownership.is_under_way(7, 6)


def test_reading_goes_on_behind_what_is_under_way(reader: LaneReader, streams: Streams) -> None:
    """Given a batch that is not announced and deleted yet, when the lane is read again, then only what came after."""
    streams.lanes = {lane(2): [1, 2]}
    reader.read({2: 5})
    streams.lanes[lane(2)].append(3)

    assert entries_of(reader.read({2: 5})) == [(2, 3)]


def test_with_nothing_under_way_reading_starts_at_the_head(
    reader: LaneReader, streams: Streams, ownership: Ownership
) -> None:
    """Given a lane on which all is decided and deleted, when Redis was restored and gives out lower ids, then what it
    has is found: nothing accepted is passed over."""
    streams.lanes = {lane(2): [50]}
    ownership.finish(reader.read({2: 5}).epochs)
    streams.lanes = {lane(2): [7]}

    assert entries_of(reader.read({2: 5})) == [(2, 7)]


def test_a_new_epoch_starts_at_the_head_and_raises_the_fence(reader: LaneReader, streams: Streams) -> None:
    """Given a lane that was lost and regained with a batch under way, then its entries are read again under the new
    epoch, since the old batch can no longer be committed."""
    streams.lanes = {lane(2): [1, 2]}
    reader.read({2: 5})

    assert entries_of(reader.read({2: 7})) == [(2, 1), (2, 2)]
    assert streams.fences == [(KEYS.fence(2), 5), (KEYS.fence(2), 7)]


def test_the_fence_is_raised_once_an_epoch(reader: LaneReader, streams: Streams) -> None:
    for _ in range(3):
        reader.read({2: 5, 3: 5})

    assert sorted(streams.fences) == [(KEYS.fence(2), 5), (KEYS.fence(3), 5)]


def test_a_reset_raises_the_fence_again_and_keeps_the_place(
    reader: LaneReader, streams: Streams, ownership: Ownership
) -> None:
    """Given a Redis that went away and may have lost its fences, when reading goes on, then lanes with nothing under
    way are fenced again, and those with something are read on from their place."""
    streams.lanes = {lane(2): [1], lane(3): [1]}
    batch = reader.read({2: 5, 3: 5})
    ownership.finish({3: 5})
    streams.broken = True
    with pytest.raises(redis.ConnectionError):
        reader.read({2: 5, 3: 5})
    streams.broken = False
    reader.reset()

    assert entries_of(reader.read({2: 5, 3: 5})) == [(3, 1)]
    assert streams.fences.count((KEYS.fence(3), 5)) == 2
    assert entries_of(batch) == [(2, 1), (3, 1)]


def test_a_read_that_fails_leaves_nothing_under_way(reader: LaneReader, streams: Streams, ownership: Ownership) -> None:
    streams.lanes = {lane(2): [1]}
    streams.broken = True

    with pytest.raises(redis.ConnectionError):
        reader.read({2: 5})

    assert not ownership.is_under_way(2, 5)
    streams.broken = False
    assert entries_of(reader.read({2: 5})) == [(2, 1)]


def test_nothing_there_is_an_empty_batch(reader: LaneReader, ownership: Ownership) -> None:
    batch = reader.read({2: 5})

    assert (batch.requests, dict(batch.epochs)) == ([], {})
    assert not ownership.is_under_way(2, 5)


def test_one_busy_lane_fills_a_batch_alone(reader: LaneReader, streams: Streams) -> None:
    """Given many lanes of which one is busy, then that lane alone makes a full batch, and no more than that."""
    streams.lanes = {lane(0): list(range(1, 2_000))}

    assert entries_of(reader.read(dict.fromkeys(range(8), 1))) == [(0, number) for number in range(1, 101)]


def test_busy_lanes_share_a_batch_evenly(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(partition): list(range(1, 10_000)) for partition in range(4)}

    batch = reader.read(dict.fromkeys(range(4), 1))

    assert len(batch.requests) == 100
    assert {sum(request.partition == partition for request in batch.requests) for partition in range(4)} == {25}


def test_no_read_asks_for_more_entries_than_there_is_room_for(streams: Streams, ownership: Ownership) -> None:
    """Given lanes that are full, since Redis counts entries and the first long ones come unannounced, then not even
    the reads of a full batch of short ones ask for many at once."""
    reader = LaneReader(cast("redis.Redis", streams), KEYS, ownership, batch_limit=8_000)
    streams.lanes = {lane(partition): list(range(1, 1_000)) for partition in range(64)}

    batch = reader.read(dict.fromkeys(range(64), 1))

    assert len(batch.requests) == 8_000
    assert all(count * lanes <= READ_ENTRIES for count, lanes in streams.asked)
    assert all(lanes <= LANES_AT_ONCE for _, lanes in streams.asked[1:])


def test_long_entries_fill_a_batch_by_their_bytes(reader: LaneReader, streams: Streams) -> None:
    """Given one long entry after the other, then a batch ends with the read that makes it full."""
    long, number = 4_000, READ_BYTES // 4_000
    reader = LaneReader(cast("redis.Redis", streams), KEYS, Ownership(), batch_limit=50_000)
    streams.lanes = {lane(0): list(range(1, 3 * number))}
    streams.payloads = dict.fromkeys(range(1, 3 * number), b"x" * long)

    batch = reader.read({0: 1})

    assert number <= len(batch.requests) < number + READ_ENTRIES


def test_a_read_that_breaks_off_keeps_what_it_had(reader: LaneReader, streams: Streams, ownership: Ownership) -> None:
    """Given a batch that takes several reads, when one of them fails, then what was read is a batch, and nothing of it
    is read again or passed over."""
    streams.lanes = {lane(partition): list(range(1, 100)) for partition in range(12)}
    epochs = dict.fromkeys(range(12), 1)
    streams.reads_left = 2

    first = reader.read(epochs)
    with pytest.raises(redis.ConnectionError):
        reader.read(epochs)
    streams.reads_left = None
    second = reader.read(epochs)

    for partition in range(12):
        assert ownership.is_under_way(partition, 1)
        numbers = [number for at, number in entries_of(first) + entries_of(second) if at == partition]
        assert numbers == list(range(1, len(numbers) + 1))


def command_of(store: str, number: int, *, heavy: bool = False) -> bytes:
    metadata = {str(each): "m" * 500 for each in range(HEAVY_BYTES // 500)} if heavy else None
    credit = Credit(
        account_id=f"cca_{number:032x}", amount=1, reference="r", idempotency_key=f"k {number}", metadata=metadata
    )
    return encode_command(credit, store)


def test_what_is_heavy_holds_up_its_own_store_only(reader: LaneReader, streams: Streams) -> None:
    """Given a heavy command of a store, when others have sent something behind it, then that is read first; and what
    the store itself sent behind it keeps its place."""
    streams.lanes = {lane(2): [1, 2, 3, 4]}
    streams.payloads = {
        1: command_of("store_a", 1, heavy=True),
        2: command_of("store_a", 2),
        3: command_of("store_b", 3),
        4: command_of("store_a", 4, heavy=True),
    }

    light = reader.read({2: 5})

    assert entries_of(light) == [(2, 3)]
    assert light.gaps == {2}
    assert reader.holds_back
    held = reader.read_held({2: 5})
    assert entries_of(held) == [(2, 1), (2, 2), (2, 4)]
    assert held.gaps == {2}
    assert not reader.holds_back
    streams.lanes[lane(2)].append(5)
    assert entries_of(reader.read({2: 5})) == [(2, 5)]


def test_what_is_held_back_comes_in_small_parts_lane_by_lane(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(2): list(range(1, 10)), lane(3): list(range(11, 20))}
    streams.payloads = {number: command_of("store_a", number, heavy=True) for number in range(20)}
    epochs = {2: 1, 3: 1}
    assert reader.read(epochs).requests == []

    parts = []
    while reader.holds_back:
        parts.append(entries_of(reader.read_held(epochs)))

    assert all(len({partition for partition, _ in part}) == 1 for part in parts)
    assert [parts[0][0][0], parts[1][0][0], parts[2][0][0]] == [2, 3, 2]
    numbers = [number for part in parts for _, number in part]
    assert sorted(numbers) == [*range(1, 10), *range(11, 20)]
    assert [number for number in numbers if number < 10] == list(range(1, 10))


def test_with_something_held_back_a_lane_is_read_on_from_its_place(
    reader: LaneReader, streams: Streams, ownership: Ownership
) -> None:
    """Given a lane with nothing under way but something held back, then a read does not begin at its head again."""
    streams.lanes = {lane(2): [1, 2]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True), 2: command_of("store_b", 2)}
    ownership.finish(reader.read({2: 5}).epochs)

    assert reader.read({2: 5}).requests == []


def test_what_was_held_back_under_a_lost_lease_is_read_again(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(2): [1, 2]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True), 2: command_of("store_b", 2)}
    reader.read({2: 5})
    reader.read_held({2: 5})

    assert entries_of(reader.read({2: 7})) == [(2, 2)]
    assert entries_of(reader.read_held({2: 7})) == [(2, 1)]


def test_what_is_held_back_of_a_lane_that_is_gone_is_forgotten(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(2): [1]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True)}
    reader.read({2: 5, 3: 1})

    assert reader.read_held({3: 1}).requests == []
    assert not reader.holds_back


@pytest.mark.parametrize(
    ("field", "producer_id", "number"),
    [
        (b"abc123/7", "abc123", 7),
        (b"abc/999999999999999999", "abc", 999_999_999_999_999_999),
        (b"abc/0007", "abc", 7),
        (b"", None, 0),
        (b"abc", None, 0),
        (b"/7", None, 0),
        (b"abc/", None, 0),
        (b"abc/x", None, 0),
        (b"abc/-1", None, 0),
        (b"abc/1000000000000000000", None, 0),
        (b"a:b/7", None, 0),
        (b"a/b/7", None, 0),
        (b"a{b}/7", None, 0),
        (b"\xff/7", None, 0),
        ("é/7".encode(), None, 0),
        (b"a" * 64 + b"/7", "a" * 64, 7),
        (b"a" * 65 + b"/7", None, 0),
    ],
)
def test_only_a_well_formed_reply_field_names_a_producer(field: bytes, producer_id: str | None, number: int) -> None:
    """Given a reply field, when it is not what a producer writes, then nobody is told and no key is made of it."""
    request = parse_request(3, b"1-0", [b"c", b"{}", b"r", field])

    assert (request.producer_id, request.number) == (producer_id, number)
    assert request.flaw is not None


@pytest.mark.parametrize(
    ("fields", "payload", "flaw"),
    [
        ([], b"", "the entry has no field c"),
        ([b"d", b"{}"], b"d {}", "the entry has no field c"),
        ([b"k", b"1", b"r", b"abc/1"], b"k 1 r abc/1", "the entry has no field c"),
        ([b"c", b"\xff\x00"], b"\xff\x00", "Invalid JSON"),
    ],
)
def test_a_request_without_a_command_keeps_every_byte(fields: list[bytes], payload: bytes, flaw: str) -> None:
    request = parse_request(3, b"1-0", fields)

    assert request.command is None
    assert request.payload == payload
    assert flaw in (request.flaw or "")
