"""What every request passes before its operation: the guard of connections, the log, the key, the limits."""
