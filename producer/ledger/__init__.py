"""What is read of the ledger in Postgres, once, for the clients and for the API."""
