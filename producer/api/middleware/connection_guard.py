"""uvicorn's protocol with limits before its parser: it has none, and takes heads of any size for any time.

What a limit stops is answered, if it can be, with the one error body, and its connection ends. A connection is read no
faster than its requests are answered, and in pieces, so that none holds up the others for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ..errors import Problem, error_body
from .connection_limits import ConnectionLimits
from .request_log import REQUEST_ID_HEADER, new_request_id
from .response_headers import SAFE_HEADERS

#: Header lines that one request may have, those after its body among them.
MAX_HEADERS = 100
#: Bytes that the target of a request may have.
MAX_URL_BYTES = 8_192
#: How long a connection without a request stays open after one was answered, in seconds. Longer than the usual proxy
#: keeps its own idle.
KEEP_ALIVE_SECONDS = 75
#: How much of a body is still taken after its request was answered without it, in bytes. More ends the connection.
MAX_SURPLUS_BYTES = 4_194_304
#: How long a client may take to read the last answer before its connection ends, in seconds.
LINGER_SECONDS = 2.0
#: Bytes that the parser gets at once: in chunks of one byte they take it some milliseconds.
PIECE_BYTES = 16_384


class _HeldFlow(FlowControl):
    """Flow control that reads nothing on while what was read is not parsed yet, but has more of it parsed instead."""

    def __init__(self, transport: asyncio.Transport, parse_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._parse_on = parse_on
        self.is_held = False

    def resume_reading(self) -> None:
        if self.is_held:
            self._parse_on()
        else:
            super().resume_reading()


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Its limits are those of `limits`, which knows all of them."""

    _flow: _HeldFlow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self.counted_as: str = ""
        #: What was read and waits until requests before it are answered, or until their bodies are asked for.
        self._unparsed: memoryview | bytes = b""
        self._is_parsing_soon = False
        #: Bytes of a head, or of whatever else is no body, since the parser last got on.
        self._overhead_bytes = 0
        self._surplus_bytes = 0
        self._header_count = 0
        #: Why the request that is being parsed is refused.
        self._refusal: Problem | None = None
        #: Whether what comes is parsed. What comes after a request to speak another protocol means nothing here.
        self._is_parsing = True
        #: The connection is over for us; when this time has come it is cut off.
        self._ends_at: float | None = None
        self._waiting_since = self._heard_at = self._write_paused_at = self.loop.time()
        #: Since when a head is incomplete.
        self._head_since: float | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._flow = _HeldFlow(transport, self._parse_soon)
        self.flow: FlowControl = self._flow
        self.counted_as = self._limits.counted_as(self.client[0] if self.client else None)
        if not self._limits.enter(self, self.loop):
            self._ends_at = 0.0
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.leave(self)
        self._unparsed = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._ends_at is not None:
            # What was refused goes on for a while; without being read it would cut off the answer.
            self._take_surplus(len(data))
            return
        self._heard_at = self.loop.time()
        if not self._is_parsing or self._is_body_unwanted:
            self._take_surplus(len(data))
        if self._unparsed:
            # Reading had been stopped, and this had been read before.
            self._unparsed = bytes(self._unparsed) + data
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        self._write_paused_at = self.loop.time()
        super().pause_writing()

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._header_count = 0
        self._head_since = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse_in_parser(
                HTTPStatus.REQUEST_URI_TOO_LONG, "url", f"The URL may have {MAX_URL_BYTES} bytes and has more."
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > MAX_HEADERS:
            message = f"A request may have {MAX_HEADERS} headers and has more."
            self._refuse_in_parser(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers", message)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._overhead_bytes = self._surplus_bytes = 0
        self._head_since = None
        self._limits.waits_no_more(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead_bytes = 0
        super().on_message_complete()

    # Called by the answer.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._ends_at is not None:
            return
        self._parse_soon()
        if self._is_answering:
            return
        self._waiting_since = self.loop.time()
        self._limits.waits(self)
        if self._is_body_unwanted and any(name == b"transfer-encoding" for name, _ in self.cycle.scope["headers"]):
            # Where a body in chunks ends is known only to who parses it all.
            self._end_after(self._limits.head.head_seconds)

    # Called by the limits.

    def make_room(self) -> None:
        """End now: another connection needs the slot."""
        self._ends_at = 0.0
        self.transport.abort()

    def check(self, now: float) -> None:
        """End if the client has taken too long over what it is to do now."""
        head = self._limits.head
        if self._ends_at is not None or self.transport.is_closing():
            # Closing waits until all is sent: for ever, where nobody reads.
            self._ends_at = now + LINGER_SECONDS if self._ends_at is None else self._ends_at
            if now >= self._ends_at:
                self.transport.abort()
        elif self.flow.write_paused:
            if now - max(self._write_paused_at, self._heard_at) > head.answer_seconds:
                self._limits.note_refused("unread_answer")
                self.transport.abort()
        elif not self._is_answering:
            self._check_waiting(now, head.head_seconds)

    def _check_waiting(self, now: float, head_seconds: float) -> None:
        if self._head_since is not None:
            if now - self._head_since > head_seconds:
                message = f"The head of a request may take {head_seconds:g} s and took longer; send it again."
                self._refuse(Problem("too_slow", message), "slow_head")
            return
        is_idle = self._latest is not None and not self._latest.more_body
        if now - self._waiting_since > (KEEP_ALIVE_SECONDS if is_idle else head_seconds):
            self._limits.note_refused("slow_body" if self._is_body_unwanted else "idle")
            self._ends_at = now + LINGER_SECONDS
            self.transport.close()

    @property
    def _latest(self) -> RequestResponseCycle | None:
        """The latest request whose head has come."""
        return self.cycle

    @property
    def _is_body_unwanted(self) -> bool:
        """Whether the request was answered without all of its body."""
        latest = self._latest
        return latest is not None and latest.response_complete and latest.more_body

    @property
    def _is_answering(self) -> bool:
        latest = self._latest
        return latest is not None and (bool(self.pipeline) or not latest.response_complete)

    @property
    def _is_body_waiting(self) -> bool:
        """Whether some of a body has come that nobody has asked for yet."""
        latest = self._latest
        return latest is not None and bool(latest.body) and not latest.response_complete

    def _parse_soon(self) -> None:
        if self._unparsed and not self.pipeline and not self._is_parsing_soon:
            self._is_parsing_soon = True
            self.loop.call_soon(self._parse_on)

    def _parse_on(self) -> None:
        self._is_parsing_soon = False
        data, self._unparsed = self._unparsed, b""
        if self._ends_at is None and not self.transport.is_closing():
            self._parse(data)

    def _parse(self, data: memoryview | bytes) -> None:
        """Parse a piece, and the rest of what was read once others had their turn, or once it can be answered."""
        if not self._is_parsing:
            return
        size = 0
        if not self.pipeline and not self._is_body_waiting:
            size = min(PIECE_BYTES, self._limits.head.head_bytes - self._overhead_bytes)
        if len(data) <= size:
            if self._feed(data) and self._flow.is_held:
                self._let_read()
            return
        view = memoryview(data)
        if size and not self._feed(view[:size]):
            return
        self._unparsed = view[size:]
        self._flow.pause_reading()
        self._flow.is_held = True
        if not self._is_body_waiting:
            self._parse_soon()

    def _let_read(self) -> None:
        self._flow.is_held = False
        # As uvicorn has it: what is waited for longer is read on by whoever takes it.
        if not self.pipeline and (self._latest is None or len(self._latest.body) <= HIGH_WATER_LIMIT):
            self._flow.resume_reading()

    def _feed(self, piece: memoryview | bytes) -> bool:
        """Give the piece to the parser; False: the connection ends."""
        self._overhead_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # The request is answered as if it had not asked for another protocol; what follows may be of that one.
            self._is_parsing = self.cycle.keep_alive = False
        except httptools.HttpParserError:
            problem = self._refusal or Problem("validation_error", "This is no HTTP request that can be read.")
            self._refuse(problem, None if self._refusal else "malformed")
        else:
            if self._overhead_bytes < self._limits.head.head_bytes:
                return True
            message = f"The head of a request may have {self._limits.head.head_bytes} bytes and has more."
            self._refuse(_problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message), "head_bytes")
        return False

    def _take_surplus(self, size: int) -> None:
        self._surplus_bytes += size
        if self._surplus_bytes > MAX_SURPLUS_BYTES:
            self._ends_at = 0.0
            self.transport.abort()

    def _refuse_in_parser(self, status: HTTPStatus, reason: str, message: str) -> None:
        """Stop the parser. It answers every error in its own words; `_feed` answers this one."""
        self._refusal = _problem(status, message)
        self._limits.note_refused(reason)
        raise ValueError(message)

    def _refuse(self, problem: Problem, reason: str | None) -> None:
        """Answer with the problem, unless an answer is under way, and end the connection once that can be read."""
        if reason is not None:
            self._limits.note_refused(reason)
        if self._is_answering:
            self._ends_at = self.loop.time() + LINGER_SECONDS
            self.transport.close()
            return
        self.transport.write(_answer_of(problem))
        self._end_after(LINGER_SECONDS)

    def _end_after(self, seconds: float) -> None:
        """Send no more, and take for so long what the client sends: its connection would be cut off before it reads."""
        self._ends_at = self.loop.time() + seconds
        self._surplus_bytes = 0
        self._unparsed = b""
        self._limits.waits_no_more(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._flow.is_held = False
        self._flow.resume_reading()


def _problem(status: HTTPStatus, message: str) -> Problem:
    problem = Problem("too_large", message)
    problem.status = status
    return problem


def _answer_of(problem: Problem) -> bytes:
    """Return the whole answer to what is no request, as bytes."""
    request_id = new_request_id()
    body = msgspec.json.encode(error_body(problem, request_id))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (REQUEST_ID_HEADER, request_id.encode()),
        *SAFE_HEADERS,
    ]
    status = HTTPStatus(problem.status)
    head = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode()), *(b"%b: %b" % pair for pair in headers)]
    return b"\r\n".join([*head, b"", body])
