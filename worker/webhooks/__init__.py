"""Webhooks: what the outbox points at becomes events, and events reach the endpoints that want them."""
