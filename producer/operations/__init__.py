"""What operators do and look after: lanes, books, dead letters, stores, keys, webhooks, scheduled commands."""
