"""Puts commands on the lanes and gets their results back. Reads Postgres, never writes the ledger."""
