"""Listens to a producer's reply stream in the background, for the asyncio client."""

from __future__ import annotations

import logging
import time

import msgspec

from ....lanes.backoff import growing_pauses
from ....schemas.errors import CreditlaneError
from ....schemas.journal import Announcement
from ..pending_replies import PendingReplies
from ..redis_exchange import CLOSE_SECONDS, ExchangeFailed
from ..reply_stream import RECONNECT_PAUSES, ReplyStream
from .concurrency import BackgroundTask, Future
from .redis_connection import AsyncRedisWire

#: How long `stop` waits for the listening to end, in seconds.
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


class AsyncListener:
    """Hands on what is announced. Starts at the first wait, at the beginning of its own stream."""

    def __init__(
        self, wire: AsyncRedisWire, stream: ReplyStream, pending: PendingReplies[Future[Announcement]]
    ) -> None:
        self._wire = wire
        self._stream = stream
        self._pending = pending
        self._task = BackgroundTask("creditlane-replies")

    def start(self) -> None:
        """Listen from now on, unless that was begun before."""
        self._task.begin(self._run)

    async def stop(self) -> None:
        """End the listening and remove the stream, as far as Redis can be reached; in a few seconds at the most."""
        try:
            if await self._task.stop(self._wake, STOP_SECONDS):
                await self._wire.exchange_once([self._stream.delete_call()], time.monotonic() + CLOSE_SECONDS)
        except ExchangeFailed as error:
            # The stream expires by itself.
            log.debug("reply stream %s is left to expire: %s", self._stream.key, error)

    async def _wake(self) -> None:
        await self._wire.exchange_once([self._stream.nudge_call()], time.monotonic() + CLOSE_SECONDS)

    async def _run(self) -> None:
        pauses = growing_pauses(*RECONNECT_PAUSES)
        while not self._task.is_stopping:
            try:
                for batch in self._stream.take(await self._wire.exchange_once([self._stream.wait_call()])):
                    self._pending.deliver(batch)
            except (ExchangeFailed, CreditlaneError, msgspec.MsgspecError) as error:
                # Those who wait fall back to Postgres meanwhile; the stream is read on from the same entry.
                log.warning("reply stream %s cannot be read, trying again: %s", self._stream.key, error)
                await self._task.pause(next(pauses))
            else:
                pauses = growing_pauses(*RECONNECT_PAUSES)
