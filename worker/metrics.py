"""What this worker process counts: a few additions a batch, written to Postgres with its heartbeat."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import msgspec

from ..schemas.worker_metrics import StageTrouble, WorkerMetrics
from .ledger.state import Outcome


class Metrics:
    """The numbers of one worker process. Shared by its threads; no I/O."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = Lock()
        self._numbers = WorkerMetrics()
        self._clock = clock
        #: When something was committed last, or lanes were gained after that.
        self._committed_at: float | None = None

    def note_batch(self, commands: int, seconds: float) -> None:
        """Count a batch that was committed."""
        with self._lock:
            self._numbers.batch_commands.take(commands)
            self._numbers.batch_seconds.take(seconds)
            self._committed_at = self._clock()

    def note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Count what became of the commands of a batch."""
        counted = Counter([_name_of(outcome) for outcome in outcomes])
        with self._lock:
            numbers = self._numbers.outcomes
            for name, count in counted.items():
                numbers[name] = numbers.get(name, 0) + count

    def note_lanes(self, gained: int, lost: int) -> None:
        """Count lanes that changed their owner."""
        with self._lock:
            self._numbers.lanes_gained += gained
            self._numbers.lanes_lost += lost
            if gained:
                self._committed_at = self._clock()

    def note_lane_faults(self, faults: Mapping[int, str]) -> None:
        """Note which lanes do not get on for a reason of their own, instead of those noted before."""
        with self._lock:
            self._numbers.lane_faults = {str(partition): cause for partition, cause in sorted(faults.items())}

    def note_read_again(self) -> None:
        """Count a lane that was read again and begins with what it began with before."""
        with self._lock:
            self._numbers.lanes_read_again += 1

    def encoded(
        self, *, troubles: Mapping[str, StageTrouble] | None = None, standing_lanes: Mapping[int, float] | None = None
    ) -> str:
        """Return the numbers as JSON, with how the worker is getting on now."""
        with self._lock:
            self._numbers.troubles = dict(troubles or {})
            self._numbers.standing_lanes = dict(standing_lanes or {})
            committed_at = self._committed_at
            self._numbers.seconds_since_commit = None if committed_at is None else self._clock() - committed_at
            return msgspec.json.encode(self._numbers).decode()


def _name_of(outcome: Outcome) -> str:
    if outcome.refusal is not None:
        return outcome.refusal.code
    if outcome.dry_run:
        return "dry_run"
    if outcome.replayed or outcome.row is None:
        return "replayed"
    return outcome.row.rejection or "applied"
