"""The headers of every answer that keep browsers and caches from making of it what it is not."""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]

CONTENT_SECURITY_POLICY = b"content-security-policy"
#: What an answer says unless its operation says otherwise: it is kept nowhere, is what its type says, and runs nothing.
SAFE_HEADERS: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (CONTENT_SECURITY_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]


def with_safe_headers(headers: Headers) -> Headers:
    """Return the headers with those of SAFE_HEADERS that are not among them."""
    given = {name.lower() for name, _ in headers}
    return [*headers, *(pair for pair in SAFE_HEADERS if pair[0] not in given)]
