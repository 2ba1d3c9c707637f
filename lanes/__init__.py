"""The protocol that producers and workers both speak: keys, bytes and scripts in Redis, sessions with Postgres."""
