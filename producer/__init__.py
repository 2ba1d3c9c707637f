"""Puts commands on the lanes and gets their results back. Reads Postgres, never writes the ledger."""

from .async_client import AsyncClient
from .client import Client

__all__ = ["AsyncClient", "Client"]
