"""Which lanes this process owns now, and what of them is under way. Shared by the threads of a worker; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Condition


class Ownership:
    """The partitions of one worker process, each with the epoch of its lease."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._epochs: dict[int, int] = {}
        self._under_way: Counter[tuple[int, int]] = Counter()

    def replace(self, epochs: Mapping[int, int]) -> tuple[set[int], set[int]]:
        """Own exactly these from now on. Returns the partitions that were gained and those that were lost."""
        with self._changed:
            before, self._epochs = self._epochs, dict(epochs)
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
        with self._changed:
            self._under_way.update(epochs.items())

    def finish(self, epochs: Mapping[int, int]) -> None:
        """Note that what `begin` noted is done with: announced and deleted, or dropped."""
        with self._changed:
            self._under_way.subtract(epochs.items())
            for key in epochs.items():
                if self._under_way[key] <= 0:
                    del self._under_way[key]
            self._changed.notify_all()

    def batches_under_way(self, partition: int, epoch: int) -> int:
        """Return how often the lane was read under this epoch and is not done with."""
        with self._changed:
            return self._under_way.get((partition, epoch), 0)

    def is_under_way(self, partition: int, epoch: int) -> bool:
        """Tell whether something of the lane was read under this epoch and is not done with."""
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
