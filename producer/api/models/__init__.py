"""The bodies of requests, responses and events."""
