"""Where webhooks may go. A receiver's URL comes from a stranger, who must not reach the operator's own network by it.

`https` to public addresses; anything else only into networks that the operator allows. What is judged is what is
connected to: `sending.py` asks again for the address of every socket, so no name can change its mind in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

from ...schemas.errors import ConfigurationError, TargetRefused
from ...schemas.events import MAX_URL_CHARACTERS

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: What an operator can allow by a word.
NETWORKS_BY_NAME = {
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

_NAT64 = IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = IPv6Network("::/96")

#: The last part of a host by which browsers and `inet_aton` take it for a number: 127.1, 0x7f000001, 2130706433.
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
#: What no URL has: spaces, controls, and the backslash, which some take for a slash.
_UNWANTED = re.compile(r"[\s\x00-\x20\x7f\\]")


def parse_networks(text: str) -> tuple[Network, ...]:
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
                f"CREDITLANE_WEBHOOK_ALLOWED_NETWORKS: {error}; give networks as 10.1.0.0/16, `loopback` or `private`"
            ) from None
    return tuple(networks)


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


def is_public(address: Address) -> bool:
    """Tell whether anybody on the internet could reach this address, and nothing special is there."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


class TargetPolicy:
    """Judges URLs and addresses by what the operator allows."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def judge_address(self, text: str, *, is_https: bool) -> None:
        """Let an address pass.

        Raises:
            TargetRefused: it is not public, or public and not reached by https; and not in an allowed network.
        """
        try:
            address = bare_address(ip_address(text))
        except ValueError as error:
            raise TargetRefused(f"{text} is no address: {error}") from None
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise TargetRefused(f"{text} is an address of one interface only")
        if any(address in network for network in self._allowed):
            return
        if not is_public(address):
            raise TargetRefused(f"{text} is not a public address. {TargetRefused().message}")
        if not is_https:
            raise TargetRefused(f"http to {text} is refused; use https. {TargetRefused().message}")

    def judge_url(self, text: str) -> URL:
        """Return the URL to connect to, whose host is a name that has yet to be resolved, or an address that may pass.

        Raises:
            TargetRefused: it is no plain http or https URL, or its host is an address that is refused.
        """
        if len(text) > MAX_URL_CHARACTERS or _UNWANTED.search(text):
            raise TargetRefused("the URL is too long, or has characters that no URL has")
        try:
            url = URL(text)
            host, port = url.raw_host, url.port
        except ValueError as error:
            raise TargetRefused(f"this is no URL: {error}") from None
        if url.scheme not in {"http", "https"} or not host or not port:
            raise TargetRefused("the URL must begin with https:// and name a host")
        authority = re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]
        if "@" in authority or "#" in text:
            raise TargetRefused("the URL must have no user, no password and no fragment")
        if ("[" in authority) != (":" in host):
            raise TargetRefused("only IPv6 addresses stand in brackets")
        self._judge_host(host, is_https=url.scheme == "https")
        return url

    def _judge_host(self, host: str, *, is_https: bool) -> None:
        if ":" in host or "%" in host:
            self.judge_address(host, is_https=is_https)
        elif not _NAME.fullmatch(host):
            raise TargetRefused(f"{host} is no host name")
        elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            # Only the usual four decimal numbers: each other form is read differently by somebody.
            self.judge_address(host, is_https=is_https)
