"""Where an endpoint may be, as far as its URL shows. Names are judged when they are resolved, before each delivery."""

from __future__ import annotations

from urllib.parse import urlsplit

from ...schemas.errors import InvalidCommand
from ...schemas.networks import NetworkRules, address_of_host


def refuse_target(url: str, networks: NetworkRules) -> None:
    """Let a URL of the right form pass, if webhooks may go there.

    Raises:
        InvalidCommand: it is http and not into a network that the operator allows, or its host is an address, or
            localhost, that is denied, or neither public nor in such a network.
    """
    try:
        parts = urlsplit(url)
        address = address_of_host(parts.hostname or "")
    except ValueError:
        raise InvalidCommand(
            "url: the host must be a name, four decimal numbers, or IPv6 in brackets", field="url"
        ) from None
    is_https = parts.scheme.lower() == "https"
    if is_https if address is None else networks.refusal_of(address, is_https=is_https) is None:
        return
    if not is_https:
        raise InvalidCommand(
            "url: must be https; http is only for addresses in networks that the operator allows", field="url"
        )
    raise InvalidCommand(
        "url: must not lead into a network that is not public, unless the operator allows that network", field="url"
    )
