"""Lanes that do not get on, and ids that went back: known from what each read of the lanes of this process begins with.

No I/O. A lane is trimmed from its head, so under one epoch its first entry never has a lower id than the oldest batch
that is under way. It has where Redis lost its tail, or was restored, and began to give out lower ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import structlog

from ..metrics import Metrics
from .entry_ids import order_of
from .ownership import Ownership

#: Times that a lane is read again from the same entry before it counts as one that does not get on: a power of two.
MAX_SAME_HEADS = 4

Lane = tuple[int, int]

_log = structlog.get_logger(__name__)


class StalledLanes:
    """Remembers the first entry of every read, by lane: a partition and the epoch it is owned under."""

    def __init__(self, ownership: Ownership, metrics: Metrics, note: Callable[[int, str | None], None]) -> None:
        self._ownership = ownership
        self._metrics = metrics
        self._note = note
        #: First ids of the batches that are under way, the oldest first.
        self._firsts: dict[Lane, deque[bytes]] = {}
        #: By partition, as an epoch may be why it is read again: what a read from the head began with, and how often.
        self._repeats: dict[int, tuple[bytes, int]] = {}
        #: Partitions of which it was noted that they do not get on.
        self._standing: set[int] = set()

    def note_read(self, lane: Lane, first: bytes, *, from_head: bool) -> None:
        """Note with which entry a read began that brought something, and that is under way or about to be."""
        self._firsts.setdefault(lane, deque()).append(first)
        if from_head:
            self._note_head(lane, first)

    def note_empty(self, partitions: AbstractSet[int]) -> None:
        """Note that nothing stands on these lanes."""
        for partition in self._standing & partitions:
            self._note_progress(partition)

    def keep(self, lanes: AbstractSet[Lane]) -> None:
        """Forget the lanes that are not among these."""
        for lane in self._firsts.keys() - lanes:
            del self._firsts[lane]

    def oldest(self, lane: Lane) -> bytes | None:
        """Return the lowest first id of the batches that are under way; None if none is."""
        firsts = self._firsts.get(lane)
        if not firsts:
            return None
        under_way = self._ownership.batches_under_way(*lane)
        while len(firsts) > under_way:
            firsts.popleft()
        # What was held back comes after what stands behind it.
        return min(firsts, key=order_of, default=None)

    def _note_head(self, lane: Lane, first: bytes) -> None:
        partition, epoch = lane
        before, count = self._repeats.get(partition, (b"", 0))
        if before != first:
            self._note_progress(partition)
            self._repeats[partition] = first, 0
            return
        count += 1
        self._repeats[partition] = first, count
        self._metrics.note_read_again()
        # Less and less often, since the cause lasts.
        if count >= MAX_SAME_HEADS and count & (count - 1) == 0:
            self._standing.add(partition)
            self._note(partition, f"read again {count} times from the same entry, which is not deleted")
            _log.warning(
                "a lane is read again and again without progress",
                partition=partition,
                epoch=epoch,
                entry=first.decode(),
                times=count,
            )

    def _note_progress(self, partition: int) -> None:
        if partition in self._standing:
            self._standing.remove(partition)
            self._note(partition, None)
