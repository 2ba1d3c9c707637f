"""Bytes on their way to a client that may read slower than they come, or only when it has sent everything."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict, deque
from types import TracebackType
from typing import IO, Self

#: Bytes that are held in memory; what is more goes to a file that only this process can see.
MAX_MEMORY_BYTES = 1_048_576
#: Bytes that are read back from the file at once.
READ_BYTES = 65_536


class SpoolSpace:
    """How many bytes stand in the spools of each store in this process, of which a store may have so many."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._used: Counter[str] = Counter()
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def add(self, store_id: str, count: int) -> None:
        """Count bytes that were put, or less than none that were taken."""
        self._used[store_id] += count
        if not self._used[store_id]:
            del self._used[store_id]
        if self._used[store_id] < self.most_bytes:
            for freed in self._waiting.pop(store_id, ()):
                freed.set()

    async def room(self, store_id: str) -> None:
        """Return as soon as the store has less than it may have."""
        while self._used[store_id] >= self.most_bytes:
            freed = asyncio.Event()
            self._waiting[store_id].add(freed)
            await freed.wait()


class Spool:
    """One writer, one reader, in order. In memory is little of it: many clients send first and read then."""

    def __init__(self, space: SpoolSpace, store_id: str) -> None:
        self._space = space
        self._store_id = store_id
        #: How many bytes nobody has taken yet.
        self.bytes: int = 0
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file: IO[bytes] | None = None
        self._written = 0
        self._read = 0
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, data: bytes) -> None:
        """Append bytes."""
        self._count(len(data))
        if self._written == self._read and self._memory_bytes + len(data) <= MAX_MEMORY_BYTES:
            self._memory.append(data)
            self._memory_bytes += len(data)
        else:
            self._put_in_file(data)
        self._changed.set()

    async def room(self, seconds: float) -> bool:
        """Wait until the store's spools have room for more; return whether they got it in this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._space.room(self._store_id)
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._changed.set()

    async def take(self) -> bytes:
        """Return what comes next, as soon as there is something; nothing at the end."""
        while True:
            if self._memory:
                data = self._memory.popleft()
                self._memory_bytes -= len(data)
                self._count(-len(data))
                return data
            if self._read < self._written:
                data = self._take_from_file()
                self._count(-len(data))
                return data
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Remove the file, and count what is left no more."""
        self._count(-self.bytes)
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _count(self, count: int) -> None:
        self.bytes += count
        self._space.add(self._store_id, count)

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
