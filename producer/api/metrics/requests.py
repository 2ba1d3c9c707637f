"""Counts requests. Every app has a registry of its own, so that several can live in one process."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Upper bounds of the buckets for the time of a request, in seconds. Waiting for a result ends after 10.
SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics:
    """What one API process has counted since it started."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "creditlane_http_requests",
            "Requests answered, by operation and status; status none: the client left before there was an answer.",
            ["operation", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "creditlane_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["operation"],
            buckets=SECONDS_BOUNDS,
            registry=self._registry,
        )
        self._refused_keys = Counter(
            "creditlane_http_refused_keys",
            "Requests refused because their key was missing, or none that works (wrong).",
            ["reason"],
            registry=self._registry,
        )
        self._refused_connections = Counter(
            "creditlane_http_refused_connections",
            "Connections ended before a request of theirs came whole, or for want of room, by the limit they met.",
            ["limit"],
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "creditlane_http_requests_in_flight", "Requests that are being answered now.", registry=self._registry
        )

    def in_flight(self) -> AbstractContextManager[object]:
        """Count a request as being answered while the context lasts."""
        return self._in_flight.track_inprogress()

    def note(self, operation: str, status: int | None, seconds: float) -> None:
        """Count a request that is done with."""
        self._requests.labels(operation, "none" if status is None else str(status)).inc()
        self._seconds.labels(operation).observe(seconds)

    def note_refused_key(self, reason: str) -> None:
        """Count a request without a key that works: `missing` or `wrong`."""
        self._refused_keys.labels(reason).inc()

    def note_refused_connection(self, limit: str) -> None:
        """Count a connection that was ended because of this limit."""
        self._refused_connections.labels(limit).inc()

    def exposition(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self._registry)
