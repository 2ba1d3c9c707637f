"""What belongs to one client in one process: connections, a producer id, a listener. Nothing of it survives a fork."""

from __future__ import annotations

import os
from concurrent.futures import Future

from ....lanes.deadlines import seconds_until
from ....lanes.keys import Keys
from ....schemas.installation import Installation, check_partitions
from ....schemas.journal import Announcement
from ....schemas.settings import Settings
from ..clocks import Clocks
from ..identity import Numbers, new_producer_id
from ..pending_replies import ReplyDesk
from ..redis_exchange import mirror_call, mirrored_installation
from ..repeats import Repeats
from ..reply_stream import ReplyStream
from .ledger_reader import LedgerReader
from .listener import Listener
from .redis_connection import RedisWire
from .sender import Sender
from .waiting import Waiting


class Session:
    """The parts of a blocking client, put together. Connects to nothing by itself."""

    def __init__(self, settings: Settings) -> None:
        self.process_id = os.getpid()
        self.producer_id = new_producer_id()
        self.keys = Keys(settings.redis_prefix)
        self.numbers = Numbers()
        clocks = Clocks()
        self.repeats = Repeats(clocks)
        self.wire = RedisWire(settings.require_redis_url())
        self.reader = LedgerReader(settings, clocks)
        desk: ReplyDesk[Future[Announcement]] = ReplyDesk(Future)
        self.listener = Listener(self.wire, ReplyStream(self.keys.replies(self.producer_id)), desk)
        self.sender = Sender(self.wire, settings, self.producer_id, self.numbers, clocks)
        self.waiting = Waiting(self.wire, self.reader, desk, self.listener, self.keys, self.repeats, self.partitions)
        self._settings = settings
        self._partitions: int | None = None

    def partitions(self, deadline: float) -> int:
        """Return the number of partitions, as fixed for this installation; asked for once, by the deadline.

        Raises:
            PartitionMismatch: the settings say another number.
            NotMigrated: Postgres has no ledger yet.
            Unavailable: Redis, or Postgres where Redis does not know, cannot be reached.
        """
        if self._partitions is None:
            self._partitions = self._installation(deadline).partitions
        return self._partitions

    def close(self) -> None:
        """End the listener and close every connection."""
        self.listener.stop()
        self.wire.close()
        self.reader.close()

    def _installation(self, deadline: float) -> Installation:
        calls = [("GET", self.keys.installation)]
        installation = mirrored_installation(self.wire.exchange(calls, deadline=deadline))
        if installation is None:
            installation = self.reader.installation(seconds_until(deadline))
            self.wire.exchange([mirror_call(self.keys.installation, installation)], deadline=deadline)
        return check_partitions(installation, self._settings.partitions)
