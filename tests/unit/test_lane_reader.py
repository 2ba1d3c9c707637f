"""The lane reader: where each read starts, how much it asks for, and that no entry is passed over."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
import redis

from creditlane.schemas.keys import Keys
from creditlane.worker.lane_reader import MIN_READ_COUNT, LaneReader
from creditlane.worker.ownership import Ownership
from creditlane.worker.requests import Batch, parse_request

KEYS = Keys("test")


class Streams:
    """Stands in for Redis: streams of numbered entries, and a record of what was asked."""

    def __init__(self) -> None:
        self.lanes: dict[bytes, list[int]] = {}
        self.fences: list[tuple[str, int]] = []
        self.count = 0
        self.starts: dict[bytes, bytes] = {}
        self.broken = False

    def register_script(self, _script: str) -> Callable[..., None]:
        return lambda keys, args: self.fences.append((keys[0], args[0]))

    def execute_command(self, *arguments: Any) -> Any:
        if self.broken:
            raise redis.ConnectionError("gone")
        command, _, self.count, block, block_ms, streams, *rest = arguments
        assert (command, block, streams) == ("XREAD", "BLOCK", "STREAMS")
        assert 0 < block_ms <= 250
        half = len(rest) // 2
        self.starts = dict(zip(rest[:half], rest[half:], strict=True))
        found = []
        for lane, start in self.starts.items():
            after = int(start.partition(b"-")[0])
            entries = [number for number in self.lanes.get(lane, []) if number > after][: self.count]
            if entries:
                found.append([lane, [[b"%d-0" % number, [b"c", b"{}"]] for number in entries]])
        return found or None


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


def test_one_busy_lane_soon_fills_a_batch_alone(reader: LaneReader, streams: Streams) -> None:
    """Given many lanes of which one is busy, when it is read on and on, then the count grows, at most twofold each
    time, until that lane alone makes full batches."""
    streams.lanes = {lane(0): list(range(1, 2_000))}
    epochs = dict.fromkeys(range(8), 1)

    counts = []
    for _ in range(6):
        reader.read(epochs)
        counts.append(streams.count)

    assert counts[0] == MIN_READ_COUNT
    assert all(later <= 2 * earlier for earlier, later in pairwise(counts))
    assert counts[-1] == 100


def test_many_busy_lanes_bring_the_count_down(reader: LaneReader, streams: Streams) -> None:
    """Given a count that fits one busy lane, when all lanes get busy, then the batches come back to the limit."""
    streams.lanes = {lane(0): list(range(1, 1_000))}
    epochs = dict.fromkeys(range(4), 1)
    for _ in range(5):
        reader.read(epochs)
    streams.lanes = {lane(partition): list(range(1, 100_000)) for partition in epochs}

    sizes = [len(reader.read(epochs).requests) for _ in range(4)]

    assert sizes[0] > 100
    assert sizes[-1] <= 100


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
