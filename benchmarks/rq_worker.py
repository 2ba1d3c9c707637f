"""A process that is RQ's SimpleWorker on one queue until the queue is empty. Prints the seconds that took."""

from __future__ import annotations

import sys
import time

import redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from ..schemas.settings import load_settings
from . import rq_jobs


def main() -> int:
    """Run the jobs of the queue named on the command line. Returns the exit code."""
    (queue_name,) = sys.argv[1:]
    with redis.Redis.from_url(load_settings().require_redis_url(), protocol=2) as connection:
        worker = SimpleWorker([queue_name], connection=connection, serializer=JSONSerializer)
        # Connected before the clock starts, as the lane's workers are.
        rq_jobs.connect()
        started = time.perf_counter()
        worker.work(burst=True, logging_level="WARNING")
        seconds = time.perf_counter() - started
    sys.stdout.write(f"{seconds!r}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
