"""Puts commands on the lanes and gets their results back. Reads Postgres, never writes the ledger.

The clients are imported when they are first asked for: most of what is in here needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client._async.client import AsyncClient
    from .client._sync.client import Client

__all__ = ["AsyncClient", "Client"]


if not TYPE_CHECKING:  # or every name would be one

    def __getattr__(name: str) -> object:
        if name == "Client":
            from .client._sync.client import Client

            return Client
        if name == "AsyncClient":
            from .client._async.client import AsyncClient

            return AsyncClient
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
