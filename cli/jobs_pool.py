"""RQ processes as children of this one."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ..lanes.rq_queues import DELIVERIES, JOBS, QueueName
from .process_pool import DELIVERIES_NUMBER, JOBS_NUMBER, LogSink, WorkerPool

#: The queues, each of which needs a process of its own.
QUEUES: dict[QueueName, int] = {DELIVERIES: DELIVERIES_NUMBER, JOBS: JOBS_NUMBER}


def jobs_pool(queue: QueueName, processes: int, environment: Mapping[str, str], log: LogSink) -> WorkerPool:
    """Return processes that do the jobs of this queue once they are started."""
    command = [sys.executable, "-P", "-m", f"{__package__}.jobs_child", "--queue", queue]
    return WorkerPool(processes, environment, lambda _number, line: log(QUEUES[queue], line), command=command)
