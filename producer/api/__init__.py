"""The HTTP API: what a store does with its accounts, spoken to by any language. Needs the extra `api`."""
