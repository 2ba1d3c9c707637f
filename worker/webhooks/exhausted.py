"""Deliveries whose attempts are used up, shown where users of RQ look for failures, and sent again from there.

They stand in Postgres as failed, which is the truth; the jobs only show them. `rq requeue` of such a job has them sent
again. This is the one module of the deliveries that knows RQ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

import redis
import structlog

from ...lanes.postgres.errors import error_text
from ...lanes.postgres.sessions import SILENCE_SECONDS, connect, silent_for
from ...lanes.rq_queues import DELIVERIES
from ...schemas.errors import DeliveriesExhausted
from ...schemas.events import public_endpoint_id, public_event_id
from ...schemas.settings import Settings, load_settings
from ..connections import connect_redis, sender_session_name
from . import sql

#: Events that the message of a job names.
NAMED_EVENTS = 5
#: What a job remembers of having been run before.
_REPORTED = "reported"

_log = structlog.get_logger(__name__)


def enqueue_exhausted(settings: Settings, exhausted: Mapping[tuple[int, UUID], Sequence[UUID]]) -> None:
    """Make jobs that fail and so show these deliveries; if Redis cannot be reached, Postgres alone has them."""
    from ..jobs.entrypoints import MAX_EVENTS, REPORT_EXHAUSTED
    from ..jobs.queues import job_id, open_queue

    try:
        with connect_redis(settings.require_redis_url()) as connection:
            queue = open_queue(settings, DELIVERIES, connection)
            for (store_id, endpoint_id), events in exhausted.items():
                for start in range(0, len(events), MAX_EVENTS):
                    part = [str(event) for event in events[start : start + MAX_EVENTS]]
                    # Kept until somebody has looked at it.
                    queue.enqueue(
                        REPORT_EXHAUSTED,
                        store_id,
                        str(endpoint_id),
                        part,
                        job_id=job_id(settings, "exhausted", uuid4().hex),
                        failure_ttl=-1,
                        result_ttl=0,
                    )
    except redis.RedisError as error:
        _log.warning("failed deliveries are not shown as jobs", error=error_text(error))


def report_exhausted(store_id: int, endpoint_id: str, event_ids: Sequence[str]) -> None:
    """Fail when run first, which puts the job where failures are looked for; run again, have the events sent again.

    Raises:
        DeliveriesExhausted: this is the first run.
    """
    from rq import get_current_job

    job = get_current_job()
    if job is not None and not job.meta.get(_REPORTED):
        job.meta[_REPORTED] = True
        job.save_meta()  # type: ignore[no-untyped-call]  # untyped in RQ
        raise DeliveriesExhausted(_message(endpoint_id, event_ids))
    rearm(load_settings(), store_id, UUID(endpoint_id), [UUID(event) for event in event_ids])


def rearm(settings: Settings, store_id: int, endpoint_id: UUID, event_ids: Sequence[UUID]) -> int:
    """Have failed deliveries sent again, by the whole schedule; return how many those are."""
    values = {"store": store_id, "endpoint": endpoint_id, "events": list(event_ids)}
    with connect(settings.require_database_url(), name=sender_session_name()) as connection:
        connection.is_overdue = silent_for(SILENCE_SECONDS)
        return connection.execute(sql.REARM, values).rowcount


def _message(endpoint_id: str, event_ids: Sequence[str]) -> str:
    named = ", ".join(public_event_id(UUID(event)) for event in event_ids[:NAMED_EVENTS])
    more = f" and {len(event_ids) - NAMED_EVENTS} more" if len(event_ids) > NAMED_EVENTS else ""
    return f"{public_endpoint_id(UUID(endpoint_id))} did not take {named}{more}. {DeliveriesExhausted().message}"
