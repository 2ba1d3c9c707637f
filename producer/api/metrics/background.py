"""Metrics of the work beside the lanes: deliveries and endpoints, jobs, the proofs of the books. Of no store apart.

Each is read by itself, so that one that cannot be had hides no other. No statement reads the journal, and none more
rows than `MAX_COUNTED` of the deliveries: who has no key may ask as often as they like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ....lanes.postgres.sessions import Row
from ....lanes.rq_queues import QUEUES
from ....schemas.errors import CreditlaneError
from ....schemas.statuses import StoredDeliveryStatus, StoredEndpointKind, StoredEndpointStatus, StoredRunStatus
from ...client.redis_exchange import refuse_errors
from ...operations.books_status import READ_RECONCILIATIONS
from ..connections import Connections

_ENABLED, _DISABLED = int(StoredEndpointStatus.ENABLED), int(StoredEndpointStatus.DISABLED)
_PENDING, _FAILED = int(StoredDeliveryStatus.PENDING), int(StoredDeliveryStatus.FAILED)
_COUNTS_OF_RUNS = ", ".join(f"count(*) filter (where status = {status:d})" for status in StoredRunStatus)
_RUN_STATUSES = ", ".join(status.name.lower() for status in StoredRunStatus)

#: Deliveries that are counted at most, of those to come and of those that failed. Where there are more, the number is
#: this one.
MAX_COUNTED = 100_000

#: What is to come: of endpoints that are served, at the first attempt or after some; of endpoints that are disabled.
#: Then the age of the oldest that is served, and for how long the first should have been attempted. In the order of the
#: index of the pending ones, so that no other row is read.
READ_PENDING = f"""
select count(*) filter (where endpoint.status = {_ENABLED} and attempts = 0),
    count(*) filter (where endpoint.status = {_ENABLED} and attempts > 0),
    count(*) filter (where endpoint.status = {_DISABLED}),
    extract(epoch from clock_timestamp() - min(pending.created_at) filter (where endpoint.status = {_ENABLED}))::float8,
    extract(epoch from clock_timestamp() - min(next_attempt_at) filter (
        where endpoint.status = {_ENABLED} and (paused_until is null or paused_until <= now())
    ))::float8
from (
    select store_id, endpoint_id, attempts, created_at, next_attempt_at from deliveries where status = {_PENDING}
    order by store_id, endpoint_id, next_attempt_at limit %(most)s
) as pending join webhook_endpoints as endpoint using (store_id, endpoint_id)
"""  # noqa: S608

COUNT_FAILED = f"""
select count(*) from (
    select from deliveries where status = {_FAILED} order by store_id, endpoint_id, created_at, event_id limit %(most)s
) as failed
"""  # noqa: S608

COUNT_ENDPOINTS = f"""
select kind, status, failing_since is not null, count(*) from webhook_endpoints
where status <> {StoredEndpointStatus.DELETED:d} group by 1, 2, 3
"""  # noqa: S608

#: Of each job that is scheduled or has run: since when it is due and was not seen to, the age of its last success, and
#: its runs of the last day: due, running, done and failed ones. Walks the index of names and due times.
READ_JOBS = f"""
with recursive ran (name) as (
    (select name from job_runs order by name limit 1)
    union all
    select (select name from job_runs where job_runs.name > ran.name order by name limit 1)
    from ran where ran.name is not null
), known as (
    select name from ran where name is not null union select name from scheduled_jobs
)
select known.name, extract(epoch from clock_timestamp() - schedule.next_due_at)::float8,
    extract(epoch from clock_timestamp() - success.finished_at)::float8, runs.*
from known
left join scheduled_jobs as schedule using (name)
left join lateral (
    select finished_at from job_runs where job_runs.name = known.name and status = {StoredRunStatus.DONE:d}
    order by due_at desc limit 1
) as success on true
cross join lateral (
    select {_COUNTS_OF_RUNS}
    from job_runs where job_runs.name = known.name and due_at > now() - interval '1 day'
) as runs ({_RUN_STATUSES})
order by known.name
"""  # noqa: S608


class Background(NamedTuple):
    """What was read, as rows; None where it could not be."""

    pending: list[Row] | None
    failed: list[Row] | None
    endpoints: list[Row] | None
    jobs: list[Row] | None
    proofs: list[Row] | None
    #: Jobs on each queue that were none of ours.
    refused: Mapping[str, int] | None


async def read_background(connections: Connections, seconds: float) -> Background:
    """Return what each read finds within so many seconds."""
    most = {"most": MAX_COUNTED}
    return Background(
        *await asyncio.gather(
            _rows(connections, READ_PENDING, most, seconds),
            _rows(connections, COUNT_FAILED, most, seconds),
            _rows(connections, COUNT_ENDPOINTS, {}, seconds),
            _rows(connections, READ_JOBS, {}, seconds),
            _rows(connections, READ_RECONCILIATIONS, {}, seconds),
            _refused(connections, seconds),
        )
    )


async def _rows(
    connections: Connections, statement: str, values: Mapping[str, Any], seconds: float
) -> list[Row] | None:
    try:
        async with asyncio.timeout(seconds):
            return await connections.read(statement, values)
    except (CreditlaneError, TimeoutError):
        return None


async def _refused(connections: Connections, seconds: float) -> Mapping[str, int] | None:
    key = connections.session.keys.refused_jobs
    try:
        async with asyncio.timeout(seconds):
            answers = await connections.session.wire.exchange([("HGET", key, queue) for queue in QUEUES])
            refuse_errors(answers)
    except (CreditlaneError, TimeoutError):
        return None
    return {queue: int(answer or 0) for queue, answer in zip(QUEUES, answers, strict=True)}


def background_exposition(background: Background) -> bytes:
    """Return the metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(background))
    return generate_latest(registry)


class _Snapshot:
    """A collector of what is known already."""

    def __init__(self, background: Background) -> None:
        self._background = background

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        known = self._background
        yield from _of_deliveries(known.pending, known.failed)
        if known.endpoints is not None:
            yield _of_endpoints(known.endpoints)
        if known.jobs is not None:
            yield from _of_jobs(known.jobs)
        if known.proofs is not None:
            yield from _of_proofs(known.proofs)
        if known.refused is not None:
            family = CounterMetricFamily(
                "creditlane_refused_jobs", "Jobs on a queue that were none of Creditlane's.", labels=["queue"]
            )
            for queue, count in known.refused.items():
                family.add_metric([queue], count)
            yield family


def _of_deliveries(pending: list[Row] | None, failed: list[Row] | None) -> Iterator[Metric]:
    counts = GaugeMetricFamily(
        "creditlane_deliveries",
        f"Deliveries: waiting for their first attempt, retrying, held for a disabled endpoint, failed for good. "
        f"Counted to {MAX_COUNTED}.",
        labels=["state"],
    )
    if failed is not None:
        ((count,),) = failed
        counts.add_metric(["failed"], count)
    if pending is None:
        yield counts
        return
    ((waiting, retrying, held, oldest, overdue),) = pending
    for state, count in (("waiting", waiting), ("retrying", retrying), ("held", held)):
        counts.add_metric([state], count)
    yield counts
    yield GaugeMetricFamily(
        "creditlane_delivery_oldest_age_seconds", "Age of the oldest one that waits or is retried.", oldest or 0.0
    )
    yield GaugeMetricFamily(
        "creditlane_delivery_overdue_seconds",
        "For how long the next attempt should have been made: it grows where nobody delivers.",
        max(0.0, overdue or 0.0),
    )


def _of_endpoints(rows: list[Row]) -> Metric:
    counts = {(kind, state): 0 for kind in ("endpoint", "callbacks") for state in ("enabled", "failing", "disabled")}
    for kind, status, is_failing, count in rows:
        state = "disabled" if status == _DISABLED else "failing" if is_failing else "enabled"
        counts["endpoint" if kind == StoredEndpointKind.ENDPOINT else "callbacks", state] += count
    family = GaugeMetricFamily(
        "creditlane_webhook_endpoints",
        "Endpoints of webhooks, and origins of callbacks: enabled, enabled but failing lately, disabled.",
        labels=["kind", "state"],
    )
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def _of_jobs(rows: list[Row]) -> Iterator[Metric]:
    runs = GaugeMetricFamily("creditlane_job_runs", "Runs that were due within a day.", labels=["job", "state"])
    success = GaugeMetricFamily(
        "creditlane_job_success_age_seconds",
        "Since the job's last success; infinite where it has run and none is known.",
        labels=["job"],
    )
    overdue = GaugeMetricFamily(
        "creditlane_job_overdue_seconds",
        "For how long nobody has seen to it that the job is due: it grows where no jobs process runs.",
        labels=["job"],
    )
    for job, since_due, since_success, *counts in rows:
        for state, count in zip(("due", "running", "done", "failed"), counts, strict=True):
            runs.add_metric([job, state], count)
        if since_success is not None or any(counts):
            success.add_metric([job], float("inf") if since_success is None else since_success)
        if since_due is not None:
            overdue.add_metric([job], max(0.0, since_due))
    yield from (runs, success, overdue)


def _of_proofs(rows: list[Row]) -> Iterator[Metric]:
    """Yield the age of the latest proof of the whole ledger, and of all proofs of new rows since then."""
    ages = GaugeMetricFamily("creditlane_proof_age_seconds", "Since the books were proven last.", labels=["proof"])
    checked = GaugeMetricFamily("creditlane_proof_rows", "Journal rows that were proven.", labels=["proof"])
    found = GaugeMetricFamily(
        "creditlane_proof_discrepancies", "What was not right in them: anything but 0 wants a look.", labels=["proof"]
    )
    for kind, _from, _until, _finished_at, count, discrepancies, age in rows:
        ages.add_metric([kind], age)
        checked.add_metric([kind], count)
        found.add_metric([kind], discrepancies)
    if {row[0] for row in rows} == {"whole"}:
        # The proof of the whole ledger has proven the new rows, too.
        ages.add_metric(["recent"], rows[0][-1])
        checked.add_metric(["recent"], 0)
        found.add_metric(["recent"], 0)
    yield from (ages, checked, found)
