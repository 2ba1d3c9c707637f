"""Reads all lanes this process owns, and makes one batch of what is there, bounded by entries and by bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import redis

from ..schemas.keys import Keys
from . import scripts
from .connecting import REDIS_TIMEOUT_SECONDS
from .held_back import HEAVY_BYTES, HELD_BYTES, HELD_BYTES_ALONE, Entry, HeldBack, lengths_of
from .ownership import Ownership
from .requests import Batch, Request, parse_request

#: How long one read waits for a command, in seconds. Only a change of lanes or a stop waits for it to end.
BLOCK_SECONDS = min(0.25, REDIS_TIMEOUT_SECONDS / 2)
#: Most entries to ask for at once, unless there are more lanes than that. Redis counts entries, however long they are,
#: and the first long ones come unannounced: so many of 256 kB are what a worker has room for.
READ_ENTRIES = 256
#: Lanes that are read on at once while they have more.
LANES_AT_ONCE = 8
#: Bytes of lane entries after which a batch is full. About four batches are in memory at once, each several times over.
READ_BYTES = 4_000_000
#: Entries to ask for of a lane on which something is held back.
HELD_ENTRIES = 6
HELD_ENTRIES_ALONE = 32

_FROM_HEAD = b"0-0"


class LaneReader:
    """Reads lanes from their head, or from where the last read ended while that is still under way."""

    def __init__(self, client: redis.Redis, keys: Keys, ownership: Ownership, *, batch_limit: int) -> None:
        self._client = client
        self._ownership = ownership
        self._keys = keys
        self._batch_limit = batch_limit
        self._raise_fence = client.register_script(scripts.RAISE_FENCE)
        #: (partition, epoch): where the next read starts. A lane under a new epoch starts from its head.
        self._cursors: dict[tuple[int, int], bytes] = {}
        self._held = HeldBack()
        #: The last read left nothing on its lanes but what is held back.
        self.is_at_end = False

    def reset(self) -> None:
        """Forget what was fenced: Redis may have lost it. Positions stay, for what is under way is still under way."""
        for key in [key for key in self._cursors if not self._ownership.is_under_way(*key)]:
            del self._cursors[key]
            self._held.release(key[0])

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
        self._keep_up_with(epochs)
        lanes = {partition: self._start_of(partition, epoch) for partition, epoch in epochs.items()}
        requests: list[Request] = []
        read: set[int] = set()
        room, step, block_ms = READ_BYTES, READ_ENTRIES, int(block_seconds * 1000)
        while lanes and room > 0 and len(requests) < self._batch_limit:
            group = dict(islice(lanes.items(), LANES_AT_ONCE)) if read else lanes
            lanes = {partition: start for partition, start in lanes.items() if partition not in group}
            count = max(1, min(step, self._batch_limit - len(requests)) // len(group))
            try:
                answer = self._read_lanes(group, count, block_ms)
            except redis.RedisError:
                if not read:
                    raise
                # What was read before must not be passed over; the next read meets the same.
                break
            number = length = 0
            for partition, entries in answer:
                lengths = lengths_of(entries)
                if partition in self._held or max(lengths) > HEAVY_BYTES:
                    requests += self._held.sift(partition, entries)
                else:
                    requests += [parse_request(partition, lane_entry, fields or []) for lane_entry, fields in entries]
                last = self._cursors[partition, epochs[partition]] = entries[-1][0]
                number, length = number + len(entries), length + sum(lengths)
                read.add(partition)
                if len(entries) == count:
                    # It may have more, for which it waits until all others have had as much.
                    lanes[partition] = last
            room -= length
            step = max(1, min(READ_ENTRIES, room * number // max(1, length)))
            block_ms = 0
        self.is_at_end = not lanes
        return self._begin(requests, read, epochs, frozenset(p for p in read if p in self._held))

    def read_held(self, epochs: Mapping[int, int], *, alone: bool = False) -> Batch:
        """Return the next part of what is held back, of one lane; nothing if there is none. Otherwise as `read`.

        It is small, so that others get between two of them, unless the caller knows that there are none.
        """
        self._keep_up_with(epochs)
        for partition in self._held.partitions:
            end = self._cursors[partition, epochs[partition]]
            answer = self._read_lanes(
                {partition: self._held.start_of(partition)}, HELD_ENTRIES_ALONE if alone else HELD_ENTRIES
            )
            room = HELD_BYTES_ALONE if alone else HELD_BYTES
            requests = self._held.take(partition, answer[0][1] if answer else [], end, room)
            if not answer:
                self._held.release(partition)
            if requests:
                return self._begin(requests, {partition}, epochs, frozenset({partition}))
        return Batch([], {})

    def _read_lanes(
        self, starts: Mapping[int, bytes], count: int, block_ms: int = 0
    ) -> list[tuple[int, Sequence[Entry]]]:
        """Return what stands on each lane behind its start, at most so many entries of each; empty lanes are left out.

        The count is all that bounds what Redis sends, so it allows for the longest entries that there may be.
        """
        lanes = {self._keys.lane(partition).encode(): partition for partition in starts}
        arguments: list[bytes | str | int] = ["COUNT", count]
        # Redis would take 0 for without end.
        arguments += ["BLOCK", block_ms] if block_ms else []
        arguments += ["STREAMS", *lanes, *starts.values()]
        response = self._client.execute_command("XREAD", *arguments) or []  # type: ignore[no-untyped-call]
        return [(lanes[lane], entries) for lane, entries in response]

    def _begin(self, requests: list[Request], read: set[int], epochs: Mapping[int, int], gaps: frozenset[int]) -> Batch:
        partitions = {request.partition for request in requests} if gaps else read
        read_epochs = {partition: epochs[partition] for partition in partitions}
        self._ownership.begin(read_epochs)
        return Batch(requests, read_epochs, gaps)

    def _start_of(self, partition: int, epoch: int) -> bytes:
        # With nothing under way everything decided is deleted. Starting from the head then finds entries also if
        # Redis was restored from a copy and has begun to give out lower ids.
        if partition not in self._held and not self._ownership.is_under_way(partition, epoch):
            return _FROM_HEAD
        return self._cursors.get((partition, epoch), _FROM_HEAD)

    def _keep_up_with(self, epochs: Mapping[int, int]) -> None:
        """Raise the fence of every lane that is new, and forget those that are gone."""
        owned = set(epochs.items())
        for partition, epoch in owned - self._cursors.keys():
            self._raise_fence(keys=[self._keys.fence(partition)], args=[epoch])
            self._cursors[partition, epoch] = _FROM_HEAD
            # What was held back under an earlier epoch is read again.
            self._held.release(partition)
        for gone in self._cursors.keys() - owned:
            del self._cursors[gone]
        self._held.keep(epochs.keys())
