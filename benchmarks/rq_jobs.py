"""The road not taken: an RQ job a command, through the same pure ledger and the same store, one at a time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..lanes.keys import COMMAND_FIELD
from ..schemas.settings import load_settings
from ..worker.connections import connect_postgres
from ..worker.lanes.entries import Batch, parse_entry
from ..worker.store.applier import Applier
from ..worker.store.transaction import LedgerStore


def apply_command(encoded: str) -> dict[str, Any]:
    """Decide and store one command in a transaction of its own; RQ publishes what is returned."""
    entry = parse_entry(0, b"0-0", [COMMAND_FIELD, encoded.encode()])
    # No leases: RQ's queue has no epoch that could be compared.
    (outcome,) = connect().apply(Batch([entry], {}))
    row = outcome.row
    if row is None:
        return {"status": "refused"}
    return {
        "status": "rejected" if row.rejection else "applied",
        "transaction_id": row.transaction_id,
        "balance": str(row.balance_after),
        "replayed": outcome.replayed,
    }


@lru_cache(maxsize=1)
def connect() -> Applier:
    """Return what this process applies with, connected to Postgres at the first call."""
    return Applier(LedgerStore(connect_postgres(load_settings().require_database_url()), "rq"))
