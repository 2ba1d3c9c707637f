"""The lane reader: where each read starts, how much it asks for, and that no entry is passed over."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast
from unittest.mock import patch

import pytest
import redis

from creditlane.schemas.keys import Keys
from creditlane.worker import fences as worker_fences
from creditlane.worker.counting import Counting
from creditlane.worker.lane_faults import RECHECK_SECONDS
from creditlane.worker.lane_heads import MAX_SAME_HEADS
from creditlane.worker.lane_reader import HEAD_CHECK_SECONDS, MIN_READ_COUNT, LaneReader
from creditlane.worker.ownership import Ownership
from creditlane.worker.requests import Batch, parse_request

KEYS = Keys("test")


class Streams:
    """Stands in for Redis: streams of numbered entries, and a record of what was asked."""

    def __init__(self) -> None:
        self.lanes: dict[bytes, list[int]] = {}
        self.spoilt: set[bytes] = set()
        self.count = 0
        self.starts: dict[bytes, bytes] = {}
        self.broken = False

    def pipeline(self, *, transaction: bool) -> "Answers":
        assert not transaction
        return Answers(self)

    def execute_command(self, *arguments: Any) -> Any:
        if self.broken:
            raise redis.ConnectionError("gone")
        if arguments[0] == "XRANGE":
            return [[b"%d-0" % number, []] for number in self.lanes.get(arguments[1].encode(), [])[:1]]
        command, _, self.count, block, block_ms, streams, *rest = arguments
        assert (command, block, streams) == ("XREAD", "BLOCK", "STREAMS")
        assert 0 < block_ms <= 250
        half = len(rest) // 2
        self.starts = dict(zip(rest[:half], rest[half:], strict=True))
        if self.spoilt & self.starts.keys():
            raise redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        found = []
        for lane, start in self.starts.items():
            after = int(start.partition(b"-")[0])
            entries = [number for number in self.lanes.get(lane, []) if number > after][: self.count]
            if entries:
                found.append([lane, [[b"%d-0" % number, [b"c", b"{}"]] for number in entries]])
        return found or None


class Answers:
    """Stands in for a pipeline: one answer a call, errors among them."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._answers: list[Any] = []

    def xlen(self, lane: str) -> None:
        spoilt = lane.encode() in self._streams.spoilt
        self._answers.append(redis.ResponseError("WRONGTYPE Operation against a key") if spoilt else 0)

    def execute_command(self, *arguments: Any) -> None:
        self._answers.append(self._streams.execute_command(*arguments))

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return self._answers


class Fences:
    """Stands in for the fences: a record of those that were raised, and lanes that a fence keeps from being read."""

    def __init__(self) -> None:
        self.raised: list[tuple[int, int]] = []
        self.stopped: set[int] = set()
        self._standing: set[tuple[int, int]] = set()

    def raise_for(self, epochs: Mapping[int, int]) -> set[int]:
        self.raised += sorted(epochs.items() - self._standing)
        self._standing = set(epochs.items())
        return self.stopped

    def forget(self) -> None:
        self._standing.clear()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def ownership() -> Ownership:
    return Ownership()


@pytest.fixture
def fences() -> Fences:
    return Fences()


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reader(streams: Streams, ownership: Ownership, fences: Fences, counting: Counting, clock: Clock) -> LaneReader:
    return LaneReader(
        cast("redis.Redis", streams),
        KEYS,
        ownership,
        cast("worker_fences.Fences", fences),
        counting,
        batch_limit=100,
        clock=clock,
    )


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


def test_a_new_epoch_starts_at_the_head_and_raises_the_fence(
    reader: LaneReader, streams: Streams, fences: Fences
) -> None:
    """Given a lane that was lost and regained with a batch under way, then its entries are read again under the new
    epoch, since the old batch can no longer be committed."""
    streams.lanes = {lane(2): [1, 2]}
    reader.read({2: 5})

    assert entries_of(reader.read({2: 7})) == [(2, 1), (2, 2)]
    assert fences.raised == [(2, 5), (2, 7)]


def test_a_lane_that_its_fence_keeps_from_being_read_holds_up_no_other(
    reader: LaneReader, streams: Streams, fences: Fences
) -> None:
    streams.lanes = {lane(2): [1], lane(3): [2]}
    fences.stopped = {2}

    assert entries_of(reader.read({2: 5, 3: 5})) == [(3, 2)]


def test_after_a_fault_a_lane_waits_for_what_is_under_way_and_is_read_from_its_head(
    reader: LaneReader, streams: Streams, ownership: Ownership, fences: Fences
) -> None:
    """Given a Redis that lost its tail in a fail-over and gives out lower ids, when its lane is read again, then
    first what was read before is done with, so that nothing overtakes it, and then the lower ids are found."""
    streams.lanes = {lane(2): [10, 11], lane(3): [1]}
    before = reader.read({2: 5, 3: 5})
    ownership.finish({3: 5})
    streams.broken = True
    with pytest.raises(redis.ConnectionError):
        reader.read({2: 5, 3: 5})
    streams.broken = False
    streams.lanes = {lane(2): [7, 12], lane(3): [2]}
    reader.reset(1)

    assert entries_of(reader.read({2: 5, 3: 5})) == [(3, 2)]
    assert fences.raised.count((2, 5)) == 2
    ownership.finish({2: 5})
    after = reader.read({2: 5, 3: 5})
    assert entries_of(after) == [(2, 7), (2, 12)]
    assert (before.session, after.session) == (0, 1)


def test_a_lane_that_is_always_under_way_does_not_pass_over_lower_ids(
    reader: LaneReader, streams: Streams, ownership: Ownership, clock: Clock
) -> None:
    """Given a lane under constant load, when lower ids come without any fault of the connection, then they are read
    once what was under way is done with."""
    streams.lanes = {lane(2): [10]}
    reader.read({2: 5})
    found = []
    for number in range(11, 20):
        # There is always a batch under way when the one before it is done with.
        streams.lanes[lane(2)] = [3, number]
        clock.now += HEAD_CHECK_SECONDS / 4
        batch = reader.read({2: 5})
        found += entries_of(batch)
        ownership.finish({2: 5})

    assert (2, 3) in found


def test_reading_on_under_load_without_lower_ids_never_waits(
    reader: LaneReader, streams: Streams, ownership: Ownership, clock: Clock
) -> None:
    streams.lanes = {lane(2): [10]}
    reader.read({2: 5})
    for number in range(11, 20):
        streams.lanes[lane(2)] = [number - 1, number]
        clock.now += HEAD_CHECK_SECONDS
        assert entries_of(reader.read({2: 5})) == [(2, number)]
        ownership.finish({2: 5})


def test_one_lane_of_another_type_holds_up_no_other_and_is_named(
    reader: LaneReader, streams: Streams, counting: Counting, clock: Clock
) -> None:
    """Given a string where a lane should be, when the lanes are read, then the others are, it is named as long as it
    is there, and read again soon after it is gone."""
    streams.lanes = {lane(2): [1], lane(3): [2]}
    streams.spoilt = {lane(2)}

    reader.read({2: 5, 3: 5})
    assert entries_of(reader.read({2: 5, 3: 5})) == [(3, 2)]
    assert list(json.loads(counting.encoded())["lane_faults"]) == ["2"]

    streams.spoilt = set()
    clock.now += RECHECK_SECONDS
    assert (2, 1) in entries_of(reader.read({2: 5, 3: 5}))
    assert json.loads(counting.encoded())["lane_faults"] == {}


def test_an_error_that_is_about_no_lane_in_particular_is_the_callers(reader: LaneReader, streams: Streams) -> None:
    streams.spoilt = {lane(2)}
    with (
        patch.object(Answers, "xlen", lambda answers, _lane: answers._answers.append(0)),
        pytest.raises(redis.ResponseError, match="WRONGTYPE"),
    ):
        reader.read({2: 5})


def test_a_lane_read_again_without_progress_is_noticed_until_it_gets_on(
    reader: LaneReader, streams: Streams, ownership: Ownership, counting: Counting
) -> None:
    """Given entries that are decided and never deleted, when they are read again and again, then that is counted and
    told, and no more once the lane gets on."""
    streams.lanes = {lane(2): [1, 2]}
    for _ in range(MAX_SAME_HEADS + 1):
        ownership.finish(reader.read({2: 5}).epochs)
    numbers = json.loads(counting.encoded())
    assert numbers["lanes_read_again"] == MAX_SAME_HEADS
    assert "not deleted" in numbers["lane_faults"]["2"]

    streams.lanes = {}
    reader.read({2: 5})
    assert json.loads(counting.encoded())["lane_faults"] == {}


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
