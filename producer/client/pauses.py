"""How long to wait before trying again: growing, jittered, bounded. Knows neither what is tried nor how to sleep."""

from __future__ import annotations

import random
from collections.abc import Iterator


def growing_pauses(first_seconds: float, most_seconds: float) -> Iterator[float]:
    """Yield pauses that double up to `most_seconds`, each shortened at random by up to a half.

    The jitter keeps many producers that lost the same server from coming back to it in step.
    """
    pause = first_seconds
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        pause = min(pause * 2, most_seconds)
