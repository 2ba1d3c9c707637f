"""For the tests of those who use Creditlane: clients without servers, and a real stack for the few tests that need it.

`FakeClient` and `AsyncFakeClient` have the face of `Client` and `AsyncClient` and decide by the same rules, in memory.
The names are imported when they are first asked for, so that the pytest plugin costs nothing where it is not used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import FakeClock
    from .fake_async_client import AsyncFakeClient
    from .fake_client import FakeClient
    from .fake_ledger import FakeLedger
    from .local_stack import LocalStack

__all__ = ["AsyncFakeClient", "FakeClient", "FakeClock", "FakeLedger", "LocalStack"]

#: Where each of these names is at home.
_HOMES = {
    "AsyncFakeClient": ".fake_async_client",
    "FakeClient": ".fake_client",
    "FakeClock": ".clock",
    "FakeLedger": ".fake_ledger",
    "LocalStack": ".local_stack",
}


if not TYPE_CHECKING:  # or every name would be one

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
        globals()[name] = value
        return value
