"""The outermost layer: gives every request its id, logs it in one line, and counts it. Streams are not buffered.

It also gives every answer, a defect's among them, the headers that keep browsers and caches from misusing it.

No header, query or body is logged, of a key only its id, and of a ticket only a digest: it holds the idempotency key.
"""

from __future__ import annotations

import re
import time
import uuid
from hashlib import blake2b

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..metrics.requests import RequestMetrics
from .response_headers import with_safe_headers

REQUEST_ID_PREFIX = "req_"
REQUEST_ID_HEADER = b"x-request-id"
#: Paths that are asked every few seconds; only what is wrong with them is worth a line.
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
#: Parts of a path that are tickets, with their prefix or without; ids of everything else are shorter.
_TICKET = re.compile(r"cmd_[^/]*|[^/]{81,}")
#: From this status on it is the server's fault.
SERVER_ERROR = 500

_log = structlog.get_logger(__name__)


def new_request_id() -> str:
    """Return the id of a request that has just come."""
    return REQUEST_ID_PREFIX + uuid.uuid4().hex


class RequestLog:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        # The task is this request's own; what is logged in it, also by the server, has the id.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        with self._metrics.in_flight():
            try:
                await self._app(scope, receive, answer.send)
            finally:
                self._finish(scope, answer.status, time.perf_counter() - started)

    def _finish(self, scope: Scope, status: int | None, seconds: float) -> None:
        operation = operation_of(scope)
        self._metrics.note(operation, status, seconds)
        is_fault = status is not None and status >= SERVER_ERROR
        if scope["path"] in QUIET_PATHS and not is_fault:
            return
        store = scope["state"].get("store")
        (_log.error if is_fault else _log.info)(
            "request",
            method=scope["method"],
            path=logged_path(scope["path"]),
            operation=operation,
            # None: the client was gone before there was an answer.
            status=status,
            duration_ms=round(1_000 * seconds, 2),
            store=store.public_id if store else None,
            # Also of a key that does not work: its id is no secret.
            key_id=store.key_id if store else scope["state"].get("key_id"),
            client=scope["client"][0] if scope.get("client") else None,
        )


def logged_path(path: str) -> str:
    """Return a path with a digest instead of each ticket, by which lines on the same one are found."""
    return _TICKET.sub(_digest_of, path)


def _digest_of(ticket: re.Match[str]) -> str:
    return f"cmd_{blake2b(ticket[0].encode(errors='backslashreplace'), digest_size=8).hexdigest()}"


class _Answer:
    """Passes an answer on, with the request's id and the safe headers in its head, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != REQUEST_ID_HEADER]
            headers = [*with_safe_headers(headers), (REQUEST_ID_HEADER, self._request_id)]
            message = {**message, "headers": headers}
        await self._send(message)


def operation_of(scope: Scope) -> str:
    """Return the name of the operation that was asked for, `none` where the path leads to none."""
    route = scope.get("route")
    name: str | None = getattr(route, "name", None)
    return name or "none"
