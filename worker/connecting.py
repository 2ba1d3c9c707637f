"""Connections to Postgres and Redis as a worker wants them: with a deadline on everything."""

from __future__ import annotations

import math
from typing import Any

import redis

from .deadlines import SILENCE_SECONDS, AsyncDeadlineConnection, DeadlineConnection, silent_for

#: How long to wait for a connection to be made, in seconds.
CONNECT_TIMEOUT_SECONDS = 5
#: How long Redis may take to answer, beyond what a blocking read asks for, in seconds.
REDIS_TIMEOUT_SECONDS = 10.0


def session_name(worker_id: str = "") -> str:
    """Return what a worker's sessions are called in Postgres, within the 63 bytes that a name may have there."""
    return f"creditlane-worker {worker_id[-32:]}".rstrip()


def connect_postgres(
    database_url: str, *, worker_id: str = "", autocommit: bool = False, silence_seconds: float = SILENCE_SECONDS
) -> DeadlineConnection:
    """Return a new connection, which others can tell from its name to be this worker's.

    Postgres may be silent on it for so long, and about as long while it is made.

    Raises:
        psycopg.OperationalError: Postgres cannot be reached.
    """
    options = session_options(session_name(worker_id))
    # The driver waits for two seconds at least.
    options["connect_timeout"] = min(CONNECT_TIMEOUT_SECONDS, max(2, math.ceil(silence_seconds)))
    connection = DeadlineConnection.connect(database_url, autocommit=autocommit, **options)
    connection.is_overdue = silent_for(silence_seconds)
    return connection


async def connect_postgres_async(
    database_url: str, *, worker_id: str = "", autocommit: bool = False, silence_seconds: float = SILENCE_SECONDS
) -> AsyncDeadlineConnection:
    """Return a new connection for an event loop, on which Postgres may be silent for so long."""
    connection = await AsyncDeadlineConnection.connect(
        database_url, autocommit=autocommit, **session_options(session_name(worker_id))
    )
    connection.is_overdue = silent_for(silence_seconds)
    return connection


def session_options(name: str) -> dict[str, Any]:
    """Return the options of a connection whose session is called like this in Postgres."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": name,
        # Poolers in transaction mode give each transaction another server: nothing prepared may be relied on.
        "prepare_threshold": None,
        # A peer that vanished without a word is noticed after about half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def connect_redis(redis_url: str, *, answer_seconds: float = REDIS_TIMEOUT_SECONDS) -> redis.Redis:
    """Return a client that connects when first used, and gives streams as they are sent: nested lists of bytes.

    No answer is waited for longer than `answer_seconds`.
    """
    client = redis.Redis.from_url(
        redis_url,
        protocol=2,
        decode_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=answer_seconds,
    )
    client.set_response_callback("XREAD", lambda response, **_options: response)
    return client
