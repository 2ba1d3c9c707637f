"""The two queues in RQ, by name, and how jobs get onto them. Every argument and result is JSON, never a pickle."""

from __future__ import annotations

from typing import cast

import redis
from rq import Queue, Retry
from rq.serializers import JSONSerializer

from ...lanes.keys import Keys
from ...lanes.rq_queues import QueueName, rq_name
from ...schemas.settings import Settings
from .checked_jobs import CheckedJob, CheckedQueue

#: How often a job is put back whose process died under it. One that raised is not put back: it has failed.
MAX_ABANDONMENTS = 10


def open_queue(settings: Settings, queue: QueueName, connection: redis.Redis) -> Queue:
    """Return the queue."""
    return CheckedQueue(
        rq_name(settings, queue), connection=connection, serializer=JSONSerializer, job_class=CheckedJob
    )


def job_id(settings: Settings, *parts: object) -> str:
    """Return the id of a job of this installation, of the characters that RQ allows."""
    return "-".join([settings.redis_prefix.replace(".", "_"), *map(str, parts)])


def put_back_if_abandoned() -> Retry:
    """Return what lets RQ put a job back whose process died under it."""
    return Retry(max=MAX_ABANDONMENTS)


def count_refusal(settings: Settings, queue: QueueName, connection: redis.Redis) -> None:
    """Count a job that was none of ours."""
    connection.hincrby(Keys(settings.redis_prefix).refused_jobs, queue, 1)


def read_refusals(settings: Settings, queue: QueueName, connection: redis.Redis) -> int:
    """Return how many jobs on the queue were none of ours."""
    return int(cast("bytes | None", connection.hget(Keys(settings.redis_prefix).refused_jobs, queue)) or 0)
