"""Where an endpoint may be, as far as its URL tells. Names are judged when they are resolved, before each delivery."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from ...schemas.errors import InvalidCommand
from ...schemas.networks import Address, NetworkRules, bare_address, is_number, is_public

_LOCALHOST = IPv4Address("127.0.0.1")


def refuse_target(url: str, networks: NetworkRules) -> None:
    """Let a URL of the right form pass, if news may go there.

    Raises:
        InvalidCommand: it is http and not into a network that the operator allows, or its host is an address, or
            localhost, that is denied, or neither public nor in such a network.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _no_host() from None
    address = _address_of(parts.hostname or "")
    if address is not None and networks.allows(address):
        return
    if parts.scheme.lower() != "https":
        raise InvalidCommand(
            "url: must be https; http is only for addresses in networks that the operator allows", field="url"
        )
    if address is not None and (networks.denies(address) or not is_public(bare_address(address))):
        raise InvalidCommand(
            "url: must not lead into a network that is not public, unless the operator allows that network", field="url"
        )


def _address_of(host: str) -> Address | None:
    """Return the address that the host is by itself; None for a name."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return _LOCALHOST
    if ":" not in name and not is_number(name):
        return None
    try:
        return ip_address(name)
    except ValueError:
        # Each other form of a number is read differently by somebody.
        raise _no_host() from None


def _no_host() -> InvalidCommand:
    return InvalidCommand("url: the host must be a name, four decimal numbers, or IPv6 in brackets", field="url")
