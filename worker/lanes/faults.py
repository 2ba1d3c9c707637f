"""Lanes that do not get on for a reason of their own, so that the others need not wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import redis
import structlog

from ...lanes.keys import Keys
from ..metrics import Metrics
from ..progress import cause_of
from .redis_session import is_of_wrong_type

#: How long until a lane that could not be read is tried again, in seconds.
RECHECK_SECONDS = 1.0
#: The same of a lane with an entry that is too long: each read of it ends a connection.
RECHECK_TOO_LONG_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class LaneFaults:
    """Knows which lanes cannot be read, and logs why."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._keys = keys
        self._metrics = metrics
        self._clock = clock
        self._checked_at = float("-inf")
        #: Why a lane cannot be read, and why one does not get on, by partition.
        self._unreadable: dict[int, str] = {}
        self._standing: dict[int, str] = {}
        #: When a lane with an entry that is too long is tried again, by partition.
        self._too_long: dict[int, float] = {}
        #: Lanes to be asked for one entry alone, as one of them may have an entry that is too long.
        self.suspects: set[int] = set()

    def note(self, partition: int, cause: str | None) -> None:
        """Note why a lane that can be read does not get on; None: it does."""
        self._standing.pop(partition, None)
        if cause is not None:
            self._standing[partition] = cause
        self._publish()

    def unreadable_among(self, partitions: Collection[int]) -> set[int]:
        """Return the lanes that cannot be read, as far as that is known, and now and then try again.

        Raises:
            redis.RedisError: Redis cannot be used now.
        """
        self._keep(partitions)
        if self._unreadable and self._clock() - self._checked_at >= RECHECK_SECONDS:
            self._check(list(self._unreadable))
        set_aside = {partition for partition, until in self._too_long.items() if self._clock() < until}
        self.suspects |= self._too_long.keys() - set_aside
        return self._unreadable.keys() | set_aside

    def note_too_long(self, partition: int) -> None:
        """Note that the next entry of a lane, asked for alone, is longer than there is room for."""
        if partition not in self._too_long:
            _log.error("a lane has an entry that is too long to be read", key=self._keys.lane(partition))
        self._too_long[partition] = self._clock() + RECHECK_TOO_LONG_SECONDS
        self.suspects.discard(partition)
        self._publish()

    def note_read_alone(self, partition: int) -> None:
        """Note that the next entry of a suspect is not too long."""
        self.suspects.discard(partition)
        if self._too_long.pop(partition, None) is not None:
            _log.info("a lane can be read again", partition=partition)
            self._publish()

    def find(self, error: redis.ResponseError, partitions: Collection[int]) -> None:
        """Find out which of these lanes an error is about.

        Raises:
            redis.RedisError: it is about none of them in particular; or Redis cannot be used now.
        """
        known = len(self._unreadable)
        if _is_of_one_key(error):
            self._check(list(partitions))
        if len(self._unreadable) == known:
            raise error

    def _keep(self, partitions: Collection[int]) -> None:
        self.suspects.intersection_update(partitions)
        if (self._unreadable.keys() | self._standing.keys() | self._too_long.keys()) - set(partitions):
            self._unreadable = {p: cause for p, cause in self._unreadable.items() if p in partitions}
            self._standing = {p: cause for p, cause in self._standing.items() if p in partitions}
            self._too_long = {p: until for p, until in self._too_long.items() if p in partitions}
            self._publish()

    def _check(self, partitions: list[int]) -> None:
        self._checked_at = self._clock()
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.xlen(self._keys.lane(partition))
        for partition, answer in zip(partitions, pipeline.execute(raise_on_error=False), strict=True):
            self._take(partition, answer)
        self._publish()

    def _take(self, partition: int, answer: object) -> None:
        known = self._unreadable.pop(partition, None)
        if isinstance(answer, Exception) and _is_of_one_key(answer):
            self._unreadable[partition] = f"its key cannot be read: {cause_of(answer)}"
            if known is None:
                _log.error("a lane cannot be read", key=self._keys.lane(partition), error=str(answer))
        elif isinstance(answer, Exception):
            raise answer
        elif known is not None:
            _log.info("a lane can be read again", partition=partition)

    def _publish(self) -> None:
        too_long = dict.fromkeys(self._too_long, "its next entry is too long to be read; it gets on without that")
        self._metrics.note_lane_faults(self._standing | too_long | self._unreadable)


def _is_of_one_key(answer: object) -> bool:
    """Return whether it is an error about one key, which does not say about which."""
    return isinstance(answer, redis.exceptions.NoPermissionError) or is_of_wrong_type(answer)
