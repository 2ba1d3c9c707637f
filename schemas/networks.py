"""Which addresses webhooks may reach: public ones by https, and what an operator allows; never what one denies.

Judged when an endpoint is made, as far as its URL shows, and again for every address that is connected to. Pure:
nothing is resolved here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .errors import ConfigurationError
from .settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: What an operator can allow by a word.
NETWORKS_BY_NAME: dict[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}

#: IPv4 that is not public, or not what it seems: IANA's special-purpose registry, multicast, and the address at which
#: machines of one large cloud reach its control plane.
_NOT_PUBLIC_V4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
#: All of public IPv6; what is special in it: IETF protocols with Teredo among them, documentation.
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = [IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20")]

#: The last part of a host by which it is a number: 127.1, 0x7f000001, 2130706433.
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)

_LOCALHOST = IPv4Address("127.0.0.1")
_NAT64 = IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = IPv6Network("::/96")


_TO_ALLOW = "An operator can allow a network with CREDITLANE_WEBHOOK_ALLOWED_NETWORKS."


class Refusal(StrEnum):
    """Why an address is not reached, as the operator reads it once the address is put in."""

    DENIED = "{} is denied by CREDITLANE_WEBHOOK_DENIED_NETWORKS"
    NOT_PUBLIC = "{} is not a public address. " + _TO_ALLOW
    NOT_HTTPS = "http to {} is refused; use https. " + _TO_ALLOW


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """What an operator says of networks. What is denied is refused, whatever else is said of it."""

    allowed: tuple[Network, ...] = ()
    denied: tuple[Network, ...] = ()

    def refusal_of(self, address: Address, *, is_https: bool) -> Refusal | None:
        """Return why this address, or the one that it leads to, is not reached; None: it may be."""
        bare = bare_address(address)
        if _is_among(address, self.denied) or _is_among(bare, self.denied):
            return Refusal.DENIED
        if _is_among(bare, self.allowed):
            return None
        if not _is_public(bare):
            return Refusal.NOT_PUBLIC
        return None if is_https else Refusal.NOT_HTTPS


def network_rules(settings: Settings) -> NetworkRules:
    """Return what the settings say of networks.

    Raises:
        ConfigurationError: a part is neither a network nor `loopback` nor `private`.
    """
    return NetworkRules(
        parse_networks(settings.webhook_allowed_networks),
        parse_networks(settings.webhook_denied_networks, setting="CREDITLANE_WEBHOOK_DENIED_NETWORKS"),
    )


def parse_networks(text: str, *, setting: str = "CREDITLANE_WEBHOOK_ALLOWED_NETWORKS") -> tuple[Network, ...]:
    """Return the networks that the setting names.

    Raises:
        ConfigurationError: a part is neither a network nor `loopback` nor `private`.
    """
    networks: list[Network] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        try:
            networks += [ip_network(each) for each in NETWORKS_BY_NAME.get(part, (part,))]
        except ValueError as error:
            raise ConfigurationError(
                f"{setting}: {error}; give networks as 10.1.0.0/16, `loopback` or `private`"
            ) from None
    return tuple(networks)


def address_of_host(host: str) -> Address | None:
    """Return the address that the host of a URL is by itself, without brackets; None for a name, which is resolved.

    Raises:
        ValueError: it is a number in another form than four decimal numbers or IPv6; `inet_aton` and browsers, among
            others, each read those as another address.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return _LOCALHOST
    if ":" not in name and _NUMBER.fullmatch(name.rpartition(".")[2]) is None:
        return None
    return ip_address(name)


def bare_address(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to: mapped, compatible, translated (NAT64), or 6to4."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return inner
    # ::1 and :: are themselves; every other of ::/96 is an old way to write IPv4.
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_among(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    """Return whether anybody on the internet could reach this address, and nothing special is there."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
