"""The stream that logs go to. It never raises and never waits for long: a log that cannot be written must not matter.

The disk may be full, whoever read the log gone, or alive and no longer reading. Then lines are lost; what the process
is for goes on.

It is also the last door on the way to a terminal: whatever is written, a traceback or a child's line among it, has its
passwords taken out and its control characters shown as escapes.
"""

from __future__ import annotations

import io
import json
import os
import select
import sys
import threading
import time
from typing import Any, TextIO, cast

from ..schemas.control_characters import visible_lines
from ..schemas.redaction import redacted

#: How long to wait for a reader that falls behind before lines are lost, in seconds. Not again until it reads on.
WAIT_SECONDS = 0.5
#: What a pipe that is ready takes without making its writer wait, in bytes.
PIPE_BYTES = select.PIPE_BUF


class LogStream(io.TextIOBase):
    """Text to a descriptor without a buffer, of which nothing would be left to be written when the process ends.

    Lines that are lost are counted, and how many is written when one can be again.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to where this stream does; None, as of a process that was started without it, is nowhere."""
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        #: A signal's handler may log while its thread does.
        self._lock = threading.RLock()
        self._lost = 0
        self._wait_seconds = WAIT_SECONDS

    @property
    def encoding(self) -> str:  # type: ignore[override]  # what is written is text of any kind
        """The encoding of what is written."""
        return "utf-8"

    def write(self, text: str) -> int:
        """Write the text, as it may be seen, or lose it; return its length."""
        shown = visible_lines(redacted(text))
        with self._lock:
            if (self._lost and not self._put(self._lost_lines())) or not self._put(shown):
                self._lost += 1
            else:
                self._lost = 0
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""

    def isatty(self) -> bool:
        """Return whether a person may be watching."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor that is written to.

        Raises:
            OSError: there is none.
        """
        if self._descriptor is None:
            raise io.UnsupportedOperation("fileno")
        return self._descriptor

    def writable(self) -> bool:
        """It always is, in its way."""
        return True

    def _lost_lines(self) -> str:
        return json.dumps({"event": "log lines were lost", "level": "warning", "lines": self._lost}) + "\n"

    def _put(self, text: str) -> bool:
        """Write the text, and return whether that succeeded."""
        try:
            if self._descriptor is not None:
                return self._put_bytes(self._descriptor, text.encode(errors="backslashreplace"))
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):
            return False
        return True

    def _put_bytes(self, descriptor: int, data: bytes) -> bool:
        deadline = time.monotonic() + self._wait_seconds
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while data:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1_000):
                self._wait_seconds = 0.0
                return False
            data = data[os.write(descriptor, data[:PIPE_BYTES]) :]
        self._wait_seconds = WAIT_SECONDS
        return True


def adopt_standard_error() -> TextIO:
    """Let everything that this process writes to standard error go through a stream that never raises; return it."""
    stream: Any = sys.stderr
    if not isinstance(stream, LogStream):
        stream = sys.stderr = LogStream(stream)
    return cast("TextIO", stream)


def _descriptor_of(stream: TextIO | None) -> int | None:
    """Return what the stream writes to; None for one in memory."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
