"""A backlog that stands ready before anybody may drain it, and appears on the lanes all at once."""

from __future__ import annotations

import time
from collections.abc import Iterable

import redis

from ..lanes.keys import Keys
from ..local.processes import wait_until
from ..producer import Client
from ..schemas.commands import Command
from ..schemas.installation import MAX_PARTITIONS
from ..schemas.settings import Settings
from .plan import BenchmarkFailed
from .waiting_producer import Progress

#: Any number above what a scenario puts on one lane.
LANE_LIMIT = 1_000_000_000
#: How long the server may take to finish rewriting its append-only file, in seconds.
REWRITE_DEADLINE_SECONDS = 120.0


class Backlog:
    """Commands enqueued by a client under a prefix that no worker reads."""

    def __init__(self, settings: Settings, commands: Iterable[Command], expected: int, progress: Progress) -> None:
        self._settings = settings
        self._staged = settings.model_copy(
            update={"redis_prefix": staging_prefix(settings.redis_prefix), "lane_limit": LANE_LIMIT}
        )
        with Client(self._staged) as client:
            tickets = client.enqueue_many(commands, on_progress=lambda done: progress(done, expected))
        if len(tickets) != expected:
            raise BenchmarkFailed(f"{len(tickets)} commands were enqueued instead of {expected}")
        #: Who waits for the results; they have the numbers from 1.
        self.producer_id: str = tickets.producer_id

    def release(self) -> float:
        """Put all of it on the lanes, in one transaction of Redis, and return the moment right before."""
        source, target = Keys(self._staged.redis_prefix), Keys(self._settings.redis_prefix)
        with redis.Redis.from_url(self._settings.require_redis_url(), protocol=2) as client:
            wait_until(lambda: not _is_rewriting(client), seconds=REWRITE_DEADLINE_SECONDS)
            asked = client.pipeline(transaction=False)
            for partition in range(MAX_PARTITIONS):
                asked.exists(source.lane(partition))
            renames = client.pipeline(transaction=True)
            for partition, exists in enumerate(asked.execute()):
                if exists:
                    renames.rename(source.lane(partition), target.lane(partition))
            released_at = time.perf_counter()
            renames.execute()
        return released_at


def staging_prefix(prefix: str) -> str:
    """Return the start of the keys under which a backlog waits."""
    return f"{prefix}.staged"


def _is_rewriting(client: redis.Redis) -> bool:
    """Return whether Redis is compacting its append-only file, which enqueueing so much may have set off."""
    return bool(client.info("persistence").get("aof_rewrite_in_progress"))
