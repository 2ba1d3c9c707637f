"""Where webhooks may go. A receiver's URL comes from a stranger, who must not reach the operator's own network by it.

What is judged is what is connected to: an attempt asks again for the address of every socket, so no name can change its
mind in between. What may be reached, and what form a URL has, stands with `networks` and `urls`.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from yarl import URL

from ...schemas.errors import TargetRefused
from ...schemas.networks import Address, NetworkRules, address_of_host
from ...schemas.urls import URL_FORM, is_target_url


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
            address = ip_address(text)
        except ValueError as error:
            raise TargetRefused(f"{text} is no address: {error}") from None
        self._judge(address, is_https=is_https)

    def judge_url(self, text: str) -> URL:
        """Return the URL to connect to, whose host is a name that has yet to be resolved, or an address that may pass.

        Raises:
            TargetRefused: it has not the form of a webhook's URL, or its host is an address that is refused.
        """
        if not is_target_url(text):
            raise TargetRefused(f"the URL {URL_FORM}")
        try:
            url = URL(text)
            address = address_of_host(url.raw_host or "")
        except ValueError as error:
            raise TargetRefused(f"this is no URL: {error}") from None
        if address is not None:
            self._judge(address, is_https=url.scheme == "https")
        return url

    def _judge(self, address: Address, *, is_https: bool) -> None:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise TargetRefused(f"{address} is an address of one interface only")
        if refusal := self._rules.refusal_of(address, is_https=is_https):
            raise TargetRefused(refusal.format(address))
