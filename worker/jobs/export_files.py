"""The files of an export: made under another name, cut to what was secured when resumed, renamed when all is there."""

from __future__ import annotations

import csv
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...schemas.errors import ConfigurationError

#: What unfinished files are called.
PARTIAL_SUFFIX = ".partial"


class Row(NamedTuple):
    """One entry, as it is exported."""

    entry_id: str
    account_id: str
    customer_id: str
    name: str
    unit_label: str
    transaction_id: str
    side: str
    #: Digits: amounts have any number of them.
    amount: str
    balance_after: str
    reference: str
    created_at: datetime


class Files(Protocol):
    """The files of one export, open for writing by one process."""

    def resume(self, size: int) -> bool:
        """Cut off what was written after this size was secured; False if there is less than that."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append the rows."""

    def secure(self) -> int:
        """Bring everything to the disk and return the size from which to resume."""

    def finish(self) -> None:
        """Give the files their name; everything is secured."""


@contextmanager
def open_files(form: str, output: Path) -> Iterator[Files]:
    """Give the files for this output, of which one process at a time has the use.

    Raises:
        ConfigurationError: another process writes them, or the format needs a package that is not installed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + PARTIAL_SUFFIX)
    if form == "parquet":
        partial.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY if form == "parquet" else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, partial)
        files = ParquetFiles(partial, output) if form == "parquet" else CsvFile(descriptor, partial, output)
        yield files
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    """Hold the file; a killed process lets go of it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(f"Another process writes {path}; wait for it.") from None


class CsvFile:
    """One CSV file with a header, in UTF-8, lines ended by a newline."""

    def __init__(self, descriptor: int, partial: Path, output: Path) -> None:
        self._descriptor = descriptor
        self._partial = partial
        self._output = output

    def resume(self, size: int) -> bool:
        """Cut off what was written after this size was secured; False if there is less than that."""
        if os.fstat(self._descriptor).st_size < size:
            return False
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        if size == 0:
            self._write([Row._fields])
        return True

    def write(self, rows: Sequence[Row]) -> None:
        """Append the rows."""
        self._write([(*row[:-1], f"{row.created_at:%Y-%m-%dT%H:%M:%S.%fZ}") for row in rows])

    def secure(self) -> int:
        """Bring everything to the disk and return the length of the file."""
        os.fsync(self._descriptor)
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def finish(self) -> None:
        """Give the file its name."""
        self._partial.replace(self._output)
        _secure_directory(self._output.parent)

    def _write(self, lines: Sequence[Sequence[str]]) -> None:
        text = StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(lines)
        data = memoryview(text.getvalue().encode())
        while data:
            data = data[os.write(self._descriptor, data) :]


class ParquetFiles:
    """A directory of Parquet files, one for the rows between two places that were noted."""

    def __init__(self, partial: Path, output: Path) -> None:
        try:
            import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
            from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped]
        except ImportError:
            raise ConfigurationError("Parquet needs `pip install 'creditlane[parquet]'`; CSV does not.") from None
        self._pyarrow: Any = pa
        self._new_writer: Any = ParquetWriter
        self._schema = pa.schema(
            [pa.field(name, pa.string()) for name in Row._fields[:-1]]
            + [pa.field("created_at", pa.timestamp("us", tz="UTC"))]
        )
        self._partial = partial
        self._output = output
        self._parts = 0
        self._writer: Any = None

    def resume(self, size: int) -> bool:
        """Remove the parts that are not among the first `size`; False if there are less."""
        kept = {self._part(number).name for number in range(1, size + 1)}
        found = {path.name for path in self._partial.iterdir()}
        if not kept <= found:
            return False
        for name in found - kept:
            path = self._partial / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._parts = size
        return True

    def write(self, rows: Sequence[Row]) -> None:
        """Append the rows, as one group, to the part under way."""
        if self._writer is None:
            path = self._part(self._parts + 1)
            self._writer = self._new_writer(path, self._schema, compression="zstd")
        cells = list(zip(*rows, strict=True)) or [()] * len(self._schema)
        columns = [self._pyarrow.array(column, field.type) for column, field in zip(cells, self._schema, strict=True)]
        self._writer.write_batch(self._pyarrow.record_batch(columns, schema=self._schema))

    def secure(self) -> int:
        """End the part under way, bring it to the disk and return the number of parts."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._parts += 1
            with self._part(self._parts).open("rb") as file:
                os.fsync(file.fileno())
            _secure_directory(self._partial)
        return self._parts

    def finish(self) -> None:
        """Give the directory its name; an export without rows has one part without rows."""
        if self._parts == 0:
            self.write([])
            self.secure()
        self._partial.replace(self._output)
        _secure_directory(self._output.parent)

    def _part(self, number: int) -> Path:
        return self._partial / f"part-{number:06d}.parquet"


def _secure_directory(path: Path) -> None:
    """Bring a directory's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
