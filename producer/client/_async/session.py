"""What belongs to one client in one event loop of one process: connections, a producer id, a listener."""

from __future__ import annotations

import asyncio
import os
from asyncio import Future

from ....lanes.deadlines import seconds_until
from ....lanes.keys import Keys
from ....schemas.errors import Unavailable
from ....schemas.installation import Installation, check_partitions
from ....schemas.journal import Announcement
from ....schemas.settings import Settings
from ..clocks import Clocks
from ..identity import Numbers, new_producer_id
from ..pending_replies import ReplyDesk
from ..redis_exchange import mirror_call, mirrored_installation, refusal_in, refuse_errors, write_check_calls
from ..redis_memory import RedisMemory
from ..repeats import Repeats
from ..reply_stream import ReplyStream
from .ledger_reader import AsyncLedgerReader
from .listener import AsyncListener
from .redis_connection import AsyncRedisWire
from .sender import AsyncSender
from .waiting import AsyncWaiting


class AsyncSession:
    """The parts of an asyncio client, put together. Connects to nothing by itself."""

    def __init__(self, settings: Settings, *, share_of_free: int = 0) -> None:
        self.process_id = os.getpid()
        self.loop = asyncio.get_running_loop()
        self.producer_id = new_producer_id()
        self.keys = Keys(settings.redis_prefix)
        self.numbers = Numbers()
        clocks = Clocks()
        self.repeats = Repeats(clocks)
        self.wire = AsyncRedisWire(settings.require_redis_url())
        self.reader = AsyncLedgerReader(settings, clocks)
        desk: ReplyDesk[Future[Announcement]] = ReplyDesk(self.loop.create_future)
        self.listener = AsyncListener(self.wire, ReplyStream(self.keys.replies(self.producer_id)), desk)
        self._memory: RedisMemory | None = None
        if share_of_free:
            wire = AsyncRedisWire(settings.require_redis_url())
            self._memory = RedisMemory(wire, self.keys, lambda: self._partitions, share_of_free=share_of_free)
        self.sender = AsyncSender(
            self.wire,
            settings,
            self.producer_id,
            self.numbers,
            clocks,
            share_of_free=share_of_free,
            memory=self._memory,
        )
        self.waiting = AsyncWaiting(
            self.wire, self.reader, desk, self.listener, self.keys, self.repeats, self.partitions
        )
        self._settings = settings
        self._partitions: int | None = None

    def is_current(self) -> bool:
        """Whether this is the process and the event loop that the session was made in."""
        return self.process_id == os.getpid() and self.loop is asyncio.get_running_loop()

    async def partitions(self, deadline: float) -> int:
        """Return the number of partitions, as fixed for this installation; asked for once, by the deadline.

        Raises:
            PartitionMismatch: the settings say another number.
            NotMigrated: Postgres has no ledger yet.
            Unavailable: Redis, or Postgres where Redis does not know, cannot be reached.
        """
        if self._partitions is None:
            self._partitions = (await self._installation(deadline)).partitions
        return self._partitions

    async def write_problem(self, deadline: float) -> str | None:
        """Return why Redis takes no writes now, or None if it does: a full one and a replica answer a PING too.

        Raises:
            Unavailable: it cannot be reached.
        """
        try:
            refuse_errors(await self.wire.exchange(write_check_calls(self.keys), deadline=deadline))
        except Unavailable as error:
            return refusal_in(error)
        return None

    async def close(self) -> None:
        """End the listener and close every connection."""
        await self.listener.stop()
        if self._memory is not None:
            await self._memory.close()
        await self.wire.close()
        await self.reader.close()

    async def _installation(self, deadline: float) -> Installation:
        calls = [("GET", self.keys.installation)]
        installation = mirrored_installation(await self.wire.exchange(calls, deadline=deadline))
        if installation is None:
            installation = await self.reader.installation(seconds_until(deadline))
            await self.wire.exchange([mirror_call(self.keys.installation, installation)], deadline=deadline)
        return check_partitions(installation, self._settings.partitions)
