"""Bytes on their way to a client that may read slower than they come, or only when it has sent everything."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from types import TracebackType
from typing import IO, Self

#: Bytes that are held in memory; what is more goes to a file that only this process can see.
MAX_MEMORY_BYTES = 1_048_576
#: Bytes that are read back from the file at once.
READ_BYTES = 65_536


class Spool:
    """One writer, one reader, in order. Bounded in memory, not on disk: many clients send first and read then."""

    def __init__(self) -> None:
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._written = 0
        self._read = 0
        self._news = asyncio.Event()
        self._ended = False

    def put(self, data: bytes) -> None:
        """Append bytes."""
        if self._written == self._read and self._memory_bytes + len(data) <= MAX_MEMORY_BYTES:
            self._memory.append(data)
            self._memory_bytes += len(data)
        else:
            self._put_in_file(data)
        self._news.set()

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._news.set()

    async def take(self) -> bytes:
        """Return what comes next, as soon as there is something; nothing at the end."""
        while True:
            if self._memory:
                data = self._memory.popleft()
                self._memory_bytes -= len(data)
                return data
            if self._read < self._written:
                return self._take_from_file()
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _put_in_file(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="creditlane-batch-")  # noqa: SIM115 - closed by `close`
        self._file.seek(self._written)
        self._file.write(data)
        self._written += len(data)

    def _take_from_file(self) -> bytes:
        if self._file is None:
            raise AssertionError("what was written was written to the file")
        self._file.seek(self._read)
        data = self._file.read(READ_BYTES)
        self._read += len(data)
        if self._read == self._written:
            # All of it is read: the room can be used again.
            self._file.seek(0)
            self._file.truncate()
            self._read = self._written = 0
        return data
