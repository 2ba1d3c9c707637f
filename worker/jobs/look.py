"""What RQ knows of the two queues: their processes, what waits and what failed. Only reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import redis
from rq import Worker
from rq.serializers import JSONSerializer

from ...schemas.errors import Unavailable
from ...schemas.queues import QueueName
from ...schemas.settings import Settings
from ..connecting import connect_redis
from .queues import open_queue
from .rq_worker import LIFE_SECONDS


class JobsProcessLook(NamedTuple):
    """A process on record."""

    name: str
    host: str
    process_id: int
    state: str


def living_processes(settings: Settings, queue: QueueName) -> list[JobsProcessLook]:
    """Return the processes that have shown life on the queue lately.

    Raises:
        Unavailable: Redis cannot be reached.
    """
    oldest = datetime.now(UTC) - timedelta(seconds=LIFE_SECONDS)
    try:
        with connect_redis(settings.require_redis_url()) as connection:
            workers = Worker.all(queue=open_queue(settings, queue, connection), serializer=JSONSerializer)
    except redis.RedisError as error:
        raise Unavailable(f"Redis cannot be read: {error}") from error
    return [
        JobsProcessLook(worker.name, worker.hostname or "", worker.pid or 0, worker.get_state())
        for worker in workers
        if worker.last_heartbeat and worker.last_heartbeat > oldest
    ]
