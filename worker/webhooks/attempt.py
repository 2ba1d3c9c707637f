"""One attempt to deliver: the request, its bounds, and what came back.

Names are resolved here, and every address is judged before it is connected to. Nothing of a response is trusted: no
redirect is followed, no cookie kept, nothing unpacked, and no more read than is shown.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ...schemas.errors import TargetRefused
from .name_resolution import Resolving, resolving_store
from .retry_schedule import parse_retry_after
from .targets import TargetPolicy

#: How long a connection may take, its name's resolution and TLS included, in seconds.
CONNECT_SECONDS = 5.0
#: How long the body of a response may take once its status is known, in seconds.
BODY_SECONDS = 2.0
#: How long an idle connection is kept, in seconds: for less long than servers do, so that none is used as it is closed.
KEEP_ALIVE_SECONDS = 2.0
#: Most of a body that is read, in bytes; then the connection is closed.
MAX_BODY_BYTES = 16_384
#: How much of a body, or of an error's text, is kept, in characters.
KEPT_CHARACTERS = 500
#: Refused targets that one client logs, which lasts for a round, each once; and how much of its host.
MAX_LOGGED_HOSTS = 100
MAX_HOST_CHARACTERS = 255

_TLS_ERRORS = aiohttp.ClientConnectorSSLError | aiohttp.ClientConnectorCertificateError
_USER_AGENT = "creditlane-webhooks"
_OK = range(200, 300)
_REDIRECTS = range(300, 400)

_log = structlog.get_logger(__name__)

#: Takes host, port and family; gives addresses with their family.
Lookup = Callable[[str, int, int], Awaitable[list[tuple[int, str]]]]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one attempt went."""

    succeeded: bool
    latency_ms: int
    #: None: there was no response.
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None
    #: What the receiver asked for with Retry-After, in seconds.
    retry_after: float | None = None


class CheckedResolver(AbstractResolver):
    """Resolves names for one connector, and refuses a name if any of its addresses is refused."""

    def __init__(self, policy: TargetPolicy, lookup: Lookup, *, is_https: bool) -> None:
        self._policy = policy
        self._lookup = lookup
        self._is_https = is_https

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            TargetRefused: one of them is refused.
            OSError: there are none.
        """
        found = await self._lookup(host, port, family)
        for _, address in found:
            self._policy.judge_address(address, is_https=self._is_https)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=flags)
            for kind, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


class AttemptClient:
    """Sends requests. As an async context manager: its connections are closed afterwards."""

    def __init__(
        self,
        policy: TargetPolicy,
        *,
        timeout_seconds: float,
        lookup: Lookup | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._timeout_seconds = timeout_seconds
        self._lookup = lookup
        self._ssl_context = ssl_context
        self._closing = AsyncExitStack()
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        #: Hosts of refused targets that are in the log.
        self._logged_hosts: set[str] = set()

    async def __aenter__(self) -> Self:
        lookup = self._lookup or self._threaded_lookup()
        for scheme in ("https", "http"):
            session = self._session(lookup, is_https=scheme == "https")
            self._sessions[scheme] = await self._closing.enter_async_context(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def send(self, target: str, headers: dict[str, str], body: bytes, *, store_id: int = 0) -> Outcome:
        """Send a request of the store's once, and return how it went; every failure is an outcome."""
        began = time.perf_counter()
        resolving_store.set(store_id)
        try:
            url = self._policy.judge_url(target)
            return await self._post(url, headers, body, began)
        except TargetRefused as error:
            return self._refused(target, error.detail)
        except aiohttp.ClientConnectorDNSError as error:
            # Not distinguished: whoever gives a name must not learn whether the operator's servers know it.
            return self._refused(target, f"the name cannot be resolved: {error.os_error}")
        except Exception as error:  # noqa: BLE001  # a stranger's answer must not end the deliveries to all others
            return _failure(began, _reason(error, time.perf_counter() - began))

    def _refused(self, target: str, detail: str) -> Outcome:
        """Log for the operator why, and answer the target's owner always the same, which took no time."""
        host = _host_of(target)
        if host not in self._logged_hosts and len(self._logged_hosts) < MAX_LOGGED_HOSTS:
            self._logged_hosts.add(host)
            _log.warning("a webhook's target is refused", host=host, detail=detail)
        return Outcome(False, 0, error=TargetRefused().message)

    async def _post(self, url: URL, headers: dict[str, str], body: bytes, began: float) -> Outcome:
        session = self._sessions[url.scheme]
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            latency_ms = _milliseconds_since(began)
            status = response.status
            succeeded = status in _OK
            return Outcome(
                succeeded,
                latency_ms,
                status,
                await _beginning_of_body(response),
                "a redirect, which is never followed; change the URL" if status in _REDIRECTS else None,
                None if succeeded else parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC)),
            )

    def _session(self, lookup: Lookup, *, is_https: bool) -> aiohttp.ClientSession:
        def checked_socket(info: Any) -> socket.socket:
            family, kind, protocol, _, address = info
            self._policy.judge_address(str(address[0]), is_https=is_https)
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._policy, lookup, is_https=is_https),
            socket_factory=checked_socket,
            ssl=self._ssl_context or True,
            # How many there are at once is the endpoint's concurrency's business.
            limit=0,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds, connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"content-type": "application/json", "user-agent": _USER_AGENT},
            skip_auto_headers=("accept-encoding",),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=MAX_BODY_BYTES,
        )

    def _threaded_lookup(self) -> Lookup:
        # Not the loop's own threads: there are few, and a name whose servers are silent would hold up all others.
        resolving = Resolving()
        self._closing.callback(resolving.close)
        return resolving.lookup


def _reason(error: Exception, seconds: float) -> str:
    """Return why an attempt failed, as the owner of the target may read it."""
    if isinstance(error, TimeoutError):
        what = "no connection" if isinstance(error, aiohttp.ConnectionTimeoutError) else "no answer"
        return f"{what} in time ({seconds:.1f} s)"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError | ssl.CertificateError | _TLS_ERRORS):
        # Its own text has the address that the name was resolved to.
        return os.strerror(error.errno) if error.errno else "no connection"
    if not isinstance(error, aiohttp.ClientError | ValueError | OSError):
        _log.error("a delivery fails in an unknown way", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _host_of(target: str) -> str:
    """Return the host of a URL that may be none, to be logged."""
    try:
        host = urlsplit(target).hostname
    except ValueError:
        host = None
    return (host or "unreadable")[:MAX_HOST_CHARACTERS]


async def _beginning_of_body(response: aiohttp.ClientResponse) -> str | None:
    """Return what is kept of a body, as text that Postgres can hold; the status counts also if it never ends."""
    content, parts, size = response.content, [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while size < MAX_BODY_BYTES and not content.at_eof():
                part = await content.read(MAX_BODY_BYTES - size)
                parts.append(part)
                size += len(part)
    except (TimeoutError, aiohttp.ClientError):
        response.close()
    if not content.at_eof():
        # Not to be read to its end for the sake of the connection.
        response.close()
    text = b"".join(parts).decode(errors="replace")[:KEPT_CHARACTERS]
    return text.replace("\0", "\ufffd") or None


def _failure(began: float, error: str) -> Outcome:
    return Outcome(False, _milliseconds_since(began), error=error[:KEPT_CHARACTERS].replace("\0", "\ufffd"))


def _milliseconds_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1_000)
