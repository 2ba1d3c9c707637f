"""Sees to it that somebody delivers when there is something to deliver.

Whoever makes deliveries due leaves a hint in Redis. Hints may be lost; Postgres is asked every second without any.
"""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import psycopg
import redis
import structlog
from rq import Queue

from ...lanes.backoff import Backoff
from ...lanes.keys import Keys
from ...lanes.postgres.errors import error_text
from ...lanes.rq_queues import DELIVERIES
from ...schemas.settings import Settings
from ...schemas.statuses import StoredDeliveryStatus, StoredEndpointStatus
from ..connections import connect_redis
from .database import Connection, connect
from .entrypoints import ROUND
from .queues import job_id, open_queue, put_back_if_abandoned

#: How long a round may take before it counts as hung, in seconds.
ROUND_TIMEOUT_SECONDS = 180
#: How long to wait for a hint before Postgres is asked without one, in seconds.
POLL_SECONDS = 1
#: It is asked at most so often, in seconds: a hint comes with every commit, and a round takes all there is.
REST_SECONDS = 0.05
#: Jobs at the head of the queue that may be a round that waits. Others are few: deliveries that are given another try.
HEAD_JOBS = 1_000

#: Whether there is anything to do that nobody does: events to fan out, or an endpoint without a sender. By the time of
#: the statement, not of each row: with that no index could be used.
FIND_WORK = f"""
select exists (select from outbox) or exists (
    select from webhook_endpoints as endpoint
    where status = {StoredEndpointStatus.ENABLED:d} and coalesce(paused_until, '-infinity') <= statement_timestamp()
        and coalesce(sender_until, '-infinity') <= statement_timestamp()
        and exists (
            select from deliveries
            where deliveries.store_id = endpoint.store_id and deliveries.endpoint_id = endpoint.endpoint_id
                and deliveries.status = {StoredDeliveryStatus.PENDING:d}
                and deliveries.next_attempt_at <= statement_timestamp()
        )
)
"""  # noqa: S608

_log = structlog.get_logger(__name__)


class Waker:
    """Puts a round of deliveries on its queue when there is something to deliver and no round waits there."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._hints = Keys(settings.redis_prefix).wake_deliveries
        self._round_prefix = job_id(settings, "round", "")

    def run(self) -> None:
        """Wait for hints and ask Postgres, until the process stops."""
        backoff = Backoff(self._stopping)
        while not self._stopping.is_set():
            try:
                with connect(self._settings) as connection, connect_redis(self._settings.require_redis_url()) as client:
                    self._watch(connection, client, backoff)
            except (psycopg.Error, redis.RedisError) as error:
                _log.warning("the waker tries again", error=error_text(error), failures=backoff.failures)
                backoff.pause()

    def _watch(self, connection: Connection, client: redis.Redis, backoff: Backoff) -> None:
        queue = open_queue(self._settings, DELIVERIES, client)
        while not self._stopping.is_set():
            self.poll(connection, queue)
            backoff.reset()
            polled = time.monotonic()
            client.blpop([self._hints], timeout=POLL_SECONDS)
            self._stopping.wait(max(0.0, REST_SECONDS - (time.monotonic() - polled)))

    def poll(self, connection: Connection, queue: Queue) -> bool:
        """Put a round on the queue if one is needed, and return whether one was."""
        row = connection.execute(FIND_WORK).fetchone()
        if row is None or not row[0] or self._is_round_waiting(queue):
            return False
        queue.enqueue(
            ROUND,
            job_id=job_id(self._settings, "round", uuid4().hex),
            job_timeout=ROUND_TIMEOUT_SECONDS,
            result_ttl=0,
            retry=put_back_if_abandoned(),
        )
        return True

    def _is_round_waiting(self, queue: Queue) -> bool:
        return any(waiting.startswith(self._round_prefix) for waiting in queue.get_job_ids(0, HEAD_JOBS))
