"""Metrics of the lanes and of the workers, read when they are asked for: once from Postgres, once from Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ....schemas.errors import CreditlaneError
from ....schemas.worker_metrics import STAGES, Distribution, WorkerMetrics
from ...operations.lane_problems import (
    READ_ENTRIES_AHEAD,
    READ_LEASES,
    READ_WORKERS,
    LaneContent,
    LeaseRecord,
    WorkerRecord,
    count_older,
    problems_of_lanes,
)
from ...operations.lane_status import COUNT_DEAD_LETTERS, content_calls, contents_of
from ..connections import Connections


class Lanes(NamedTuple):
    """What was read; None where the server could not be asked."""

    leases: list[LeaseRecord] | None
    #: All that are on record.
    workers: list[WorkerRecord]
    #: How far the latest entry of the journal is ahead of the clock.
    entries_ahead_seconds: float
    contents: dict[int, LaneContent] | None


class _Ledger(NamedTuple):
    leases: list[LeaseRecord]
    workers: list[WorkerRecord]
    entries_ahead_seconds: float


async def read_lanes(connections: Connections, seconds: float) -> Lanes:
    """Return what each server answers within so many seconds. One that is away does not hide the other's metrics."""
    try:
        async with asyncio.timeout(seconds):
            ledger = await _read_ledger(connections)
    except (CreditlaneError, TimeoutError):
        return Lanes(None, [], 0.0, None)
    partitions = [lease.partition for lease in ledger.leases]
    try:
        async with asyncio.timeout(seconds):
            answers = await connections.session.wire.exchange(content_calls(connections.session.keys, partitions))
            contents = contents_of(answers, partitions)
    except (CreditlaneError, TimeoutError):
        contents = None
    return Lanes(*ledger, contents)


async def _read_ledger(connections: Connections) -> _Ledger:
    leases = [LeaseRecord(*row) for row in await connections.read(READ_LEASES, {})]
    workers = [WorkerRecord(*row) for row in await connections.read(READ_WORKERS, {})]
    ((ahead_seconds,),) = await connections.read(READ_ENTRIES_AHEAD, {})
    return _Ledger(leases, workers, ahead_seconds or 0.0)


async def count_dead_letters(connections: Connections, seconds: float) -> int | None:
    """Return how many were not replayed; None where that is not known within so many seconds: it reads all of them."""
    try:
        async with asyncio.timeout(seconds):
            ((count,),) = await connections.read(COUNT_DEAD_LETTERS, {})
    except (CreditlaneError, TimeoutError):
        return None
    return int(count)


def exposition_of(lanes: Lanes, dead_letters: int | None) -> bytes:
    """Return the metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(lanes, dead_letters))
    return generate_latest(registry)


class _Snapshot:
    """A collector of what is known already."""

    def __init__(self, lanes: Lanes, dead_letters: int | None) -> None:
        self._lanes = lanes
        self._dead_letters = dead_letters

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _reachable(self._lanes)
        yield from _of_lanes(self._lanes)
        if self._dead_letters is not None:
            yield GaugeMetricFamily(
                "creditlane_dead_letters", "Commands that could not be decided.", self._dead_letters
            )
        if self._lanes.leases is not None:
            yield GaugeMetricFamily(
                "creditlane_journal_ahead_seconds",
                "How far the latest entry is ahead of the clock of Postgres.",
                self._lanes.entries_ahead_seconds,
            )
            yield GaugeMetricFamily(
                "creditlane_older_workers",
                "Workers of an older release that keep what is new from being decided.",
                count_older(self._lanes.workers),
            )
        # A worker's series end with it, as those of any process do.
        alive = [worker for worker in self._lanes.workers if worker.is_alive]
        yield from _of_workers({worker.public_id: worker.metrics for worker in alive})
        yield from _of_trouble(alive)


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
    for partition, epoch, owner, _ in lanes.leases or ():
        owned.add_metric([str(partition)], owner is not None)
        epochs.add_metric([str(partition)], epoch)
    backlog = GaugeMetricFamily("creditlane_lane_backlog", "Commands on the lane.", labels=["lane"])
    lag = GaugeMetricFamily("creditlane_lane_lag_seconds", "Age of the lane's oldest command.", labels=["lane"])
    standing = GaugeMetricFamily("creditlane_lane_standing", "1 if an owned lane does not get on.", labels=["lane"])
    problems = problems_of_lanes(lanes.leases or (), lanes.workers, lanes.contents or {})
    for partition, content in (lanes.contents or {}).items():
        backlog.add_metric([str(partition)], content.backlog)
        lag.add_metric([str(partition)], content.lag_seconds or 0.0)
        standing.add_metric([str(partition)], partition in problems)
    yield from (owned, epochs, backlog, lag, standing)


def _of_workers(workers: dict[str, WorkerMetrics]) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "creditlane_commands", "Commands decided, by what became of them.", labels=["worker", "outcome"]
    )
    changes = CounterMetricFamily(
        "creditlane_worker_lane_changes", "Lanes gained and lost.", labels=["worker", "change"]
    )
    again = CounterMetricFamily(
        "creditlane_lanes_read_again", "Reads that began with what an earlier one had begun with.", labels=["worker"]
    )
    sizes = HistogramMetricFamily("creditlane_batch_commands", "Commands in a batch.", labels=["worker"])
    times = HistogramMetricFamily("creditlane_batch_seconds", "Time of a batch in Postgres.", labels=["worker"])
    for worker, metrics in workers.items():
        for outcome, count in metrics.outcomes.items():
            outcomes.add_metric([worker, outcome], count)
        changes.add_metric([worker, "gained"], metrics.lanes_gained)
        changes.add_metric([worker, "lost"], metrics.lanes_lost)
        again.add_metric([worker], metrics.lanes_read_again)
        _add(sizes, worker, metrics.batch_commands)
        _add(times, worker, metrics.batch_seconds)
    yield from (outcomes, changes, again, sizes, times)


def _of_trouble(workers: Iterable[WorkerRecord]) -> Iterator[Metric]:
    stuck = GaugeMetricFamily(
        "creditlane_worker_stuck", "1 if the worker does not get on, so that it owns nothing.", labels=["worker"]
    )
    idle = GaugeMetricFamily(
        "creditlane_worker_commit_age_seconds", "Since the last commit, or since lanes were gained.", labels=["worker"]
    )
    trouble = GaugeMetricFamily(
        "creditlane_worker_trouble_seconds",
        "How long a stage has been at one piece of work that fails or takes long.",
        labels=["worker", "stage"],
    )
    for worker in workers:
        metrics = worker.metrics
        stuck.add_metric([worker.public_id], worker.is_stuck)
        idle.add_metric([worker.public_id], metrics.seconds_since_commit or 0.0)
        for stage in STAGES:
            known = metrics.troubles.get(stage)
            trouble.add_metric([worker.public_id, stage], known.seconds if known else 0.0)
    yield from (stuck, idle, trouble)


def _add(family: HistogramMetricFamily, worker: str, values: Distribution) -> None:
    bounds = [*map(str, values.bounds), "+Inf"]
    family.add_metric([worker], list(zip(bounds, accumulate(values.counts), strict=True)), values.sum)
