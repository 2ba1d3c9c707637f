"""The names of the two queues in RQ. RQ itself is not imported here: the command line needs the names for its help."""

from __future__ import annotations

from typing import Literal, get_args

from ..schemas.settings import Settings

#: Webhooks are delivered from one queue, everything else is done from the other; an RQ process listens to one of them.
QueueName = Literal["deliveries", "jobs"]
QUEUES: tuple[QueueName, ...] = get_args(QueueName)
DELIVERIES: QueueName = "deliveries"
JOBS: QueueName = "jobs"


def rq_name(settings: Settings, queue: QueueName) -> str:
    """Return the queue's name in RQ, which several installations may share."""
    return f"{settings.redis_prefix}-{queue}"
