"""The embedded servers of the local stack: one face for both."""

from .postgres_server import EmbeddedPostgres
from .redis_server import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis"]
