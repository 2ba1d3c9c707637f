"""Takes commands off the lanes and applies them: leases, the loop, the pure ledger, the store, the announcements."""
