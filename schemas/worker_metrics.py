"""What a worker process counts. It writes them beside its heartbeat; `/metrics` shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

#: Upper bounds of the buckets for the size of a batch, in commands.
BATCH_COMMANDS_BOUNDS = (1, 10, 100, 1_000, 4_000, 8_000)
#: Upper bounds of the buckets for the time that a batch took in Postgres, in seconds.
BATCH_SECONDS_BOUNDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

#: The stages of a worker that a batch passes through.
STAGES = ("reader", "applier", "announcer")


class Distribution(msgspec.Struct):
    """How often values fell below each bound."""

    bounds: tuple[float, ...]
    #: One more than there are bounds: the last is for what exceeds them all. Not cumulative.
    counts: list[int]
    sum: float = 0.0

    @classmethod
    def over(cls, bounds: Iterable[float]) -> Distribution:
        """Return a distribution that has seen nothing."""
        fixed = tuple(bounds)
        return cls(fixed, [0] * (len(fixed) + 1))

    def take(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class StageTrouble(msgspec.Struct, frozen=True):
    """What keeps one stage of a worker from getting on."""

    #: Words for anybody: they name no host and no value.
    cause: str
    #: How long it has been at one piece of work, in seconds.
    seconds: float
    #: Attempts at it that failed.
    failures: int


class WorkerMetrics(msgspec.Struct):
    """What one worker process has counted since it started, and how it is getting on."""

    #: Commands decided, by `applied`, `replayed`, or the code of the rejection or dead letter.
    outcomes: dict[str, int] = {}
    batch_commands: Distribution = msgspec.field(default_factory=lambda: Distribution.over(BATCH_COMMANDS_BOUNDS))
    batch_seconds: Distribution = msgspec.field(default_factory=lambda: Distribution.over(BATCH_SECONDS_BOUNDS))
    lanes_gained: int = 0
    lanes_lost: int = 0
    #: Times that a lane was read again and began with what it had begun with before.
    lanes_read_again: int = 0
    #: Why a lane does not get on, by its number: its key is of another type, or it is read again without progress.
    lane_faults: dict[str, str] = {}
    #: The stages that try again or have been at one piece of work for long, by `reader`, `applier` or `announcer`.
    troubles: dict[str, StageTrouble] = {}
    #: Since the last commit, or since lanes were gained after it; None where it has no lanes.
    seconds_since_commit: float | None = None
    #: Lanes of which something was read and nothing was finished since, with the seconds of that.
    standing_lanes: dict[int, float] = {}
