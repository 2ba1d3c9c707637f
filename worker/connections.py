"""Connections to Postgres and Redis as a worker wants them: named after it, and with a deadline on everything."""

from __future__ import annotations

import math
from typing import Any

import redis

from ..lanes.postgres import sessions as postgres_sessions
from ..lanes.postgres.sessions import SILENCE_SECONDS, UNLIMITED, AsyncPostgresSession, PostgresSession, silent_for
from ..lanes.redis.connections import connection_options
from ..schemas.redis_urls import readable_redis_url

#: How long Redis may take to answer, beyond what a blocking read asks for, in seconds.
REDIS_TIMEOUT_SECONDS = 10.0


def session_name(worker_id: str = "") -> str:
    """Return what a worker's sessions are called in Postgres, within the 63 bytes that a name may have there."""
    return f"creditlane-worker {worker_id[-32:]}".rstrip()


def sender_session_name(sender_id: str = "") -> str:
    """Return what the sessions are called of who delivers webhooks, which are no worker's."""
    return f"creditlane-jobs {sender_id[-32:]}".rstrip()


def connect_postgres(
    database_url: str, *, worker_id: str = "", autocommit: bool = False, silence_seconds: float = SILENCE_SECONDS
) -> PostgresSession:
    """Return a new connection, which others can see from its name to be this worker's.

    Postgres may be silent on it for so long, and about as long while it is made.

    Raises:
        ConfigurationError: the database is none that can hold a ledger.
        psycopg.OperationalError: Postgres cannot be reached.
    """
    session = postgres_sessions.connect(
        database_url,
        name=session_name(worker_id),
        autocommit=autocommit,
        connect_seconds=min(postgres_sessions.CONNECT_TIMEOUT_SECONDS, math.ceil(silence_seconds)),
    )
    session.is_overdue = silent_for(silence_seconds)
    return session


async def connect_postgres_async(
    database_url: str, *, sender_id: str = "", autocommit: bool = False, silence_seconds: float = SILENCE_SECONDS
) -> AsyncPostgresSession:
    """Return a new connection of a sender of webhooks, for an event loop; Postgres may be silent on it for so long."""
    session = await postgres_sessions.connect_async(
        database_url, name=sender_session_name(sender_id), limits=UNLIMITED, autocommit=autocommit
    )
    session.is_overdue = silent_for(silence_seconds)
    return session


def connect_redis(redis_url: str, *, answer_seconds: float = REDIS_TIMEOUT_SECONDS, **options: Any) -> redis.Redis:
    """Return a client that connects when first used, and gives streams as they are sent: nested lists of bytes.

    No answer is waited for longer than `answer_seconds`. The options are those of the driver.

    Raises:
        ConfigurationError: it is no URL of Redis.
    """
    with readable_redis_url(redis_url):
        client = redis.Redis.from_url(
            redis_url, **connection_options(redis_url, answer_seconds=answer_seconds), **options
        )
        # Connects to nothing, and says no to options that there are not.
        client.connection_pool.make_connection()
    client.set_response_callback("XREAD", lambda response, **_options: response)
    return client
