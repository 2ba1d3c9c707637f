"""As little of HTTP/1.1 as a load generator needs: on a small machine it shares the cores with what it measures."""

from __future__ import annotations

import re
import socket
import time
from typing import NamedTuple

from .plan import BenchmarkFailed

#: How long an answer may take, in seconds: longer than the API waits for a result.
TIMEOUT_SECONDS = 60.0
#: Bytes that are read at once.
READ_BYTES = 262_144
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class Answer(NamedTuple):
    """What a request was answered with."""

    status: int
    body: bytes


class Address(NamedTuple):
    """Where the API is, and the key to it."""

    host: str
    port: int
    key: str

    def get(self, path: str) -> bytes:
        """Return the bytes of a request that reads."""
        return f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\nx-api-key: {self.key}\r\n\r\n".encode()

    def post(self, path: str, body: bytes) -> bytes:
        """Return the bytes of a request with a JSON body."""
        return self.head(path, "application/json", f"content-length: {len(body)}") + body

    def head(self, path: str, media_type: str, framing: str) -> bytes:
        """Return the head of a request with a body; `framing` is the header that says where it ends."""
        lines = (
            f"POST {path} HTTP/1.1",
            f"host: {self.host}",
            f"x-api-key: {self.key}",
            f"content-type: {media_type}",
            framing,
        )
        return "\r\n".join((*lines, "", "")).encode()


class Connection:
    """One keep-alive connection. Takes answers whose length is announced, as all but streamed ones are."""

    def __init__(self, address: Address) -> None:
        self.socket: socket.socket = socket.create_connection((address.host, address.port), TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: When the last request was sent and the last answer was complete, by `time.perf_counter`.
        self.sent_at: float = 0.0
        self.answered_at: float = 0.0
        self._received = b""

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer."""
        self.send(request)
        while (answer := self.receive()) is None:
            continue
        return answer

    def receive(self) -> Answer | None:
        """Read what has come, and return the answer that it completes."""
        received = self.socket.recv(READ_BYTES)
        if not received:
            raise ConnectionError("the API closed the connection")
        self._received += received
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return None
        length = _LENGTH.search(self._received, 0, head_end)
        if length is None:
            raise BenchmarkFailed(f"an answer has no length: {self._received[:200]!r}")
        body_start = head_end + len(_HEAD_END)
        body_end = body_start + int(length[1])
        if len(self._received) < body_end:
            return None
        self.answered_at = time.perf_counter()
        answer = Answer(status_of(self._received), self._received[body_start:body_end])
        self._received = self._received[body_end:]
        return answer

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def status_of(head: bytes) -> int:
    """Return the status in the first line of an answer."""
    return int(head[9:12])
