"""Reads all lanes this process owns in one call, and makes one batch of what is there."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from ..schemas.keys import Keys
from . import scripts
from .connecting import REDIS_TIMEOUT_SECONDS
from .ownership import Ownership
from .requests import Batch, Request, parse_request

#: How long one read waits for a command, in seconds. Only a change of lanes or a stop waits for it to end.
BLOCK_SECONDS = min(0.25, REDIS_TIMEOUT_SECONDS / 2)
#: Fewest entries to ask of each lane.
MIN_READ_COUNT = 16

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
        #: Entries to ask of each lane; 0 until the number of lanes is known.
        self._count = 0

    def reset(self) -> None:
        """Forget what was fenced: Redis may have lost it. Positions stay, for what is under way is still under way."""
        for key in [key for key in self._cursors if not self._ownership.is_under_way(*key)]:
            del self._cursors[key]

    def read(self, epochs: Mapping[int, int]) -> Batch:
        """Return what stands on these lanes, up to the batch limit, waiting a moment if there is nothing.

        The batch is noted as under way; whoever takes it must finish it.

        Raises:
            redis.RedisError: Redis cannot be used now.
        """
        self._keep_up_with(epochs)
        lanes = {self._keys.lane(partition).encode(): partition for partition in epochs}
        arguments: list[bytes | str | int] = ["COUNT", self._count, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS"]
        arguments += lanes
        arguments += [self._start_of(partition, epoch) for partition, epoch in epochs.items()]
        response = self._client.execute_command("XREAD", *arguments) or []  # type: ignore[no-untyped-call]
        requests: list[Request] = []
        for lane, entries in response:
            partition = lanes[lane]
            requests += [parse_request(partition, lane_entry, fields or []) for lane_entry, fields in entries]
            self._cursors[partition, epochs[partition]] = entries[-1][0]
        self._adapt_count(len(requests), max((len(entries) for _, entries in response), default=0))
        read_epochs = {lanes[lane]: epochs[lanes[lane]] for lane, _ in response}
        self._ownership.begin(read_epochs)
        return Batch(requests, read_epochs)

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

    def _keep_up_with(self, epochs: Mapping[int, int]) -> None:
        """Raise the fence of every lane that is new, and forget those that are gone."""
        owned = set(epochs.items())
        if owned - self._cursors.keys():
            self._count = max(MIN_READ_COUNT, self._batch_limit // len(owned))
        for partition, epoch in owned - self._cursors.keys():
            self._raise_fence(keys=[self._keys.fence(partition)], args=[epoch])
            self._cursors[partition, epoch] = _FROM_HEAD
        for gone in self._cursors.keys() - owned:
            del self._cursors[gone]
