"""Kills during deliveries: of a delivering process, of the receiver, of Redis; each at its share of the way."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from ..local.servers import EmbeddedRedis
from ..schemas.statuses import StoredDeliveryStatus
from .webhook_setup import Children

#: How long what was killed stays away, in seconds.
AWAY_SECONDS = 0.5

#: What would happen by itself when leases and pauses have run out.
_HURRY = (
    "update webhook_endpoints set sender_until = now() where sender_until < now() + interval '25 seconds'",
    "update webhook_endpoints set paused_until = null where paused_until is not null and url like '%/healthy/%'",
    f"""
    update deliveries set next_attempt_at = now() from webhook_endpoints as endpoints
    where endpoints.endpoint_id = deliveries.endpoint_id and endpoints.url like '%/healthy/%'
      and deliveries.status = {StoredDeliveryStatus.PENDING:d} and deliveries.next_attempt_at > now()
    """,  # noqa: S608
)


class Faults:
    """What is killed in a run, in order of the share of the way at which it is."""

    def __init__(self, children: Children, redis_server: EmbeddedRedis) -> None:
        self._children = children
        self._redis_server = redis_server
        self.kills: int = 0
        self._left: list[tuple[float, Callable[[], None]]] = [
            (0.10, children.kill_jobs),
            (0.25, self._kill_receiver),
            (0.40, self._kill_redis),
            (0.55, children.kill_jobs),
            (0.70, self._kill_receiver),
            (0.85, self._kill_redis),
        ]

    def step(self, share: float) -> None:
        """Do what is due at this share of the way."""
        while self._left and share >= self._left[0][0]:
            _, kill = self._left.pop(0)
            kill()
            self.kills += 1

    def _kill_receiver(self) -> None:
        self._children.kill_receiver()
        time.sleep(AWAY_SECONDS)
        self._children.start_receiver()

    def _kill_redis(self) -> None:
        self._redis_server.kill()
        time.sleep(AWAY_SECONDS)
        self._redis_server.start()


def hurry(database_url: str) -> None:
    """End in Postgres what a crash leaves to wait for: leases of processes that do not renew them, pauses, retries."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in _HURRY:
            connection.execute(statement.encode())
