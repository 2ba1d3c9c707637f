"""What one address may do without a key that works: so many requests a second, so many wrong keys a minute.

A key that works is known before any of this is asked, so nobody locks it out, whatever comes from its address. Each
process counts for itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from ipaddress import IPv6Address

from starlette.types import Scope

from ....schemas.errors import RateLimited
from ....schemas.networks import bare_address
from ....schemas.settings import Settings

#: Addresses that are remembered; more make those be forgotten that were seen first.
MAX_ADDRESSES = 10_000
#: How many seconds' worth of requests an address may make at once.
BURST_SECONDS = 2.0
#: How long a request may be held up, in seconds; what would take longer is refused.
MAX_DELAY_SECONDS = 10.0
#: What wrong keys are counted over, in seconds.
WINDOW_SECONDS = 60.0
#: Of IPv6 everybody has a network of this size at the least, and may take a new address of it for every request.
IPV6_PREFIX = 64
#: Who asks over a socket that has no address.
NO_ADDRESS = "local"


def address_of_client(scope: Scope) -> str:
    """Return what a client is counted under: its address, of IPv6 its network."""
    client = scope.get("client")
    return network_of(client[0]) if client else NO_ADDRESS


def network_of(host: str) -> str:
    """Return what this address is counted under."""
    if ":" not in host:
        return host
    try:
        address = bare_address(IPv6Address(host.partition("%")[0]))
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    return f"{IPv6Address(int(address) >> IPV6_PREFIX << IPV6_PREFIX)}/{IPV6_PREFIX}"


class AddressPace:
    """Spaces the requests of each address: who is too quick waits for its turn, at no cost to others."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_each = 1 / per_second
        self._clock = clock
        #: Until when the requests of an address have used up its rate.
        self._used_until: dict[str, float] = {}

    def delay(self, address: str) -> float:
        """Return how long to wait with the next request of this address, in seconds.

        Raises:
            RateLimited: as many are waiting as may.
        """
        now = self._clock()
        used_until = max(self._used_until.get(address, 0.0), now - BURST_SECONDS)
        delay = max(0.0, used_until - now)
        if delay > MAX_DELAY_SECONDS:
            raise RateLimited(retry_after=math.ceil(delay))
        _make_room(self._used_until, address)
        self._used_until[address] = used_until + self._seconds_each
        return delay


class WrongKeys:
    """Counts the wrong keys of each address, from the first of a minute on."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        #: When the minute of an address began, and how many came in it.
        self._counts: dict[str, tuple[float, int]] = {}

    def note(self, address: str) -> None:
        """Count a wrong key.

        Raises:
            RateLimited: there were too many within a minute.
        """
        now = self._clock()
        began, count = self._counts.get(address, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, count = now, 0
        _make_room(self._counts, address)
        self._counts[address] = (began, count + 1)
        if count >= self._per_minute:
            raise RateLimited(
                "Too many wrong keys came from this address; send one that works, or wait for the time in Retry-After.",
                retry_after=max(1.0, math.ceil(began + WINDOW_SECONDS - now)),
            )


class AddressLimits:
    """Both limits of one app: `app.state.address_limits`."""

    def __init__(self, settings: Settings) -> None:
        self.pace: AddressPace = AddressPace(settings.api_keyless_requests_per_second)
        self.wrong_keys: WrongKeys = WrongKeys(settings.api_wrong_keys_per_minute)


def _make_room(known: dict[str, float] | dict[str, tuple[float, int]], address: str) -> None:
    if address not in known and len(known) >= MAX_ADDRESSES:
        del known[next(iter(known))]
