"""What one API process takes on at most before there is a request: connections, in all and of one address.

A connection waits while no request of it is being answered. When there are too many, the one that has waited longest
makes room: whoever sends a request at once is never that one. `connection_guard` holds each single connection to its
limits; this is what they have in common.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import structlog

from ....schemas.networks import Network
from ....schemas.settings import Settings
from ..metrics.requests import RequestMetrics
from .address_limits import NO_ADDRESS, network_of

#: How often it is checked which connections have waited for too long, in seconds.
CHECK_SECONDS = 1.0
#: Descriptors that are left for all else than connections: servers, logs, files of large answers.
OTHER_DESCRIPTORS = 128
#: How often it is logged that there are too many connections, in seconds.
LOG_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class HeadLimits(NamedTuple):
    """What the head of one request may have, and how long it and other things may take, in seconds."""

    head_bytes: int
    head_seconds: float
    #: Without any progress of what is sent to a client, and nothing from it.
    answer_seconds: float


class Connection(Protocol):
    """What has to be known of a connection here."""

    #: What it is counted under.
    counted_as: str

    def make_room(self) -> None:
        """End now: another connection needs the slot."""

    def check(self, now: float) -> None:
        """End if it has taken too long, on the clock of the event loop."""


class ConnectionLimits:
    """The connections of one process. Made before the event loop runs, used by the tasks of one."""

    def __init__(
        self,
        settings: Settings,
        trusted: Sequence[Network] = (),
        metrics: RequestMetrics | None = None,
        descriptors: int | None = None,
    ) -> None:
        self.head: HeadLimits = HeadLimits(
            settings.api_head_bytes, settings.api_head_seconds, settings.api_body_seconds
        )
        self._most = min(settings.api_connections, _most_connections(descriptors))
        self._most_of_address = min(settings.api_connections_per_address, self._most)
        self._trusted = tuple(trusted)
        self._metrics = metrics
        #: All of them by what they are counted under.
        self._of_address: dict[str, set[Connection]] = {}
        #: Those that wait, longest first: of everybody, and by what they are counted under.
        self._waiting: dict[Connection, None] = {}
        self._waiting_of_address: dict[str, dict[Connection, None]] = {}
        self._count = 0
        self._checking: asyncio.TimerHandle | None = None
        self._logged_at = float("-inf")

    def counted_as(self, host: str | None) -> str:
        """Return what a connection from this host is counted under; nothing limits a trusted proxy's alone."""
        if host is None:
            return NO_ADDRESS
        if self._trusted and _is_among(host, self._trusted):
            return ""
        return network_of(host)

    def enter(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> bool:
        """Count a new connection; False: there is no room for it and none can be made."""
        address = connection.counted_as
        of_address = len(self._of_address.get(address, ()))
        # A trusted proxy brings the connections of many.
        if address and of_address >= self._most_of_address:
            if not self._make_room(self._waiting_of_address.get(address), "address_connections", address):
                return False
        elif self._count >= self._most and not self._make_room(self._waiting, "connections", address):
            return False
        self._of_address.setdefault(address, set()).add(connection)
        self._count += 1
        self.waits(connection)
        if self._checking is None:
            self._checking = loop.call_later(CHECK_SECONDS, self._check, loop)
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is gone or is being closed."""
        self.waits_no_more(connection)
        address = connection.counted_as
        others = self._of_address.get(address)
        if others is not None and connection in others:
            others.remove(connection)
            self._count -= 1
            if not others:
                del self._of_address[address]

    def waits(self, connection: Connection) -> None:
        """Note that no request of the connection is being answered, from now on."""
        self._waiting[connection] = None
        self._waiting_of_address.setdefault(connection.counted_as, {})[connection] = None

    def waits_no_more(self, connection: Connection) -> None:
        """Note that the head of a request has come on the connection, or that it ends."""
        if connection in self._waiting:
            del self._waiting[connection]
            of_address = self._waiting_of_address[connection.counted_as]
            del of_address[connection]
            if not of_address:
                del self._waiting_of_address[connection.counted_as]

    def note_refused(self, reason: str) -> None:
        """Count a connection that is ended or a request that is refused before anybody is asked about it."""
        if self._metrics is not None:
            self._metrics.note_refused_connection(reason)

    def _make_room(self, waiting: dict[Connection, None] | None, reason: str, address: str) -> bool:
        self.note_refused(reason)
        loop_time = asyncio.get_running_loop().time()
        if loop_time - self._logged_at >= LOG_SECONDS:
            self._logged_at = loop_time
            _log.warning("too many connections", limit=reason, client=address or None, connections=self._count)
        if not waiting:
            return False
        longest = next(iter(waiting))
        self.leave(longest)
        longest.make_room()
        return True

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connections in list(self._of_address.values()):
            for connection in list(connections):
                connection.check(now)
        self._checking = loop.call_later(CHECK_SECONDS, self._check, loop) if self._count else None


def _is_among(host: str, networks: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _most_connections(descriptors: int | None) -> int:
    """Return how many connections so many descriptors allow; None: as many as this process may open."""
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            return 1 << 30
    return max(1, descriptors - OTHER_DESCRIPTORS, descriptors // 2)
