"""Where webhooks may go. A receiver's URL comes from a stranger, who must not reach the operator's own network by it.

`https` to public addresses; anything else only into networks that the operator allows, and nothing into those that the
operator denies. What is judged is what is
connected to: `attempt.py` asks again for the address of every socket, so no name can change its mind in between.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from yarl import URL

from ...schemas.errors import TargetRefused
from ...schemas.events import MAX_URL_CHARACTERS
from ...schemas.networks import NetworkRules, bare_address, is_number, is_public

_TO_ALLOW = "An operator can allow a network with CREDITLANE_WEBHOOK_ALLOWED_NETWORKS."
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
#: What no URL has: spaces, controls, and the backslash, which some take for a slash.
_UNWANTED = re.compile(r"[\s\x00-\x20\x7f\\]")


class TargetPolicy:
    """Judges URLs and addresses by what the operator allows and denies."""

    def __init__(self, rules: NetworkRules | None = None) -> None:
        self._rules = rules or NetworkRules()

    def judge_address(self, text: str, *, is_https: bool) -> None:
        """Let an address pass.

        Raises:
            TargetRefused: it is denied; or it is not public, or public and not reached by https, and not allowed.
        """
        try:
            written = ip_address(text)
        except ValueError as error:
            raise TargetRefused(f"{text} is no address: {error}") from None
        if isinstance(written, IPv6Address) and written.scope_id is not None:
            raise TargetRefused(f"{text} is an address of one interface only")
        if self._rules.denies(written):
            raise TargetRefused(f"{text} is denied by CREDITLANE_WEBHOOK_DENIED_NETWORKS")
        if self._rules.allows(written):
            return
        if not is_public(bare_address(written)):
            raise TargetRefused(f"{text} is not a public address. {_TO_ALLOW}")
        if not is_https:
            raise TargetRefused(f"http to {text} is refused; use https. {_TO_ALLOW}")

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
        elif is_number(host):
            # Only the usual four decimal numbers: each other form is read differently by somebody.
            self.judge_address(host, is_https=is_https)
