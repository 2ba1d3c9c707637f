"""Listens to a producer's reply stream in a task of its own, for the asyncio client."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future

import msgspec

from ....lanes.backoff import growing_pauses
from ....schemas.errors import CreditlaneError
from ....schemas.journal import Announcement
from ...background_tasks import begin_in_background
from ..pending_replies import ReplyDesk
from ..redis_exchange import CLOSE_SECONDS, ExchangeFailed
from ..reply_stream import RECONNECT_PAUSES, ReplyStream
from .redis_connection import AsyncRedisWire

#: How long `stop` waits for the task, in seconds.
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


class AsyncListener:
    """Feeds a desk with what is announced. Starts at the first wait, at the beginning of its own stream."""

    def __init__(self, wire: AsyncRedisWire, stream: ReplyStream, desk: ReplyDesk[Future[Announcement]]) -> None:
        self._wire = wire
        self._stream = stream
        self._desk = desk
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self) -> None:
        """Listen from now on, unless that was begun before."""
        if self._task is None:
            self._task = begin_in_background(self._run(), "creditlane-replies")

    async def stop(self) -> None:
        """End the task and remove the stream, as far as Redis can be reached; in a few seconds at the most."""
        if self._task is None:
            return
        # A cancellation that comes together with a time-out is lost in some library below; the flag is not.
        self._is_stopping = True
        self._task.cancel()
        # What loses the cancellation may go on for as long as its next read.
        await asyncio.wait((self._task,), timeout=STOP_SECONDS)
        try:
            await self._wire.exchange_once([self._stream.delete_call()], time.monotonic() + CLOSE_SECONDS)
        except ExchangeFailed as error:
            log.debug("reply stream %s is left to expire: %s", self._stream.key, error)

    async def _run(self) -> None:
        pauses = growing_pauses(*RECONNECT_PAUSES)
        while not self._is_stopping:
            try:
                for batch in self._stream.take(await self._wire.exchange_once([self._stream.wait_call()])):
                    self._desk.deliver(batch)
            except (ExchangeFailed, CreditlaneError, msgspec.MsgspecError) as error:
                # Those who wait fall back to Postgres meanwhile; the stream is read on from the same place.
                log.warning("reply stream %s cannot be read, trying again: %s", self._stream.key, error)
                await asyncio.sleep(next(pauses))
            else:
                pauses = growing_pauses(*RECONNECT_PAUSES)
