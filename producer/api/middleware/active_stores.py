"""Which stores ask at the moment: those that asked last, of this process and of all API processes.

From two of them follows whether a store asks alone, so no more are remembered anywhere. Processes share it through
Redis, beside the requests, which wait for nothing; while Redis is away each knows of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from ....lanes.deadlines import deadline_in
from ....lanes.keys import Keys
from ....schemas.errors import CreditlaneError
from ...background_tasks import begin_in_background
from ...client._async.redis_connection import AsyncRedisWire
from ...client.redis_exchange import Call, refuse_errors

#: Stores of which it is known when they asked last.
REMEMBERED_STORES = 2
#: A store counts as one that asks for so long after it has, in seconds.
ACTIVE_SECONDS = 1.0
#: How often processes publish who asks, and how long Redis may take for it, in seconds.
PUBLISH_SECONDS, ANSWER_SECONDS = 0.5, 1.0

#: Notes who asks, and forgets who has not for some time, and all but those that asked last.
#: KEYS[1]    lines of a store and when it asked last
#: ARGV[1]    how long that counts, in milliseconds
#: ARGV[2]    how many are remembered
#: ARGV[3..]  stores that ask now
#: Returns the stores that ask.
PUBLISH_SCRIPT = """
local clock, counts = redis.call('TIME'), tonumber(ARGV[1])
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local asked_at = {}
local standing = redis.pcall('GET', KEYS[1])
if type(standing) == 'string' then
  for store, at in string.gmatch(standing, '(%S+) (%d+)') do
    if math.abs(now - tonumber(at)) < counts then asked_at[store] = tonumber(at) end
  end
end
for i = 3, #ARGV do asked_at[ARGV[i]] = now end
local stores = {}
for store in pairs(asked_at) do stores[#stores + 1] = store end
table.sort(stores, function(a, b)
  if asked_at[a] ~= asked_at[b] then return asked_at[a] > asked_at[b] end
  return a < b
end)
local lines, last = {}, math.min(#stores, tonumber(ARGV[2]))
for i = 1, last do lines[i] = stores[i] .. ' ' .. string.format('%.0f', asked_at[stores[i]]) end
if last > 0 then redis.call('SET', KEYS[1], table.concat(lines, '\\n'), 'PX', counts) end
return {unpack(stores, 1, last)}
"""


class ActiveStores:
    """The stores that ask, as one process of one event loop sees them."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        #: When the stores asked last that did so here, and those that did anywhere.
        self._here: dict[str, float] = {}
        self._anywhere: dict[str, float] = {}
        self._published_at = float("-inf")
        self._publishing: asyncio.Task[None] | None = None

    def note(self, store_id: str) -> None:
        """Note that the store asks this process."""
        self._here.pop(store_id, None)
        self._here[store_id] = self._clock()
        if len(self._here) > REMEMBERED_STORES:
            del self._here[next(iter(self._here))]

    def others_active_here(self, store_id: str) -> bool:
        """Return whether any other store has asked this process lately."""
        return self._others(self._here, store_id)

    def others_active(self, store_id: str) -> bool:
        """Return whether any other store has asked any process lately, as far as is known."""
        return self._others(self._here, store_id) or self._others(self._anywhere, store_id)

    def keep_up(self, wire: AsyncRedisWire) -> None:
        """Publish to the other processes who asks here, and read who asks there, if that was some time ago."""
        if self._publishing is None and self._clock() - self._published_at >= PUBLISH_SECONDS:
            self._publishing = begin_in_background(self._publish(wire))

    async def _publish(self, wire: AsyncRedisWire) -> None:
        since = self._clock() - PUBLISH_SECONDS - ACTIVE_SECONDS
        asking = [store for store, at in self._here.items() if at > since]
        counts = int(ACTIVE_SECONDS * 1_000)
        call: Call = ("EVAL", PUBLISH_SCRIPT, 1, self._keys.asking, counts, REMEMBERED_STORES, *asking)
        try:
            with suppress(CreditlaneError):
                answers = await wire.exchange([call], deadline=deadline_in(ANSWER_SECONDS))
                refuse_errors(answers)
                self._anywhere = dict.fromkeys((bytes(store).decode() for store in answers[0]), self._clock())
        finally:
            self._published_at, self._publishing = self._clock(), None

    def _others(self, asked_at: dict[str, float], store_id: str) -> bool:
        since = self._clock() - ACTIVE_SECONDS
        return any(store != store_id and at > since for store, at in asked_at.items())
