"""Who the processes are in Redis, and what each may do there."""
