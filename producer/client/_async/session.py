"""What belongs to one client in one event loop of one process: connections, a producer id, a listener.

Nothing of it survives a fork.
"""

from __future__ import annotations

from ....lanes.deadlines import seconds_until
from ....lanes.keys import Keys
from ....schemas.installation import Installation, check_partitions
from ....schemas.journal import Announcement
from ....schemas.results import Result
from ....schemas.settings import Settings
from ....schemas.tickets import Ticket
from ..chunks import Chunk
from ..clocks import Clocks
from ..identity import CommandNumbers, new_producer_id
from ..pending_replies import PendingReplies
from ..redis_exchange import mirror_call, mirrored_installation
from ..replays import Replays
from ..reply_stream import ReplyStream
from .concurrency import Future, new_future
from .ledger_reader import AsyncLedgerReader
from .listener import AsyncListener
from .redis_connection import AsyncRedisWire
from .sender import AsyncSender
from .waiting import AsyncWaiting


class AsyncSession:
    """The parts of the asyncio client, put together. Connects to nothing by itself."""

    def __init__(self, settings: Settings) -> None:
        self.producer_id: str = new_producer_id()
        self.keys: Keys = Keys(settings.redis_prefix)
        self.numbers: CommandNumbers = CommandNumbers()
        self.clocks: Clocks = Clocks()
        self.replays: Replays = Replays(self.clocks)
        self.wire: AsyncRedisWire = AsyncRedisWire(settings.require_redis_url())
        self.reader: AsyncLedgerReader = AsyncLedgerReader(settings, self.clocks)
        pending: PendingReplies[Future[Announcement]] = PendingReplies(new_future)
        self.listener: AsyncListener = AsyncListener(
            self.wire, ReplyStream(self.keys.replies(self.producer_id)), pending
        )
        self.sender: AsyncSender = AsyncSender(self.wire, settings, self.producer_id, self.numbers, self.clocks)
        self.waiting: AsyncWaiting = AsyncWaiting(
            self.wire, self.reader, pending, self.listener, self.keys, self.replays, self.partitions
        )
        self.settings: Settings = settings
        self._partitions: int | None = None

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

    async def send(self, chunk: Chunk, number: int, deadline: float, *, keep: bool) -> Ticket:
        """Put a chunk of one command on its lane by the deadline, under a number of its own, and return its ticket.

        Raises:
            LaneFull, Unavailable, OutcomeUnknown: as the sender does.
        """
        enqueue = await self.sender.send(chunk, number, keep=keep, deadline=deadline)
        ticket = enqueue.ticket(chunk.store_id, self.producer_id)
        self.replays.note(ticket)
        return ticket

    async def send_and_wait(
        self, chunk: Chunk, timeout: float, *, send_by: float, wait_until: float
    ) -> tuple[Ticket, Result]:
        """Put a chunk of one command on its lane and return its ticket and what became of it.

        Raises:
            LaneFull, Unavailable: it was not accepted by then.
            OutcomeUnknown: it is accepted and has no result by then, which is `timeout` seconds to the caller; or
                whether it was accepted is not known.
        """
        number = self.numbers.take()
        # Before it is sent: the announcement may be quicker than the answer to what was sent.
        future = self.waiting.expect(number)
        try:
            ticket = await self.send(chunk, number, send_by, keep=False)
        except BaseException:
            self.waiting.forget(number, future)
            raise
        return ticket, await self.waiting.wait_own(ticket, future, wait_until, timeout)

    async def close(self) -> None:
        """End the listener and close every connection."""
        await self.listener.stop()
        await self.wire.close()
        await self.reader.close()

    async def _installation(self, deadline: float) -> Installation:
        calls = [("GET", self.keys.installation)]
        installation = mirrored_installation(await self.wire.exchange(calls, deadline=deadline))
        if installation is None:
            installation = await self.reader.installation(seconds_until(deadline))
            await self.wire.exchange([mirror_call(self.keys.installation, installation)], deadline=deadline)
        return check_partitions(installation, self.settings.partitions)
