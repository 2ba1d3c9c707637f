"""The ledger's store: one transaction a batch, and what it remembers from one to the next."""
