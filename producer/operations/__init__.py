"""What operators do and watch: lanes, proofs, dead letters, stores, keys, webhooks, scheduled commands."""
