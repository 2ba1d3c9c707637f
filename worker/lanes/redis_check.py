"""What a process asks of Redis at its start: can it have the lanes, and what is to be said about it in the log."""

from __future__ import annotations

import redis
import structlog

from ...schemas import server_requirements

_log = structlog.get_logger(__name__)


def check_redis(client: redis.Redis) -> None:
    """Log what to warn of.

    Raises:
        ConfigurationError: it cannot have the lanes.
        redis.RedisError: it cannot be reached.
    """
    try:
        info = client.info()
    except redis.ResponseError:
        # Not every server lets everybody ask, and one that is starting answers nothing yet.
        return
    for problem in server_requirements.check_redis(info):
        _log.warning("commands can be lost or refused", redis=problem)
