"""A read of the ledger as a value: what to ask and what to make of the answers, whichever kind of I/O asks it.

A reading is a generator. It yields what it wants to know next, is sent the rows, and returns what it has made of them;
so clients of both kinds and the API read the ledger by the same steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from .statement import Rows

_T = TypeVar("_T")


class Query(NamedTuple):
    """A statement that only reads. Whoever asks it adds of which store."""

    statement: str
    values: Mapping[str, Any]


class Pause(NamedTuple):
    """To be waited before the next step."""

    seconds: float


Reading = Generator[Query | Pause, Rows, _T]


def perform(reading: Reading[_T], ask: Callable[[Query], Rows]) -> _T:
    """Return what the reading makes of the rows that are asked for it. Raises what it raises, and what `ask` does."""
    try:
        step = next(reading)
        while True:
            rows: Rows = []
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                rows = ask(step)
            step = reading.send(rows)
    except StopIteration as done:
        return cast("_T", done.value)


async def perform_async(reading: Reading[_T], ask: Callable[[Query], Awaitable[Rows]]) -> _T:
    """Do as `perform` does, in an event loop."""
    try:
        step = next(reading)
        while True:
            rows: Rows = []
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                rows = await ask(step)
            step = reading.send(rows)
    except StopIteration as done:
        return cast("_T", done.value)
