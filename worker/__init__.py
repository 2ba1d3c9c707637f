"""Takes commands off the lanes and applies them: leases, the loop, the pure ledger, the store, the announcements."""

from .process import run_worker

__all__ = ["run_worker"]
