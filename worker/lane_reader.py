"""Reads all lanes this process owns in one call, and makes one batch of what is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import redis
import structlog

from ..schemas.keys import Keys
from .counting import Counting
from .fences import Fences
from .lane_faults import LaneFaults
from .lane_heads import LaneHeads, is_lower
from .ownership import Ownership
from .redis_session import MIN_ANSWER_SECONDS
from .requests import Batch, Request, parse_request

#: How long one read waits for a command, in seconds. Only a change of lanes or a stop waits for it to end.
BLOCK_SECONDS = min(0.25, MIN_ANSWER_SECONDS / 2)
#: How often lanes that are always under way are looked at for entries before those, in seconds.
HEAD_CHECK_SECONDS = 1.0
#: Fewest entries to ask of each lane.
MIN_READ_COUNT = 16

_FROM_HEAD = b"0-0"

_log = structlog.get_logger(__name__)


class LaneReader:
    """Reads lanes from their head, or from where the last read ended while that is still under way."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        ownership: Ownership,
        fences: Fences,
        counting: Counting,
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
        self._faults = LaneFaults(client, keys, counting, clock=clock)
        self._heads = LaneHeads(ownership, counting, self._faults.note)
        self._heads_checked_at = clock()
        #: Number of the Redis session that is read in.
        self._session = 0
        #: (partition, epoch): where the next read starts. A lane under a new epoch starts from its head.
        self._cursors: dict[tuple[int, int], bytes] = {}
        #: Lanes that are not read before what is under way is finished, and then from their head.
        self._waiting: set[tuple[int, int]] = set()
        #: Entries to ask of each lane; 0 until the number of lanes is known.
        self._count = 0

    def reset(self, session: int) -> None:
        """Go on in another session: Redis may have lost fences and entries, and give out lower ids than were read."""
        self._session = session
        self._fences.forget()
        self._waiting = {lane for lane in self._cursors if self._ownership.is_under_way(*lane)}

    def read(self, epochs: Mapping[int, int]) -> Batch:
        """Return what stands on these lanes, up to the batch limit, waiting a moment if there is nothing.

        The batch is noted as under way; whoever takes it must finish it.

        Raises:
            redis.RedisError: Redis cannot be used now.
        """
        epochs = self._readable(epochs)
        if not epochs:
            self._ownership.wait_for_change(BLOCK_SECONDS)
            return Batch([], {})
        lanes = {self._keys.lane(partition).encode(): partition for partition in epochs}
        starts = [self._start_of(partition, epoch) for partition, epoch in epochs.items()]
        arguments: list[bytes | str | int] = ["COUNT", self._count, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS"]
        try:
            response = self._client.execute_command("XREAD", *arguments, *lanes, *starts) or []  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            self._faults.find(error, epochs)
            return Batch([], {})
        from_head = {partition for partition, start in zip(epochs, starts, strict=True) if start == _FROM_HEAD}
        requests: list[Request] = []
        for name, entries in response:
            partition = lanes[name]
            requests += [parse_request(partition, lane_entry, fields or []) for lane_entry, fields in entries]
            lane = partition, epochs[partition]
            self._cursors[lane] = entries[-1][0]
            self._heads.note_read(lane, entries[0][0], from_head=partition in from_head)
        self._heads.note_empty(from_head - {lanes[name] for name, _ in response})
        self._adapt_count(len(requests), max((len(entries) for _, entries in response), default=0))
        read_epochs = {lanes[name]: epochs[lanes[name]] for name, _ in response}
        self._ownership.begin(read_epochs)
        return Batch(requests, read_epochs, self._session)

    def _adapt_count(self, total: int, longest: int) -> None:
        """Aim at full batches. Redis counts for each lane, so the count depends on how many of them are busy.

        It starts low and at most doubles: a backlog on all lanes must not come in at once.
        """
        if total > self._batch_limit:
            self._count = max(MIN_READ_COUNT, self._count * self._batch_limit // total)
        elif longest == self._count and total < self._batch_limit:
            self._count = min(self._batch_limit, self._count * 2)

    def _start_of(self, partition: int, epoch: int) -> bytes:
        # With nothing under way everything decided is deleted. Starting from the head then finds entries also if
        # Redis was restored from a copy and has begun to give out lower ids.
        if not self._ownership.is_under_way(partition, epoch):
            return _FROM_HEAD
        return self._cursors.get((partition, epoch), _FROM_HEAD)

    def _readable(self, epochs: Mapping[int, int]) -> dict[int, int]:
        """Return the lanes that can be read now, with the fences of those that are new raised."""
        owned = set(epochs.items())
        new = owned - self._cursors.keys()
        if new:
            self._count = max(MIN_READ_COUNT, self._batch_limit // len(owned))
        for lane in new:
            self._cursors[lane] = _FROM_HEAD
        if gone := self._cursors.keys() - owned:
            for lane in gone:
                del self._cursors[lane]
            self._heads.keep(owned)
        unreadable = self._fences.raise_for(epochs) | self._faults.unreadable_among(epochs.keys())
        self._find_lower_ids(owned)
        self._waiting = {lane for lane in self._waiting & owned if self._ownership.is_under_way(*lane)}
        unreadable |= {partition for partition, _ in self._waiting}
        return {partition: epoch for partition, epoch in epochs.items() if partition not in unreadable}

    def _find_lower_ids(self, owned: set[tuple[int, int]]) -> None:
        """Now and then look whether lanes that are always under way have entries before those, and let them wait."""
        if self._clock() - self._heads_checked_at < HEAD_CHECK_SECONDS:
            return
        self._heads_checked_at = self._clock()
        oldest = {lane: first for lane in owned - self._waiting if (first := self._heads.oldest(lane)) is not None}
        if not oldest:
            return
        pipeline = self._client.pipeline(transaction=False)
        for partition, _ in oldest:
            pipeline.execute_command("XRANGE", self._keys.lane(partition), "-", "+", "COUNT", 1)  # type: ignore[no-untyped-call]
        for (lane, first), entries in zip(oldest.items(), pipeline.execute(raise_on_error=False), strict=True):
            # An error is one that reading meets as well.
            if not isinstance(entries, Exception) and entries and is_lower(entries[0][0], first):
                _log.warning("Redis gives out lower ids than before, reading from the head", partition=lane[0])
                self._waiting.add(lane)
