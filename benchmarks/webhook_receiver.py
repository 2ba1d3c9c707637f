"""A light receiver of webhooks: writes down what it got before it answers, so that it may be killed at any time.

    python -m creditlane.benchmarks.webhook_receiver PORT LOG

The first part of a path says how it answers: /healthy/… with 200, /failing/… with 500, /hanging/… never. A line of the
log is the path, the id of the headers, and whether the body has the same.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_FAILED = b"HTTP/1.1 500 Broken\r\ncontent-length: 6\r\n\r\nbroken"
_END_OF_HEAD = b"\r\n\r\n"


class Receiving(asyncio.Protocol):
    """One connection."""

    def __init__(self, log: int) -> None:
        self._log = log
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            head = self._buffer[:end]
            begin = end + len(_END_OF_HEAD)
            length = int(_header(head, b"content-length"))
            if len(self._buffer) < begin + length:
                return
            body, self._buffer = self._buffer[begin : begin + length], self._buffer[begin + length :]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        path, identifier = head.split(b" ", 2)[1], _header(head, b"webhook-id")
        agrees = body.startswith(b'{"id":"%s"' % identifier)
        os.write(self._log, b"%s %s %d\n" % (path, identifier, agrees))
        if self._transport is not None and not path.startswith(b"/hanging/"):
            self._transport.write(_OK if path.startswith(b"/healthy/") else _FAILED)


def _header(head: bytes, name: bytes) -> bytes:
    begin = head.lower().index(b"\r\n%s:" % name) + len(name) + 3
    return head[begin:].split(b"\r\n", 1)[0].strip()


async def serve(port: int, log_path: str) -> None:
    """Take webhooks until killed."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiving(log), "127.0.0.1", port, backlog=1_024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
