"""Which lanes this process owns now, and what of them is under way. Shared by the threads of a worker; no I/O."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Condition


class Ownership:
    """The partitions of one worker process, each with the epoch of its lease."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = Condition()
        self._epochs: dict[int, int] = {}
        self._under_way: Counter[tuple[int, int]] = Counter()
        #: When each lane of which something is under way was first read, or something of it was deleted last. It
        #: outlasts the loss of a lane that comes back: one that is read again and again does not get on.
        self._waiting_since: dict[int, float] = {}
        #: When something of each of these lanes was read last.
        self._read_at: dict[int, float] = {}

    def replace(self, epochs: Mapping[int, int]) -> tuple[set[int], set[int]]:
        """Own exactly these from now on. Returns the partitions that were gained and those that were lost."""
        with self._changed:
            before, self._epochs = self._epochs, dict(epochs)
            for partition in self._waiting_since.keys() - epochs.keys():
                del self._waiting_since[partition]
                self._read_at.pop(partition, None)
            self._changed.notify_all()
        gained = {partition for partition, epoch in epochs.items() if before.get(partition) != epoch}
        return gained, before.keys() - epochs.keys()

    def lose(self, partitions: Iterable[int], epochs: Mapping[int, int]) -> None:
        """Stop owning those of the partitions that are still held under the epoch given for them."""
        with self._changed:
            for partition in partitions:
                if self._epochs.get(partition) == epochs.get(partition):
                    self._epochs.pop(partition, None)
            self._changed.notify_all()

    def move(self, epochs: Mapping[int, int]) -> None:
        """Hold those of these lanes that are owned under the epochs given, if those are higher."""
        with self._changed:
            for partition, epoch in epochs.items():
                if self._epochs.get(partition, epoch) < epoch:
                    self._epochs[partition] = epoch
            self._changed.notify_all()

    def current(self) -> dict[int, int]:
        """Return the epochs by partition."""
        with self._changed:
            return dict(self._epochs)

    def wait_for_some(self, timeout_seconds: float) -> dict[int, int]:
        """Return the epochs by partition, as soon as there are any."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._epochs), timeout_seconds)
            return dict(self._epochs)

    def begin(self, epochs: Mapping[int, int]) -> None:
        """Note that something of these lanes was read."""
        now = self._clock()
        with self._changed:
            self._under_way.update(epochs.items())
            for partition in epochs:
                self._waiting_since.setdefault(partition, now)
                self._read_at[partition] = now

    def finish(self, epochs: Mapping[int, int], *, deleted: bool = False) -> None:
        """Note that what `begin` noted is done with: announced and deleted, or dropped."""
        now = self._clock()
        with self._changed:
            self._under_way.subtract(epochs.items())
            for key in epochs.items():
                if self._under_way[key] <= 0:
                    del self._under_way[key]
            if deleted:
                self._note_deleted(epochs.keys(), now)
            self._changed.notify_all()

    def _note_deleted(self, partitions: Iterable[int], now: float) -> None:
        # What was read under another epoch waits on.
        busy = {partition for partition, _ in self._under_way}
        for partition in partitions:
            if partition in busy:
                self._waiting_since[partition] = now
            else:
                self._waiting_since.pop(partition, None)

    def batches_under_way(self, partition: int, epoch: int) -> int:
        """Return how often the lane was read under this epoch and is not done with."""
        with self._changed:
            return self._under_way.get((partition, epoch), 0)

    def standing(self, seconds: float) -> dict[int, float]:
        """Return the lanes that are owned and read, and of which nothing was deleted for longer than this."""
        now = self._clock()
        with self._changed:
            busy = {partition for partition, _ in self._under_way}
            # One that is read again and again has nothing under way most of the time.
            busy |= {partition for partition, read_at in self._read_at.items() if now - read_at <= seconds}
            waiting = {p: now - self._waiting_since.get(p, now) for p in self._epochs.keys() & busy}
        return {partition: waited for partition, waited in waiting.items() if waited > seconds}

    def is_under_way(self, partition: int, epoch: int) -> bool:
        """Return whether something of the lane was read under this epoch and is not done with."""
        with self._changed:
            return (partition, epoch) in self._under_way

    def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until lanes come or go, or something is finished."""
        with self._changed:
            self._changed.wait(timeout_seconds)

    def wait_until_finished(self, partitions: Iterable[int], timeout_seconds: float) -> bool:
        """Wait until nothing of these lanes is under way; False if that takes too long."""
        wanted = set(partitions)
        with self._changed:
            return self._changed.wait_for(
                lambda: not any(partition in wanted for partition, _ in self._under_way), timeout_seconds
            )
