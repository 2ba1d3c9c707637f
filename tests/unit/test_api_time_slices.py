"""Long work of one request lets the others in, again and again."""

import asyncio
import time

import pytest

from creditlane.producer.api.time_slices import SLICE_SECONDS, TimeSlices

from .moved_clock import MovedClock


def test_others_have_their_turn_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given work of ten steps, each more than half a slice long, then another task runs after every second step."""
    clock = MovedClock()
    monkeypatch.setattr(time, "perf_counter", clock)
    seen: list[str] = []

    async def other() -> None:
        while True:
            seen.append("other")
            await asyncio.sleep(0)

    async def work() -> None:
        slices = TimeSlices()
        for _ in range(10):
            seen.append("step")
            clock.now += SLICE_SECONDS * 0.6
            await slices.give_way()

    async def both() -> None:
        beside = asyncio.create_task(other())
        await work()
        beside.cancel()

    asyncio.run(both())

    assert "".join(name[0] for name in seen) == "ssossossossosso"
