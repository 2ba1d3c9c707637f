"""Tasks that outlive whoever starts them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

_T = TypeVar("_T")


def begin_in_background(work: Coroutine[Any, Any, _T], name: str | None = None) -> asyncio.Task[_T]:
    """Begin a task that knows nothing of the one that starts it: what it logs later is not that request's."""
    return asyncio.get_running_loop().create_task(work, name=name, context=Context())
