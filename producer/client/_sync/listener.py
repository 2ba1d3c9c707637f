"""Listens to a producer's reply stream in a thread of its own, for the blocking client."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future

import msgspec

from ....lanes.backoff import growing_pauses
from ....schemas.errors import CreditlaneError
from ....schemas.journal import Announcement
from ..pending_replies import ReplyDesk
from ..redis_exchange import CLOSE_SECONDS, ExchangeFailed
from ..reply_stream import RECONNECT_PAUSES, ReplyStream
from .redis_connection import RedisWire

#: How long `close` waits for the thread, in seconds; it is a daemon and never holds up the end of the process.
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


class Listener:
    """Feeds a desk with what is announced. Starts at the first wait, at the beginning of its own stream."""

    def __init__(self, wire: RedisWire, stream: ReplyStream, desk: ReplyDesk[Future[Announcement]]) -> None:
        self._wire = wire
        self._stream = stream
        self._desk = desk
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen from now on, unless that was begun before."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="creditlane-replies", daemon=True)
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        """End the thread and remove the stream, as far as Redis can be reached; in a few seconds at the most."""
        self._stopping.set()
        if self._thread is None:
            return
        try:
            self._wire.exchange_once([self._stream.nudge_call()], time.monotonic() + CLOSE_SECONDS)
            self._thread.join(STOP_SECONDS)
            self._wire.exchange_once([self._stream.delete_call()], time.monotonic() + CLOSE_SECONDS)
        except ExchangeFailed as error:
            # The stream expires by itself, and the daemon thread ends with the process.
            log.debug("reply stream %s is left to expire: %s", self._stream.key, error)

    def _run(self) -> None:
        pauses = growing_pauses(*RECONNECT_PAUSES)
        while not self._stopping.is_set():
            try:
                for batch in self._stream.take(self._wire.exchange_once([self._stream.wait_call()])):
                    self._desk.deliver(batch)
            except (ExchangeFailed, CreditlaneError, msgspec.MsgspecError) as error:
                # Those who wait fall back to Postgres meanwhile; the stream is read on from the same place.
                log.warning("reply stream %s cannot be read, trying again: %s", self._stream.key, error)
                self._stopping.wait(next(pauses))
            else:
                pauses = growing_pauses(*RECONNECT_PAUSES)
