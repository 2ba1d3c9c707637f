"""Forgets what is over and old: deliveries and their events, leftovers of the outbox, runs, statistics.

What still has something to come, a delivery that is pending, is kept however old it is. The ledger is never touched.
Everything goes in slices, each a transaction of its own, so that nothing waits for long.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from ....schemas.statuses import StoredDeliveryStatus, StoredEndpointKind, StoredRunStatus
from ..runs import Outcome, Run

_PENDING = int(StoredDeliveryStatus.PENDING)

#: Most rows that go in one transaction.
SLICE_ROWS = 5_000
#: How long done runs of jobs are kept; failed ones as long as deliveries are.
RUN_AGE = timedelta(days=3)
#: How long commands that were put on their lanes are kept: their keys show that they were.
DUE_COMMAND_AGE = timedelta(days=30)
#: How long each minute's statistics are kept, and how long one of fifteen.
MINUTE_AGE, QUARTER_AGE = timedelta(hours=2), timedelta(days=8)
#: How long reconciliations are kept that found nothing; others for ever, and the latest of each kind.
RECONCILIATION_AGE = timedelta(days=90)

#: Endpoints and origins that have deliveries; each is cleared by itself, along its index.
READ_ENDPOINTS = "select store_id, endpoint_id from webhook_endpoints order by store_id, endpoint_id"

#: A slice of an endpoint's old deliveries, and the events that nothing else is delivered of: looked up endpoint
#: by endpoint, as the key of deliveries begins with it.
DELETE_DELIVERIES = f"""
with old as (
    select event_id from deliveries
    where store_id = %(store)s and endpoint_id = %(endpoint)s and status <> {_PENDING}
        and created_at < now() - %(age)s::interval
    order by created_at limit %(slice)s
), gone as (
    delete from deliveries using old
    where store_id = %(store)s and endpoint_id = %(endpoint)s and deliveries.event_id = old.event_id
        and status <> {_PENDING}
    returning deliveries.event_id
), forgotten as (
    delete from events using gone
    where events.store_id = %(store)s and events.event_id = gone.event_id and not exists (
        select from webhook_endpoints as endpoint
        join lateral (
            select from deliveries
            where deliveries.store_id = endpoint.store_id and deliveries.endpoint_id = endpoint.endpoint_id
                and deliveries.event_id = gone.event_id
            limit 1
        ) as delivery on true
        where endpoint.store_id = %(store)s and endpoint.endpoint_id <> %(endpoint)s
    )
    returning 1
)
select (select count(*) from gone), (select count(*) from forgotten)
"""  # noqa: S608

#: Nobody finds a delivery to an origin while those that have none are forgotten.
LOCK_FAN_OUT = "select pg_advisory_xact_lock(hashtext('creditlane fan-out'))"

#: Origins of callbacks of which nothing is kept any more; they are made again when they are called again.
DELETE_ORIGINS = f"""
delete from webhook_endpoints where (store_id, endpoint_id) in (
    select store_id, endpoint_id from webhook_endpoints as origin
    where kind = {StoredEndpointKind.CALLBACKS:d} and (sender is null or sender_until <= now()) and not exists (
        select from deliveries
        where deliveries.store_id = origin.store_id and deliveries.endpoint_id = origin.endpoint_id
    )
    limit %(slice)s
)
"""  # noqa: S608

#: Of endpoints that are gone, or that nobody fans out: nobody wants to know any more.
DELETE_OUTBOX = """
delete from outbox where (store_id, outbox_id) in (
    select store_id, outbox_id from outbox where created_at < now() - %(age)s::interval limit %(slice)s
)
"""

DELETE_RUNS = f"""
delete from job_runs where run_id in (
    select run_id from job_runs as run
    where ((status = {StoredRunStatus.DONE:d} and finished_at < now() - %(run_age)s::interval)
            or (status = {StoredRunStatus.FAILED:d} and finished_at < now() - %(age)s::interval))
        and exists (select from job_runs as later where later.name = run.name and later.due_at > run.due_at)
    limit %(slice)s
)
"""  # noqa: S608

DELETE_DUE_COMMANDS = """
delete from due_commands where (store_id, idempotency_key) in (
    select store_id, idempotency_key from due_commands
    where enqueued_at < now() - %(due_command_age)s::interval limit %(slice)s
)
"""

DELETE_STATISTICS = """
delete from statistics where (store_id, taken_at) in (
    select store_id, taken_at from statistics
    where taken_at < now() - %(quarter_age)s::interval
        or (taken_at < now() - %(minute_age)s::interval and extract(minute from taken_at)::integer %% 15 <> 0)
    limit %(slice)s
)
"""

DELETE_RECONCILIATIONS = """
delete from reconciliations where run_id in (
    select run_id from reconciliations as proof
    where discrepancies = 0 and finished_at < now() - %(reconciliation_age)s::interval
        and exists (
            select from reconciliations as later
            where later.kind = proof.kind and later.finished_at > proof.finished_at
        )
    limit %(slice)s
)
"""

DELETE_EXPORTS = """
delete from exports where (store_id, export_id) in (
    select store_id, export_id from exports where finished_at < now() - %(age)s::interval limit %(slice)s
)
"""

#: What goes in slices until nothing is left, by what it is called.
SLICED = {
    "outbox_rows": DELETE_OUTBOX,
    "runs": DELETE_RUNS,
    "due_commands": DELETE_DUE_COMMANDS,
    "statistics": DELETE_STATISTICS,
    "reconciliations": DELETE_RECONCILIATIONS,
    "exports": DELETE_EXPORTS,
}

_log = structlog.get_logger(__name__)


def perform(run: Run) -> Outcome:
    """Forget what is old. Done twice, it finds nothing more to forget."""
    retention = _Retention(run)
    gone = {"deliveries": 0, "events": 0}
    for store, endpoint in run.connection.execute(READ_ENDPOINTS).fetchall():
        deliveries, events = retention.clear_deliveries(store, endpoint)
        gone["deliveries"] += deliveries
        gone["events"] += events
    gone["origins"] = retention.clear(DELETE_ORIGINS, LOCK_FAN_OUT)
    gone |= {name: retention.clear(statement) for name, statement in SLICED.items()}
    if gone["outbox_rows"]:
        _log.warning("outbox rows were dropped that nobody has fanned out", outbox_rows=gone["outbox_rows"])
    return Outcome(gone)


class _Retention:
    """Deletes slice by slice, as long as the run is this process's."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._values: dict[str, Any] = {
            "age": timedelta(days=run.settings.webhook_retention_days),
            "run_age": RUN_AGE,
            "due_command_age": DUE_COMMAND_AGE,
            "minute_age": MINUTE_AGE,
            "quarter_age": QUARTER_AGE,
            "reconciliation_age": RECONCILIATION_AGE,
            "slice": SLICE_ROWS,
        }

    def clear(self, statement: str, lock: str | None = None) -> int:
        """Run the statement until it deletes less than a slice; return how many rows are gone.

        With a lock each slice is deleted as things stand once the lock is got.
        """
        gone, count = 0, SLICE_ROWS
        while count == SLICE_ROWS:
            self._run.check()
            with self._run.connection.transaction() if lock else nullcontext():
                if lock:
                    self._run.connection.execute(lock)
                count = self._run.connection.execute(statement, self._values).rowcount
            gone += count
        return gone

    def clear_deliveries(self, store: int, endpoint: UUID) -> tuple[int, int]:
        """Delete an endpoint's old deliveries and what events are left without any; return how many of each."""
        gone, forgotten, count = 0, 0, SLICE_ROWS
        while count == SLICE_ROWS:
            self._run.check()
            values = {**self._values, "store": store, "endpoint": endpoint}
            count, events = self._run.connection.execute(DELETE_DELIVERIES, values).fetchone() or (0, 0)
            gone += count
            forgotten += events
        return gone, forgotten
