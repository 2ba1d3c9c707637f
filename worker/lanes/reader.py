"""Reads all lanes this process owns, and makes one batch of what is there, bounded by entries and by bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

import msgspec
import redis
import structlog

from ...lanes.keys import Keys
from ..metrics import Metrics
from .entries import Batch, LaneEntry, parse_entry
from .entry_ids import is_lower
from .faults import LaneFaults
from .fences import Fences
from .heavy_commands import (
    HEAVY_BYTES,
    HELD_BYTES,
    HELD_BYTES_ALONE,
    HELD_ENTRIES_ALONE,
    HeavyCommands,
    StreamEntry,
    lengths_of,
)
from .ownership import Ownership
from .redis_session import MIN_ANSWER_SECONDS, AnswerTooLong, RedisFault
from .stalled_lanes import StalledLanes

#: How long one read waits for a command, in seconds. Only a change of lanes or a stop waits for it to end.
BLOCK_SECONDS = min(0.25, MIN_ANSWER_SECONDS / 2)
#: How often lanes that are always under way are read for entries before those, in seconds.
HEAD_CHECK_SECONDS = 1.0
#: Lanes of which the first entry is read in one answer: the longest entries of so many are well below its bound.
HEADS_AT_ONCE = 32
#: Entries to ask for at once, to begin with and after long ones; twice as many after an answer that was short.
FIRST_READ_ENTRIES = 256
#: Longest answer of Redis that is taken, in bytes. Redis counts entries, however long they are, and the first long ones
#: come unannounced: an answer that gets longer is broken off, and fewer are asked for.
MAX_ANSWER_BYTES = 24_000_000
#: Lanes that are read on at once while they have more, and entries of each that are worth another lane.
LANES_AT_ONCE = 8
ENTRIES_A_LANE = 32
#: Bytes of lane entries after which a batch is full. About four batches are in memory at once, each several times over.
READ_BYTES = 4_000_000

_FROM_HEAD = b"0-0"

_log = structlog.get_logger(__name__)


class _Found(msgspec.Struct):
    """What one read has brought so far."""

    entries: list[LaneEntry] = []
    #: First entry of each lane that has any.
    firsts: dict[int, bytes] = {}
    #: Lanes that were asked.
    asked: set[int] = set()


class LaneReader:
    """Reads lanes from their head, or from where the last read ended while that is still under way."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        ownership: Ownership,
        fences: Fences,
        metrics: Metrics,
        *,
        batch_limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ownership = ownership
        self._keys = keys
        self._fences = fences
        self._batch_limit = batch_limit
        self._clock = clock
        self._faults = LaneFaults(client, keys, metrics, clock=clock)
        self._heads = StalledLanes(ownership, metrics, self._faults.note)
        self._heads_checked_at = clock()
        #: Number of the Redis session that is read in.
        self._session = 0
        #: (partition, epoch): where the next read starts. A lane under a new epoch starts from its head.
        self._cursors: dict[tuple[int, int], bytes] = {}
        #: Lanes that are not read before what is under way is finished, and then from their head.
        self._waiting: set[tuple[int, int]] = set()
        self._held = HeavyCommands()
        #: Entries to ask for at once.
        self._entries = FIRST_READ_ENTRIES
        #: The lane after which the next turn begins, where lanes are read by turns.
        self._last_turn = -1
        #: The last read left nothing on its lanes but what is held back.
        self.is_at_end: bool = False

    def reset(self, session: int) -> None:
        """Go on in another session: Redis may have lost fences and entries, and give out lower ids than were read."""
        self._session = session
        self._fences.forget()
        self._waiting = {lane for lane in self._cursors if self._ownership.is_under_way(*lane)}
        # Every lane is read from its head next, and with it what was held back.
        self._held.keep(())

    @property
    def holds_back(self) -> bool:
        """Whether something waits for `read_held`."""
        return bool(self._held)

    def read(self, epochs: Mapping[int, int], *, block_seconds: float = BLOCK_SECONDS) -> Batch:
        """Return what stands on these lanes, up to the batch limit or so many bytes.

        Waits so long if there is nothing. What is heavy, and what its store sent behind it, is held back for
        `read_held`. The batch is noted as under way; whoever takes it must finish it.

        Raises:
            redis.RedisError: Redis cannot be used now.
        """
        epochs = self._readable(epochs)
        self.is_at_end = True
        if not epochs:
            self._ownership.wait_for_change(block_seconds)
            return Batch([], {})
        starts = {partition: self._start_of(partition, epoch) for partition, epoch in epochs.items()}
        found = _Found()
        try:
            self.is_at_end = self._read_all(starts, epochs, int(block_seconds * 1000), found)
        except redis.ResponseError as error:
            self._faults.find(error, epochs)
            return Batch([], {})
        from_head = {partition for partition, start in starts.items() if start == _FROM_HEAD}
        self._heads.note_empty((found.asked & from_head) - found.firsts.keys())
        batch = self._begin(found.entries, found.firsts.keys(), epochs)
        for partition, epoch in batch.epochs.items():
            self._heads.note_read((partition, epoch), found.firsts[partition], from_head=partition in from_head)
        return batch

    def read_held(self, epochs: Mapping[int, int], *, alone: bool = False) -> Batch:
        """Return the next part of what is held back; nothing if there is none. Otherwise as `read`.

        It is small, so that others get between two of them, unless the caller knows that there are none. The lanes have
        it by turns: what the first ones leave of it is the next ones'.
        """
        epochs = self._readable(epochs)
        room = HELD_BYTES_ALONE if alone else HELD_BYTES
        parts: dict[int, list[LaneEntry]] = {}
        to_read = READ_BYTES
        for partition in [partition for partition in self._held.partitions if partition in epochs]:
            # However little of it was held back, what is looked through takes its time as well.
            if room <= 0 or to_read <= 0:
                break
            count = max(self._held.count_of(partition), HELD_ENTRIES_ALONE if alone else 0)
            answer = self._read_lanes({partition: self._held.start_of(partition)}, count)
            if not answer:
                self._held.release(partition)
                continue
            raw, end = answer[0][1], self._cursors[partition, epochs[partition]]
            entries, room = self._held.take(partition, raw, end, room, needs_one=not parts)
            to_read -= sum(lengths_of(raw))
            if entries:
                parts[partition] = entries
        for partition, entries in parts.items():
            self._heads.note_read((partition, epochs[partition]), entries[0].entry_id, from_head=False)
        found = [entry for entries in parts.values() for entry in entries]
        return self._begin(found, parts.keys(), epochs, gaps=frozenset(parts))

    def _read_all(self, starts: Mapping[int, bytes], epochs: Mapping[int, int], block_ms: int, found: _Found) -> bool:
        """Read the lanes from their starts, by turns. Returns whether all of them are at an end."""
        lanes, suspects = dict(starts), self._faults.suspects
        room, step = READ_BYTES, self._entries
        # After answers that were too long by far not even one entry of every lane is asked for at once.
        if by_turns := step < len(lanes) or bool(suspects):
            lanes = dict(sorted(lanes.items(), key=lambda lane: self._turn_of(lane[0])))
        while lanes and room > 0 and len(found.entries) < self._batch_limit:
            alone = next(iter(lanes)) in suspects
            wanted = self._batch_limit - len(found.entries)
            # No more lanes than entries: what is above the limit would be a transaction of its own.
            at_once = 1 if alone else min(wanted, max(LANES_AT_ONCE, step // ENTRIES_A_LANE))
            group = dict(islice(lanes.items(), at_once)) if found.firsts or by_turns else lanes
            lanes = {partition: start for partition, start in lanes.items() if partition not in group}
            count = 1 if alone else max(1, min(step, wanted) // len(group))
            # Before the read: if that fails, the others have their turn.
            self._last_turn = max(group)
            try:
                answer = self._read_lanes(group, count, 0 if by_turns else block_ms)
            except RedisFault as error:
                if isinstance(error, AnswerTooLong):
                    self._note_too_long(group, count)
                if not found.firsts:
                    raise
                # What was read before must not be passed over; the next read meets the same.
                return False
            if alone:
                self._faults.note_read_alone(self._last_turn)
            found.asked |= group.keys()
            number = length = longest = 0
            for partition, raw in answer:
                lengths = lengths_of(raw)
                longest = max(longest, *lengths)
                found.entries += self._entries_of(partition, raw, heavy=max(lengths) > HEAVY_BYTES)
                found.firsts.setdefault(partition, raw[0][0])
                last = self._cursors[partition, epochs[partition]] = raw[-1][0]
                number, length = number + len(raw), length + sum(lengths)
                if len(raw) == count:
                    # It may have more, for which it waits until all others have had as much.
                    lanes[partition] = last
            room -= length
            self._adapt(length, longest, is_full=bool(lanes))
            step = max(1, min(self._entries, room * number // max(1, length)))
            block_ms = 0
        if not found.firsts:
            self._entries = max(self._entries, FIRST_READ_ENTRIES)
        return not lanes

    def _turn_of(self, partition: int) -> tuple[bool, bool, int]:
        """Return what orders the lanes: suspects first, then those behind the last turn, then from the beginning."""
        return partition not in self._faults.suspects, partition <= self._last_turn, partition

    def _note_too_long(self, group: Mapping[int, bytes], count: int) -> None:
        """Ask for fewer entries; and where these were as few as can be, for one of each lane alone, to find which."""
        self._entries = max(1, self._entries // 8)
        if count == 1 and len(group) == 1:
            self._faults.note_too_long(*group)
        elif count == 1 and len(group) <= LANES_AT_ONCE:
            self._faults.suspects |= group.keys()

    def _adapt(self, length: int, longest: int, *, is_full: bool) -> None:
        """Ask for more at once where that would not be too long by far, and for few after long entries."""
        if longest > HEAVY_BYTES:
            self._entries = min(self._entries, FIRST_READ_ENTRIES)
        elif is_full and length < MAX_ANSWER_BYTES // 8:
            self._entries = min(self._batch_limit, self._entries * 2)

    def _read_lanes(
        self, starts: Mapping[int, bytes], count: int, block_ms: int = 0
    ) -> list[tuple[int, Sequence[StreamEntry]]]:
        """Return what stands on each lane behind its start, so many entries of each at most. Empty lanes miss."""
        lanes = {self._keys.lane(partition).encode(): partition for partition in starts}
        arguments: list[bytes | str | int] = ["COUNT", count]
        # Redis would take 0 for without end.
        arguments += ["BLOCK", block_ms] if block_ms else []
        arguments += ["STREAMS", *lanes, *starts.values()]
        response = self._client.execute_command("XREAD", *arguments) or []  # type: ignore[no-untyped-call]
        return [(lanes[lane], raw) for lane, raw in response]

    def _entries_of(self, partition: int, raw: Sequence[StreamEntry], *, heavy: bool) -> list[LaneEntry]:
        if partition in self._held or heavy:
            return self._held.sift(partition, raw)
        return [parse_entry(partition, entry_id, fields or []) for entry_id, fields in raw]

    def _begin(
        self,
        entries: list[LaneEntry],
        read: AbstractSet[int],
        epochs: Mapping[int, int],
        *,
        gaps: frozenset[int] | None = None,
    ) -> Batch:
        if gaps is None:
            gaps = frozenset(partition for partition in read if partition in self._held)
        partitions = {entry.partition for entry in entries} if gaps else read
        read_epochs = {partition: epochs[partition] for partition in partitions}
        self._ownership.begin(read_epochs)
        return Batch(entries, read_epochs, self._session, gaps)

    def _start_of(self, partition: int, epoch: int) -> bytes:
        # With nothing under way everything decided is deleted. Starting from the head then finds entries also if
        # Redis was restored from a copy and has begun to give out lower ids.
        if partition not in self._held and not self._ownership.is_under_way(partition, epoch):
            return _FROM_HEAD
        return self._cursors.get((partition, epoch), _FROM_HEAD)

    def _readable(self, epochs: Mapping[int, int]) -> dict[int, int]:
        """Return the lanes that can be read now, with the fences of those that are new raised."""
        owned = set(epochs.items())
        for lane in owned - self._cursors.keys():
            self._cursors[lane] = _FROM_HEAD
            # What was held back under an earlier epoch is read again.
            self._held.release(lane[0])
        if gone := self._cursors.keys() - owned:
            for lane in gone:
                del self._cursors[lane]
            self._heads.keep(owned)
            self._held.keep(epochs.keys())
        unreadable = self._fences.raise_for(epochs) | self._faults.unreadable_among(epochs.keys())
        # Its entries are not deleted, so once it can be read they are found from its head.
        for partition in unreadable.intersection(self._held.partitions):
            self._held.release(partition)
            self._waiting.add((partition, epochs[partition]))
        self._find_lower_ids({lane for lane in owned if lane[0] not in unreadable})
        self._waiting = {lane for lane in self._waiting & owned if self._ownership.is_under_way(*lane)}
        unreadable |= {partition for partition, _ in self._waiting}
        return {partition: epoch for partition, epoch in epochs.items() if partition not in unreadable}

    def _find_lower_ids(self, owned: set[tuple[int, int]]) -> None:
        """Now and then check whether lanes that are always under way have entries before those, and let them wait.

        What is held back stands before them, too; such a lane is read once that is done.
        """
        if self._clock() - self._heads_checked_at < HEAD_CHECK_SECONDS:
            return
        self._heads_checked_at = self._clock()
        candidates = [lane for lane in owned - self._waiting if lane[0] not in self._held]
        oldest = {lane: first for lane in candidates if (first := self._heads.oldest(lane)) is not None}
        if not oldest:
            return
        for (lane, first), head in zip(oldest.items(), self._heads_of([lane[0] for lane in oldest]), strict=True):
            if head is not None and is_lower(head, first):
                _log.warning("Redis gives out lower ids than before, reading from the head", partition=lane[0])
                self._waiting.add(lane)

    def _heads_of(self, partitions: Sequence[int]) -> list[bytes | None]:
        """Return the first entry of each lane; None for an empty one, and for one that cannot be read."""
        heads: list[bytes | None] = []
        for start in range(0, len(partitions), HEADS_AT_ONCE):
            pipeline = self._client.pipeline(transaction=False)
            for partition in partitions[start : start + HEADS_AT_ONCE]:
                pipeline.execute_command("XRANGE", self._keys.lane(partition), "-", "+", "COUNT", 1)  # type: ignore[no-untyped-call]
            # An error is one that reading meets as well.
            heads += [
                raw[0][0] if raw and not isinstance(raw, Exception) else None
                for raw in pipeline.execute(raise_on_error=False)
            ]
        return heads
