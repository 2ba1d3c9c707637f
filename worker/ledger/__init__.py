"""The pure ledger: what commands do to accounts. No clock, no socket, no database."""
