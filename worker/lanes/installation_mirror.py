"""What Redis has for producers of the installation, kept as it is in Postgres.

Producers find the lane of an account by the number of partitions, and many ask Redis only. Whatever else stands there,
by hand or by another installation of the same prefix, would lead those that start next to lanes of other accounts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import msgspec
import redis
import structlog

from ...lanes.keys import Keys
from ...schemas.installation import Installation
from .redis_session import is_of_wrong_type, is_out_of_memory

#: How often it is checked, in seconds.
CHECK_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Mirror:
    """The mirror as one worker sees to it. Every method raises redis.RedisError where Redis cannot be used now."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        installation: Installation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._key = keys.installation
        self._value = msgspec.json.encode(installation)
        self._clock = clock
        self._checked_at = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether it is time to check it."""
        return self._clock() - self._checked_at >= CHECK_SECONDS

    def put_right(self) -> None:
        """Have it say what it should, or nothing where Redis is full."""
        self._checked_at = self._clock()
        found = self._found()
        if found == self._value:
            return
        if found is not None:
            _log.error(
                "producers could read a wrong number of partitions, start those again that did",
                key=self._key,
                found=found[: 2 * len(self._value)].decode(errors="backslashreplace"),
                right=self._value.decode(),
            )
        try:
            self._client.set(self._key, self._value)
        except redis.ResponseError as error:
            if not is_out_of_memory(error):
                raise
            # Producers that find none ask Postgres; a wrong one would lead them to wrong lanes.
            self._client.delete(self._key)

    def _found(self) -> bytes | None:
        try:
            return self._client.get(self._key)  # type: ignore[return-value]  # not a list of answers
        except redis.ResponseError as error:
            if not is_of_wrong_type(error):
                raise
            return b"no text"
