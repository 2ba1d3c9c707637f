"""The numbers of the lanes and of the workers, read when they are asked for: once from Postgres, once from Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ...schemas.errors import CreditlaneError
from ...schemas.worker_numbers import Distribution, WorkerNumbers
from ..lane_status import COUNT_DEAD_LETTERS, READ_LEASES, LaneContent, content_calls, contents_of
from .connections import Connections

#: The numbers of the workers that show life. A worker's series end with it, as those of any process do.
READ_NUMBERS = """
select worker_id, coalesce(numbers, '{}')::text from workers where expires_at > clock_timestamp() order by worker_id
"""


class Lanes(NamedTuple):
    """What was read; None where the server could not be asked."""

    #: Partition and epoch, and the id of the living owner or None.
    leases: list[tuple[int, int, str | None]] | None
    workers: dict[str, WorkerNumbers]
    dead_letters: int
    contents: dict[int, LaneContent] | None


class _Ledger(NamedTuple):
    leases: list[tuple[Any, ...]]
    workers: dict[str, WorkerNumbers]
    dead_letters: int


async def read_lanes(connections: Connections, seconds: float) -> Lanes:
    """Return what can be read within so many seconds. One server that is away does not hide the other's numbers."""
    try:
        async with asyncio.timeout(seconds):
            ledger = await _read_ledger(connections)
    except (CreditlaneError, TimeoutError):
        return Lanes(None, {}, 0, None)
    partitions = [partition for partition, _, _ in ledger.leases]
    try:
        async with asyncio.timeout(seconds):
            answers = await connections.session.wire.exchange(content_calls(connections.session.keys, partitions))
            contents = contents_of(answers, partitions)
    except (CreditlaneError, TimeoutError):
        contents = None
    return Lanes([(int(p), int(e), owner) for p, e, owner in ledger.leases], *ledger[1:], contents)


async def _read_ledger(connections: Connections) -> _Ledger:
    leases = await connections.read(READ_LEASES, {})
    workers = await connections.read(READ_NUMBERS, {})
    ((dead_letters,),) = await connections.read(COUNT_DEAD_LETTERS, {})
    numbers = {worker: msgspec.json.decode(text, type=WorkerNumbers) for worker, text in workers}
    return _Ledger(leases, numbers, dead_letters)


def exposition_of(lanes: Lanes) -> bytes:
    """Return the numbers in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(lanes))
    return generate_latest(registry)


class _Snapshot:
    """A collector of numbers that are known already."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _reachable(self._lanes)
        yield from _of_lanes(self._lanes)
        if self._lanes.leases is not None:
            yield GaugeMetricFamily(
                "creditlane_dead_letters", "Commands that could not be decided.", self._lanes.dead_letters
            )
        yield from _of_workers(self._lanes.workers)


def _reachable(lanes: Lanes) -> Metric:
    family = GaugeMetricFamily("creditlane_reachable", "1 if the server answered just now.", labels=["server"])
    family.add_metric(["postgres"], lanes.leases is not None)
    # Not asked without Postgres, which knows how many lanes there are.
    if lanes.leases is not None:
        family.add_metric(["redis"], lanes.contents is not None)
    return family


def _of_lanes(lanes: Lanes) -> Iterator[Metric]:
    owned = GaugeMetricFamily("creditlane_lane_owned", "1 if a living worker applies the lane.", labels=["lane"])
    epochs = CounterMetricFamily("creditlane_lane_epoch", "Changes of the lane's owner.", labels=["lane"])
    for partition, epoch, owner in lanes.leases or ():
        owned.add_metric([str(partition)], owner is not None)
        epochs.add_metric([str(partition)], epoch)
    backlog = GaugeMetricFamily("creditlane_lane_backlog", "Commands on the lane.", labels=["lane"])
    lag = GaugeMetricFamily("creditlane_lane_lag_seconds", "Age of the lane's oldest command.", labels=["lane"])
    for partition, content in (lanes.contents or {}).items():
        backlog.add_metric([str(partition)], content.backlog)
        lag.add_metric([str(partition)], content.lag_seconds or 0.0)
    yield from (owned, epochs, backlog, lag)


def _of_workers(workers: dict[str, WorkerNumbers]) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "creditlane_commands", "Commands decided, by what became of them.", labels=["worker", "outcome"]
    )
    changes = CounterMetricFamily(
        "creditlane_worker_lane_changes", "Lanes gained and lost.", labels=["worker", "change"]
    )
    sizes = HistogramMetricFamily("creditlane_batch_commands", "Commands in a batch.", labels=["worker"])
    times = HistogramMetricFamily("creditlane_batch_seconds", "Time of a batch in Postgres.", labels=["worker"])
    for worker, numbers in workers.items():
        for outcome, count in numbers.outcomes.items():
            outcomes.add_metric([worker, outcome], count)
        changes.add_metric([worker, "gained"], numbers.lanes_gained)
        changes.add_metric([worker, "lost"], numbers.lanes_lost)
        _add(sizes, worker, numbers.batch_commands)
        _add(times, worker, numbers.batch_seconds)
    yield from (outcomes, changes, sizes, times)


def _add(family: HistogramMetricFamily, worker: str, values: Distribution) -> None:
    bounds = [*map(str, values.bounds), "+Inf"]
    family.add_metric([worker], list(zip(bounds, accumulate(values.counts), strict=True)), values.sum)
