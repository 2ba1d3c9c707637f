"""How many requests a second each store may make of all API processes together.

Most requests are counted here alone: a store may make a twentieth of its rate of each process without anybody's being
asked, so that who asks little costs nothing and reads go on without Redis. Beyond that a process takes a twentieth of a
second's requests at once off a bucket in Redis, which all processes share. A refusal is remembered until its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ....lanes.deadlines import deadline_in
from ....lanes.keys import Keys
from ....schemas.errors import CreditlaneError, RateLimited
from ....schemas.settings import Settings
from ...client._async.redis_connection import AsyncRedisWire
from ...client.redis_exchange import refuse_errors
from .store_locks import StoreLocks
from .token_buckets import TokenBuckets

#: What a process may let a store have unasked, and what it takes at once, as a share of the store's rate.
SHARE = 20
#: How long what was taken may be used, in seconds.
LEASE_SECONDS = 1.0
#: How long Redis may take to say whether there is some left, in seconds; how long it is not asked if it does not.
ANSWER_SECONDS, SILENT_SECONDS = 0.5, 2.0

#: The generic cell rate algorithm: a bucket is one moment, of when it is full again.
#: KEYS[1]   of the store
#: ARGV[1]   requests a second
#: ARGV[2]   requests at once
#: ARGV[3]   requests that are wanted
#: Returns how long they have to wait, in microseconds; 0 if they are taken.
TAKE_SCRIPT = """
local per_second, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + wanted * 1000000 / per_second
local wait = full - now - burst * 1000000 / per_second
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return 0
"""


class _Lease(NamedTuple):
    left: int
    until: float


class RateLimits:
    """Counts the requests of stores in one process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = Keys(settings.redis_prefix)
        self._clock = clock
        self._per_second, self._burst = settings.api_requests_per_second, settings.api_burst
        self._at_once = max(1, min(int(self._per_second / SHARE), self._burst))
        self._unasked = TokenBuckets(self._per_second / SHARE, self._burst // SHARE, clock)
        #: What counts while Redis cannot be asked.
        self._alone = TokenBuckets(self._per_second, self._burst, clock)
        self._leases: dict[str, _Lease] = {}
        self._refused_until: dict[str, float] = {}
        self._asking = StoreLocks()
        self._silent_until = 0.0

    async def take(self, store_id: str, wire: AsyncRedisWire) -> None:
        """Let the store make one request more.

        Raises:
            RateLimited: it makes too many; nothing was done.
        """
        if self._has_left(store_id) or self._unasked.try_take(store_id) == 0:
            return
        async with self._asking.held(store_id):
            if not self._has_left(store_id):
                await self._lease(store_id, wire)

    def _has_left(self, store_id: str) -> bool:
        """Use one of those that were taken for the store, if there is one."""
        lease, now = self._leases.get(store_id), self._clock()
        if lease is not None:
            if lease.left and now < lease.until:
                self._leases[store_id] = lease._replace(left=lease.left - 1)
                return True
            del self._leases[store_id]
        return False

    async def _lease(self, store_id: str, wire: AsyncRedisWire) -> None:
        now = self._clock()
        wait = self._refused_until.get(store_id, now) - now
        if wait <= 0:
            self._refused_until.pop(store_id, None)
            wait = await self._ask(store_id, wire)
        if wait > 0:
            raise self._refusal(wait)

    async def _ask(self, store_id: str, wire: AsyncRedisWire) -> float:
        """Take some off the bucket in Redis; return how long there are none, in seconds."""
        if self._clock() >= self._silent_until:
            with suppress(CreditlaneError):
                wait = await self._shared_wait(store_id, wire)
                if wait > 0:
                    self._refused_until[store_id] = self._clock() + wait
                else:
                    self._leases[store_id] = _Lease(self._at_once - 1, self._clock() + LEASE_SECONDS)
                return wait
            self._silent_until = self._clock() + SILENT_SECONDS
        return self._alone.try_take(store_id)

    async def _shared_wait(self, store_id: str, wire: AsyncRedisWire) -> float:
        call = ("EVAL", TAKE_SCRIPT, 1, self._keys.rate(store_id), f"{self._per_second!r}", self._burst, self._at_once)
        answers = await wire.exchange([call], deadline=deadline_in(ANSWER_SECONDS))
        refuse_errors(answers)
        return int(answers[0]) / 1_000_000

    def _refusal(self, wait: float) -> RateLimited:
        return RateLimited(
            f"The store may make {self._per_second:g} requests a second, {self._burst} at once "
            "(CREDITLANE_API_REQUESTS_PER_SECOND, CREDITLANE_API_BURST), of all its keys together; nothing was "
            "accepted, send the same again after the time in Retry-After, or many commands in one batch.",
            retry_after=math.ceil(wait),
        )
