"""Coalesced reads: whatever is asked for while one is under way is read together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import structlog

from ...lanes.deadlines import seconds_until
from ...lanes.postgres.errors import error_text
from ...schemas.errors import Unavailable
from ..background_tasks import begin_in_background
from .read_deadline import UNREAD

_AskedT = TypeVar("_AskedT")
_FoundT = TypeVar("_FoundT")

_log = structlog.get_logger(__name__)


class CoalescedReads(Generic[_AskedT, _FoundT]):
    """One read is under way at a time. Requests that come meanwhile share the next one.

    So none is answered with what was read before it came, and a burst takes one connection and one round trip.
    """

    def __init__(self) -> None:
        self._asked: dict[_AskedT, asyncio.Future[tuple[_FoundT | None] | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(
        self, asked: _AskedT, read: Callable[[list[_AskedT]], Awaitable[Mapping[_AskedT, _FoundT]]], until: float
    ) -> _FoundT | None:
        """Return what is found, by the `read` of whoever asked first; `until` is on the clock of `time.monotonic`.

        Raises:
            Unavailable: it cannot be read, or not by then.
        """
        answer = self._asked.get(asked)
        if answer is None:
            answer = self._asked[asked] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = begin_in_background(self._serve(read))
        # Other requests may wait for the same answer: this one's end is not theirs. The read before may take its time.
        await asyncio.wait((answer,), timeout=seconds_until(until))
        if not answer.done() or (found := answer.result()) is None:
            raise Unavailable(UNREAD)
        return found[0]

    async def _serve(self, read: Callable[[list[_AskedT]], Awaitable[Mapping[_AskedT, _FoundT]]]) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            found: Mapping[_AskedT, _FoundT] | None = None
            try:
                found = await read(list(asked))
            except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever
                _log.warning("a read failed", error=error_text(error))
            for key, answer in asked.items():
                answer.set_result(None if found is None else (found.get(key),))
