"""The lane reader: where each read starts, how much it asks for, and that no entry is passed over."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast
from unittest.mock import patch

import pytest
import redis

from creditlane.lanes.encoding import encode_command
from creditlane.lanes.keys import Keys
from creditlane.schemas.commands import Credit
from creditlane.worker.lanes import fences as worker_fences
from creditlane.worker.lanes.entries import Batch, parse_entry
from creditlane.worker.lanes.faults import RECHECK_SECONDS, RECHECK_TOO_LONG_SECONDS
from creditlane.worker.lanes.heavy_commands import HEAVY_BYTES, HELD_BYTES, HELD_ENTRIES, MOST_HELD_ENTRIES
from creditlane.worker.lanes.ownership import Ownership
from creditlane.worker.lanes.reader import (
    FIRST_READ_ENTRIES,
    HEAD_CHECK_SECONDS,
    MAX_ANSWER_BYTES,
    READ_BYTES,
    LaneReader,
)
from creditlane.worker.lanes.redis_session import AnswerTooLong
from creditlane.worker.lanes.stalled_lanes import MAX_SAME_HEADS
from creditlane.worker.metrics import Metrics

from .moved_clock import MovedClock

KEYS = Keys("test")


class Streams:
    """Stands in for Redis: streams of numbered entries, and a record of what was asked."""

    def __init__(self) -> None:
        self.lanes: dict[bytes, list[int]] = {}
        self.payloads: dict[int, bytes] = {}
        self.spoilt: set[bytes] = set()
        #: Of each read: how many entries of each of how many lanes.
        self.asked: list[tuple[int, int]] = []
        self.starts: dict[bytes, bytes] = {}
        self.broken = False
        #: What it breaks with.
        self.fault: Exception = redis.ConnectionError("gone")
        #: Longest answer, in bytes of payloads, before it is broken off.
        self.max_answer_bytes: int | None = None
        #: Reads that are answered before it breaks.
        self.reads_left: int | None = None

    def pipeline(self, *, transaction: bool) -> "Answers":
        assert not transaction
        return Answers(self)

    def execute_command(self, *arguments: Any) -> Any:
        if self.broken or self.reads_left == 0:
            raise self.fault
        if arguments[0] == "XRANGE":
            numbers = self.lanes.get(arguments[1].encode(), [])[:1]
            return [[b"%d-0" % number, [b"c", self.payload(number)]] for number in numbers]
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
        if self.spoilt & self.starts.keys():
            raise redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        found = []
        for lane, start in self.starts.items():
            position = tuple(map(int, start.split(b"-")))
            entries = [number for number in self.lanes.get(lane, []) if (number, 0) > position][:count]
            if entries:
                found.append([lane, [[b"%d-0" % number, [b"c", self.payload(number)]] for number in entries]])
        self.bound([entries for _, entries in found])
        return found or None

    def bound(self, answers: list[Any]) -> None:
        length = sum(len(fields[1]) for entries in answers for _, fields in entries)
        if self.max_answer_bytes is not None and length > self.max_answer_bytes:
            raise AnswerTooLong

    def payload(self, number: int) -> bytes:
        return self.payloads.get(number, b"{}")


class Answers:
    """Stands in for a pipeline: one answer a call, errors among them."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._answers: list[Any] = []
        self._heads: list[Any] = []

    def xlen(self, lane: str) -> None:
        spoilt = lane.encode() in self._streams.spoilt
        self._answers.append(redis.ResponseError("WRONGTYPE Operation against a key") if spoilt else 0)

    def execute_command(self, *arguments: Any) -> None:
        self._answers.append(self._streams.execute_command(*arguments))
        self._heads.append(self._answers[-1])

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        self._streams.bound(self._heads)
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
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def make_reader(
    streams: Streams, ownership: Ownership, fences: Fences, metrics: Metrics, clock: MovedClock
) -> Callable[[int], LaneReader]:
    """Makes a reader with a batch limit."""
    return lambda batch_limit: LaneReader(
        cast("redis.Redis", streams),
        KEYS,
        ownership,
        cast("worker_fences.Fences", fences),
        metrics,
        batch_limit=batch_limit,
        clock=clock,
    )


@pytest.fixture
def reader(make_reader: Callable[[int], LaneReader]) -> LaneReader:
    return make_reader(100)


def lane(partition: int) -> bytes:
    return KEYS.lane(partition).encode()


def entries_of(batch: Batch) -> list[tuple[int, int]]:
    """Return what was read as (partition, number of the entry)."""
    return [(entry.partition, int(entry.entry_id.partition(b"-")[0])) for entry in batch.entries]


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
    reader: LaneReader, streams: Streams, ownership: Ownership, clock: MovedClock
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
    reader: LaneReader, streams: Streams, ownership: Ownership, clock: MovedClock
) -> None:
    streams.lanes = {lane(2): [10]}
    reader.read({2: 5})
    for number in range(11, 20):
        streams.lanes[lane(2)] = [number - 1, number]
        clock.now += HEAD_CHECK_SECONDS
        assert entries_of(reader.read({2: 5})) == [(2, number)]
        ownership.finish({2: 5})


def test_one_lane_of_another_type_holds_up_no_other_and_is_named(
    reader: LaneReader, streams: Streams, metrics: Metrics, clock: MovedClock
) -> None:
    """Given a string where a lane should be, when the lanes are read, then the others are, it is named as long as it
    is there, and read again soon after it is gone."""
    streams.lanes = {lane(2): [1], lane(3): [2]}
    streams.spoilt = {lane(2)}

    reader.read({2: 5, 3: 5})
    assert entries_of(reader.read({2: 5, 3: 5})) == [(3, 2)]
    assert json.loads(metrics.encoded())["lane_faults"] == {"2": "its key cannot be read: Redis answers WRONGTYPE"}

    streams.spoilt = set()
    clock.now += RECHECK_SECONDS
    assert (2, 1) in entries_of(reader.read({2: 5, 3: 5}))
    assert json.loads(metrics.encoded())["lane_faults"] == {}


def test_what_is_said_of_a_lane_names_nobody_whom_redis_names(
    reader: LaneReader, streams: Streams, metrics: Metrics
) -> None:
    streams.lanes = {lane(2): [1], lane(3): [2]}
    refusal = redis.exceptions.NoPermissionError("User worker-7 has no permissions to access the key 'lane'")
    with patch.object(Answers, "xlen", lambda answers, _lane: answers._answers.append(refusal)):
        reader._faults.find(refusal, [2])

    assert json.loads(metrics.encoded())["lane_faults"] == {
        "2": "its key cannot be read: Redis answers NoPermissionError"
    }


def test_an_error_that_is_about_no_lane_in_particular_is_the_callers(reader: LaneReader, streams: Streams) -> None:
    streams.spoilt = {lane(2)}
    with (
        patch.object(Answers, "xlen", lambda answers, _lane: answers._answers.append(0)),
        pytest.raises(redis.ResponseError, match="WRONGTYPE"),
    ):
        reader.read({2: 5})


def test_a_lane_read_again_without_progress_is_noticed_until_it_gets_on(
    reader: LaneReader, streams: Streams, ownership: Ownership, metrics: Metrics
) -> None:
    """Given entries that are decided and never deleted, when they are read again and again, then that is counted and
    logged, and no more once the lane gets on."""
    streams.lanes = {lane(2): [1, 2]}
    for _ in range(MAX_SAME_HEADS + 1):
        ownership.finish(reader.read({2: 5}).epochs)
    numbers = json.loads(metrics.encoded())
    assert numbers["lanes_read_again"] == MAX_SAME_HEADS
    assert "not deleted" in numbers["lane_faults"]["2"]

    streams.lanes = {}
    reader.read({2: 5})
    assert json.loads(metrics.encoded())["lane_faults"] == {}


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

    assert (batch.entries, dict(batch.epochs)) == ([], {})
    assert not ownership.is_under_way(2, 5)


def test_one_busy_lane_fills_a_batch_alone(reader: LaneReader, streams: Streams) -> None:
    """Given many lanes of which one is busy, then that lane alone makes a full batch, and no more than that."""
    streams.lanes = {lane(0): list(range(1, 2_000))}

    assert entries_of(reader.read(dict.fromkeys(range(8), 1))) == [(0, number) for number in range(1, 101)]


def test_busy_lanes_share_a_batch_evenly(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(partition): list(range(1, 10_000)) for partition in range(4)}

    batch = reader.read(dict.fromkeys(range(4), 1))

    assert len(batch.entries) == 100
    assert {sum(entry.partition == partition for entry in batch.entries) for partition in range(4)} == {25}


def test_a_batch_is_no_longer_than_its_limit(streams: Streams, make_reader: Callable[[int], LaneReader]) -> None:
    """Given a lane that leaves room for one command, then it is not filled with one of each of some lanes: those above
    the limit would be a transaction of their own."""
    reader, epochs = make_reader(8_000), dict.fromkeys(range(64), 1)
    streams.lanes = {lane(partition): list(range(1, 10_000)) for partition in epochs}
    for _ in range(3):
        reader.read(epochs)
    streams.lanes = {lane(partition): list(range(10_000, 10_300)) for partition in epochs}
    streams.lanes[lane(0)] = list(range(10_000, 10_124))

    assert len(reader.read(epochs).entries) == 8_000


def test_reads_of_short_entries_ask_for_more_and_more(
    streams: Streams, make_reader: Callable[[int], LaneReader]
) -> None:
    """Given lanes that are full, when their entries are short, then few reads make a full batch; the first ones ask
    for little."""
    reader, epochs = make_reader(8_000), dict.fromkeys(range(64), 1)
    streams.lanes = {lane(partition): list(range(1, 10_000)) for partition in range(64)}

    batches = [len(reader.read(epochs).entries) for _ in range(3)]

    assert batches == [8_000] * 3
    assert streams.asked[0] == (FIRST_READ_ENTRIES // 64, 64)
    assert streams.asked[-1] == (8_000 // 64, 64)


def test_reads_ask_for_few_again_after_long_entries(streams: Streams, make_reader: Callable[[int], LaneReader]) -> None:
    reader = make_reader(8_000)
    streams.lanes = {lane(0): list(range(1, 30_000))}
    streams.payloads = {15_000: command_of("store_a", 1, heavy=True)}
    for _ in range(2):
        reader.read({0: 1})
    assert reader.holds_back

    streams.asked.clear()
    reader.read({0: 1})

    assert streams.asked[0][0] <= 2 * FIRST_READ_ENTRIES


def test_after_an_answer_that_is_too_long_fewer_entries_are_asked_for(
    streams: Streams, make_reader: Callable[[int], LaneReader]
) -> None:
    """Given more lanes with long entries than one answer has room for, when answers are broken off, then a read
    succeeds soon, and all lanes get their turn."""
    reader, epochs = make_reader(8_000), dict.fromkeys(range(100), 1)
    streams.lanes = {lane(partition): [1] for partition in range(100)}
    streams.payloads = {1: b"x" * 256_000}
    streams.max_answer_bytes = MAX_ANSWER_BYTES

    for _ in range(20):
        with suppress(AnswerTooLong):
            reader.read(epochs)

    assert {partition for partition in range(100) if partition in reader._held} == set(range(100))


def test_a_lane_with_an_entry_too_long_to_be_read_is_set_aside_and_named(
    streams: Streams, make_reader: Callable[[int], LaneReader], metrics: Metrics, clock: MovedClock
) -> None:
    """Given one entry that is longer than any answer may be, when the lanes are read, then after some answers that are
    broken off all others are read, and no answer is broken off any more; it is read now and then, and the lane
    gets on once that entry is gone."""
    reader, epochs = make_reader(8_000), dict.fromkeys(range(64), 1)
    streams.lanes = {lane(partition): [partition + 1] for partition in range(64)}
    streams.payloads = {41: b"x" * (MAX_ANSWER_BYTES + 1)}
    streams.max_answer_bytes = MAX_ANSWER_BYTES

    read = set()
    for _ in range(10):
        with suppress(AnswerTooLong):
            read |= {partition for partition, _ in entries_of(reader.read(epochs))}
    assert read == set(range(64)) - {40}
    assert list(json.loads(metrics.encoded())["lane_faults"]) == ["40"]
    assert [reader.read(epochs).entries for _ in range(9)] == [[]] * 9

    clock.now += RECHECK_TOO_LONG_SECONDS
    with pytest.raises(AnswerTooLong):
        reader.read(epochs)
    reader.read(epochs)
    streams.lanes[lane(40)] = [99]
    clock.now += RECHECK_TOO_LONG_SECONDS
    assert entries_of(reader.read(epochs)) == [(40, 99)]
    assert json.loads(metrics.encoded())["lane_faults"] == {}


def test_an_entry_too_long_to_be_read_behind_others_lets_those_be_read(
    streams: Streams, make_reader: Callable[[int], LaneReader], ownership: Ownership, metrics: Metrics
) -> None:
    """Given a lane with such an entry in the middle, then what stands before it is read, and nothing behind it."""
    reader = make_reader(8_000)
    streams.lanes = {lane(2): list(range(1, 30)), lane(3): [50]}
    streams.payloads = {20: b"x" * (MAX_ANSWER_BYTES + 1)}
    streams.max_answer_bytes = MAX_ANSWER_BYTES

    read = []
    for _ in range(60):
        with suppress(AnswerTooLong):
            batch = reader.read({2: 5, 3: 5})
            read += entries_of(batch)
            ownership.finish(batch.epochs)
            for partition, number in entries_of(batch):
                streams.lanes[lane(partition)].remove(number)

    assert sorted(read) == [*((2, number) for number in range(1, 20)), (3, 50)]
    assert list(json.loads(metrics.encoded())["lane_faults"]) == ["2"]


@pytest.mark.parametrize("fault", [OSError("reset"), redis.InvalidResponse("?")])
def test_a_read_that_breaks_off_by_any_fault_keeps_what_it_had(
    reader: LaneReader, streams: Streams, fault: Exception
) -> None:
    streams.lanes = {lane(partition): list(range(1, 100)) for partition in range(12)}
    streams.reads_left = 1
    streams.fault = fault

    assert len(reader.read(dict.fromkeys(range(12), 1)).entries) >= 12
    with pytest.raises(type(fault)):
        reader.read(dict.fromkeys(range(12), 1))


def test_a_lane_that_was_not_asked_does_not_count_as_one_that_gets_on(
    streams: Streams, make_reader: Callable[[int], LaneReader], ownership: Ownership, metrics: Metrics
) -> None:
    """Given a lane that does not get on, when a read ends before its turn, then it is still named."""
    reader, epochs = make_reader(4), dict.fromkeys(range(20), 1)
    streams.lanes = {lane(15): [1]}
    for _ in range(MAX_SAME_HEADS + 1):
        ownership.finish(reader.read({15: 1}).epochs)
    assert list(json.loads(metrics.encoded())["lane_faults"]) == ["15"]

    streams.lanes |= {lane(partition): list(range(1, 100)) for partition in range(15)}
    reader._entries, reader._last_turn = 1, -1
    reader.read(epochs)

    assert list(json.loads(metrics.encoded())["lane_faults"]) == ["15"]


def test_lanes_that_are_read_by_turns_all_have_their_turn(
    streams: Streams, make_reader: Callable[[int], LaneReader]
) -> None:
    """Given lanes of which each alone fills a batch, then none waits for ever."""
    reader, epochs = make_reader(4), dict.fromkeys(range(20), 1)
    reader._entries = 1
    streams.lanes = {lane(partition): list(range(1, 1_000)) for partition in range(20)}

    read = set()
    for _ in range(20):
        batch = reader.read(epochs)
        read |= batch.epochs.keys()
        reader._entries = 1

    assert read == set(range(20))


def test_empty_lanes_are_waited_for_after_an_answer_that_was_too_long(
    streams: Streams, make_reader: Callable[[int], LaneReader]
) -> None:
    """Given a reader that asks by turns, when nothing stands there any more, then it blocks on all lanes again."""
    reader, epochs = make_reader(8_000), dict.fromkeys(range(100), 1)
    reader._entries = 1

    reader.read(epochs)
    reader.read(epochs)

    assert streams.asked[-1][1] == 100


def test_long_entries_fill_a_batch_by_their_bytes(streams: Streams, make_reader: Callable[[int], LaneReader]) -> None:
    """Given one long entry after the other, then a batch ends with the read that makes it full."""
    long, number = 4_000, READ_BYTES // 4_000
    reader = make_reader(50_000)
    streams.lanes = {lane(0): list(range(1, 3 * number))}
    streams.payloads = dict.fromkeys(range(1, 3 * number), b"x" * long)

    batch = reader.read({0: 1})

    assert number <= len(batch.entries) < 2 * number


def test_a_read_that_breaks_off_keeps_what_it_had(reader: LaneReader, streams: Streams, ownership: Ownership) -> None:
    """Given a batch that takes several reads, when one of them fails, then what was read is a batch, and nothing of it
    is read again or passed over."""
    streams.lanes = {lane(partition): list(range(1, 100)) for partition in range(12)}
    epochs = dict.fromkeys(range(12), 1)
    streams.reads_left = 1

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
    the store itself sent behind it keeps its position."""
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
    """Given lanes of which each has more held back than a part has room for, then they have their turns."""
    streams.lanes = {lane(2): list(range(1, 10)), lane(3): list(range(11, 20))}
    streams.payloads = dict.fromkeys(range(20), b"x" * (HELD_BYTES - 1000))
    epochs = {2: 1, 3: 1}
    assert reader.read(epochs).entries == []

    parts = []
    while reader.holds_back:
        parts.append(entries_of(reader.read_held(epochs)))

    assert all(len(part) == 1 for part in parts)
    assert [parts[0][0][0], parts[1][0][0], parts[2][0][0]] == [2, 3, 2]
    numbers = [number for part in parts for _, number in part]
    assert sorted(numbers) == [*range(1, 10), *range(11, 20)]
    assert [number for number in numbers if number < 10] == list(range(1, 10))


def test_one_heavy_command_does_not_slow_down_what_its_store_sends_behind_it(
    streams: Streams, make_reader: Callable[[int], LaneReader]
) -> None:
    """Given a thousand light commands behind a heavy one on each of some lanes, then the parts of what is held back are
    soon as large as there is room, of as many lanes as that takes."""
    reader, epochs = make_reader(8_000), {2: 1, 3: 1, 4: 1}
    for partition in epochs:
        streams.lanes[lane(partition)] = list(range(partition * 10_000, partition * 10_000 + 1_001))
        streams.payloads |= {
            number: command_of("store_a", number, heavy=number % 10_000 == 0)
            for number in streams.lanes[lane(partition)]
        }
    while not reader.is_at_end:
        assert reader.read(epochs).entries == []

    parts = []
    while reader.holds_back:
        parts.append(entries_of(reader.read_held(epochs)))

    assert len(parts) <= 40
    for partition in epochs:
        read = [number for part in parts for at, number in part if at == partition]
        assert read == streams.lanes[lane(partition)]


def test_a_part_that_is_full_with_one_lane_leaves_the_next_where_it_is(reader: LaneReader, streams: Streams) -> None:
    """Given room that is left for no command of the next lane, then that one comes first in the next part."""
    streams.lanes = {lane(2): [1, 2], lane(3): [11], lane(4): [21]}
    streams.payloads = dict.fromkeys((1, 2, 11, 21), b"x" * (HELD_BYTES // 2))
    epochs = {2: 1, 3: 1, 4: 1}
    reader.read(epochs)

    parts = [entries_of(reader.read_held(epochs)) for _ in range(4)]

    assert parts == [[(2, 1)], [(3, 11)], [(4, 21)], [(2, 2)]]


def test_long_entries_among_what_is_held_back_are_asked_for_few_at_once(
    streams: Streams, make_reader: Callable[[int], LaneReader]
) -> None:
    """Given light commands and then long ones, then the number that is asked for grows, and falls again."""
    reader = make_reader(8_000)
    numbers = list(range(1, 3_000))
    streams.lanes = {lane(2): numbers}
    streams.payloads = {number: command_of("store_a", number, heavy=number == 1) for number in numbers[:1_000]}
    streams.payloads |= dict.fromkeys(numbers[1000:], b'{"store_id":"store_a","x":"' + b"x" * 7900 + b'"}')
    while not reader.is_at_end:
        assert reader.read({2: 1}).entries == []
    streams.asked.clear()

    while reader.holds_back:
        reader.read_held({2: 1})

    asked = [count for count, _ in streams.asked]
    assert asked[0] == HELD_ENTRIES
    assert max(asked) <= MOST_HELD_ENTRIES
    assert asked[-1] * 7_900 < 2 * HELD_BYTES


def test_with_something_held_back_a_lane_is_read_on_from_its_position(
    reader: LaneReader, streams: Streams, ownership: Ownership
) -> None:
    """Given a lane with nothing under way but something held back, then a read does not begin at its head again."""
    streams.lanes = {lane(2): [1, 2]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True), 2: command_of("store_b", 2)}
    ownership.finish(reader.read({2: 5}).epochs)

    assert reader.read({2: 5}).entries == []


def test_what_was_held_back_is_not_taken_for_a_lower_id(
    reader: LaneReader, streams: Streams, clock: MovedClock
) -> None:
    """Given something light that went before what is held back, when both are under way, then reading goes on."""
    streams.lanes = {lane(2): [1]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True)}
    streams.payloads |= {number: command_of("store_b", number) for number in (2, 3)}
    assert reader.read({2: 5}).entries == []
    streams.lanes[lane(2)].append(2)
    assert entries_of(reader.read({2: 5})) == [(2, 2)]
    assert entries_of(reader.read_held({2: 5})) == [(2, 1)]
    assert not reader.holds_back

    streams.lanes[lane(2)].append(3)
    clock.now += HEAD_CHECK_SECONDS

    assert entries_of(reader.read({2: 5})) == [(2, 3)]


def test_what_was_held_back_under_a_lost_lease_is_read_again(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(2): [1, 2]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True), 2: command_of("store_b", 2)}
    reader.read({2: 5})
    reader.read_held({2: 5})

    assert entries_of(reader.read({2: 7})) == [(2, 2)]
    assert entries_of(reader.read_held({2: 7})) == [(2, 1)]


@pytest.mark.parametrize("is_under_way", [True, False])
def test_what_is_held_back_of_a_lane_that_cannot_be_read_comes_again_in_order(
    reader: LaneReader, streams: Streams, ownership: Ownership, clock: MovedClock, is_under_way: bool
) -> None:
    """Given a lane with something held back, when its key is something else for a while, then nothing is held back
    until it can be read, and then its store's commands come in their order."""
    streams.lanes = {lane(2): [1, 2, 3], lane(3): []}
    streams.payloads = {number: command_of("store_a", number, heavy=number == 1) for number in (1, 3, 4)}
    streams.payloads[2] = command_of("store_b", 2)
    epochs = {2: 5, 3: 5}
    batch = reader.read(epochs)
    assert entries_of(batch) == [(2, 2)]
    if not is_under_way:
        ownership.finish(batch.epochs)
    streams.spoilt = {lane(2)}
    reader.read(epochs)
    reader.read(epochs)
    assert not reader.holds_back

    streams.spoilt, streams.lanes[lane(2)] = set(), [1, 3, 4]
    clock.now += RECHECK_SECONDS
    if is_under_way:
        assert reader.read(epochs).entries == []
        ownership.finish(batch.epochs)
    assert reader.read(epochs).entries == []
    assert entries_of(reader.read_held(epochs)) == [(2, 1), (2, 3), (2, 4)]


def test_the_heads_of_many_lanes_with_long_entries_are_read(
    streams: Streams, make_reader: Callable[[int], LaneReader], clock: MovedClock
) -> None:
    """Given many lanes under way of which the first entries together are longer than an answer may be, then they are
    read all the same, and lower ids are found."""
    reader, epochs = make_reader(8_000), dict.fromkeys(range(128), 1)
    streams.lanes = {lane(partition): [10] for partition in range(128)}
    reader.read(epochs)
    streams.lanes = {lane(partition): [10] for partition in range(127)} | {lane(127): [5]}
    streams.payloads = dict.fromkeys((5, 10), b"x" * 256_000)
    streams.max_answer_bytes = MAX_ANSWER_BYTES
    clock.now += HEAD_CHECK_SECONDS

    reader.read(epochs)

    assert reader._waiting == {(127, 1)}


def test_what_is_held_back_of_a_lane_that_is_gone_is_forgotten(reader: LaneReader, streams: Streams) -> None:
    streams.lanes = {lane(2): [1]}
    streams.payloads = {1: command_of("store_a", 1, heavy=True)}
    reader.read({2: 5, 3: 1})

    assert reader.read_held({3: 1}).entries == []
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
    """Given a reply field, when it is not what a producer writes, then nothing is announced and no key made of it."""
    entry = parse_entry(3, b"1-0", [b"c", b"{}", b"r", field])

    assert (entry.producer_id, entry.number) == (producer_id, number)
    assert entry.flaw is not None


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
    entry = parse_entry(3, b"1-0", fields)

    assert entry.command is None
    assert entry.payload == payload
    assert flaw in (entry.flaw or "")
