"""How attempts went, collected and written many at once, with what follows for the delivery and its endpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import structlog

from ...schemas.statuses import StoredDeliveryStatus, StoredEndpointKind, StoredEndpointStatus
from . import sql
from .attempt import Outcome
from .concurrency import failing_pause
from .endpoint_leases import Due, Endpoint, EndpointKey
from .retry_schedule import GONE, PAUSING_STATUSES, retry_delay

_PENDING, _DELIVERED, _FAILED = map(int, StoredDeliveryStatus)
_DISABLED, _CALLBACKS = int(StoredEndpointStatus.DISABLED), int(StoredEndpointKind.CALLBACKS)

#: An endpoint that has failed for this long is disabled, in seconds.
LONGEST_FAILURE_SECONDS = 86_400.0

_GONE_REASON = "the endpoint answered 410 Gone"
_TOO_LONG_REASON = "no delivery succeeded for a day"

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Attempt:
    endpoint: Endpoint
    due: Due
    outcome: Outcome
    status: int
    delay: float


@dataclass(slots=True)
class _Health:
    """What is to be written down of an endpoint."""

    failing: bool
    pause: float = 0.0
    reason: str | None = None


class Results:
    """Attempts that were made and are not written yet."""

    def __init__(self) -> None:
        self._attempts: list[_Attempt] = []
        self._health: dict[EndpointKey, tuple[Endpoint, _Health]] = {}
        self.delivered: int = 0
        self.failed: int = 0
        #: Events whose attempts are used up.
        self.exhausted: dict[EndpointKey, list[UUID]] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, endpoint: Endpoint, due: Due, outcome: Outcome) -> None:
        """Note an attempt, and let the endpoint have more or less at once."""
        if outcome.succeeded:
            self._attempts.append(_Attempt(endpoint, due, outcome, _DELIVERED, 0.0))
            self.delivered += 1
            self._note_success(endpoint)
        else:
            gone = outcome.response_status == GONE
            delay = None if gone else retry_delay(due.attempts + 1, outcome.retry_after)
            status = _FAILED if delay is None else _PENDING
            self._attempts.append(_Attempt(endpoint, due, outcome, status, delay or 0.0))
            self.failed += 1
            self._note_failure(endpoint, outcome, gone=gone)

    def add_lost(self, endpoint: Endpoint, due: Due) -> None:
        """Note that there is nothing left to send."""
        outcome = Outcome(succeeded=False, latency_ms=0, error="the event is not kept any more")
        self._attempts.append(_Attempt(endpoint, due, outcome, _FAILED, 0.0))

    async def write(self, connection: Connection) -> None:
        """Write down everything that was noted. The connection must be in autocommit mode.

        Raises:
            psycopg.Error: as Postgres gives it. What was not written is sent again, after the leases have run out.
        """
        attempts, health = self._attempts, self._health
        if not attempts:
            return
        self._attempts, self._health = [], {}
        await connection.execute(sql.WRITE_ATTEMPTS, _attempt_columns(attempts))
        if health:
            await self._write_health(connection, health)
        for attempt in attempts:
            attempt.endpoint.held.discard(attempt.due.event_id)
            if attempt.status == _FAILED and attempt.outcome.response_status != GONE:
                self.exhausted.setdefault(attempt.endpoint.key, []).append(attempt.due.event_id)

    def _note_success(self, endpoint: Endpoint) -> None:
        endpoint.concurrency.succeeded()
        if endpoint.failing_since is not None:
            endpoint.failing_since = None
            pause = max(0.0, endpoint.put_off_until - time.monotonic())
            self._health[endpoint.key] = (endpoint, _Health(failing=False, pause=pause))

    def _note_failure(self, endpoint: Endpoint, outcome: Outcome, *, gone: bool) -> None:
        endpoint.concurrency.failed()
        is_callbacks = endpoint.kind == _CALLBACKS
        now = time.monotonic()
        if endpoint.failing_since is None:
            endpoint.failing_since = now
        if outcome.response_status in PAUSING_STATUSES:
            endpoint.put_off_until = max(endpoint.put_off_until, now + (outcome.retry_after or 0.0))
        # One origin must not put off the others; each of their deliveries has its own pauses.
        pause = (
            0.0
            if endpoint.is_shared
            else max(failing_pause(now - endpoint.failing_since), endpoint.put_off_until - now)
        )
        health = _Health(failing=True, pause=pause, reason=_GONE_REASON if gone and not is_callbacks else None)
        before = self._health.get(endpoint.key)
        if before is not None:
            health.reason = health.reason or before[1].reason
        self._health[endpoint.key] = (endpoint, health)
        if health.pause > 0 or health.reason:
            endpoint.stop()

    async def _write_health(self, connection: Connection, health: dict[EndpointKey, tuple[Endpoint, _Health]]) -> None:
        columns = {
            "stores": [store_id for store_id, _ in health],
            "endpoints": [endpoint_id for _, endpoint_id in health],
            "failing": [each.failing for _, each in health.values()],
            "pauses": [each.pause for _, each in health.values()],
            "reasons": [each.reason for _, each in health.values()],
            "longest": LONGEST_FAILURE_SECONDS,
            "too_long_reason": _TOO_LONG_REASON,
        }
        records = await (await connection.execute(sql.WRITE_HEALTH, columns)).fetchall()
        disabled = [record for record in records if record[3] == _DISABLED]
        for store_id, endpoint_id, kind, _, reason in disabled:
            health[store_id, endpoint_id][0].stop()
            _log.warning(
                "webhook endpoint disabled", store=store_id, endpoint=str(endpoint_id), kind=kind, reason=reason
            )
        if disabled:
            await connection.execute(sql.BUMP_SUBSCRIPTIONS)


def _attempt_columns(attempts: Sequence[_Attempt]) -> dict[str, list[Any]]:
    return {
        "stores": [each.endpoint.key[0] for each in attempts],
        "endpoints": [each.endpoint.key[1] for each in attempts],
        "events": [each.due.event_id for each in attempts],
        "attempts": [each.due.attempts for each in attempts],
        "statuses": [each.status for each in attempts],
        "delays": [each.delay for each in attempts],
        "response_statuses": [each.outcome.response_status for each in attempts],
        "latencies": [each.outcome.latency_ms for each in attempts],
        "bodies": [each.outcome.response_body for each in attempts],
        "errors": [each.outcome.error for each in attempts],
    }
