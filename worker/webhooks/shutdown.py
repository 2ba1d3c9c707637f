"""Whether this process is to end. Imports nothing, so that whoever catches signals can say so without the rest."""

from __future__ import annotations

import threading

_stopping = threading.Event()


def stop_soon() -> None:
    """Let the round of this process end as soon as the requests under way have; later ones end at once."""
    _stopping.set()


def is_stopping() -> bool:
    """Return whether `stop_soon` was called."""
    return _stopping.is_set()
