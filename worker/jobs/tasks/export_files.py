"""The files of an export: made under another name, cut to what was secured when resumed, renamed when all is there.

The folder may be others', too: no link is followed, nothing is written into what somebody else has put there, and what
gets its name in the end is what was written.
"""

from __future__ import annotations

import csv
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from ....schemas.errors import ConfigurationError
from ....schemas.export_request import SPREADSHEET_SUFFIX
from .spreadsheet_formulas import without_formula

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
        ConfigurationError: another process writes them, what is there is not ours, or a package is not installed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + PARTIAL_SUFFIX)
    descriptor = _open_directory(partial) if form == "parquet" else _open_file(partial)
    try:
        _lock(descriptor, partial)
        parts = descriptor, partial, output
        yield ParquetFiles(*parts) if form == "parquet" else CsvFile(*parts)
    finally:
        os.close(descriptor)


def _open_file(path: Path) -> int:
    """Open the file, or make it; never what a link leads to, or what another user may have made."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _checked(path, flags, stat.S_ISREG)


def _open_directory(path: Path) -> int:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    return _checked(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, stat.S_ISDIR)


def _checked(path: Path, flags: int, is_of_kind: Callable[[int], bool]) -> int:
    """Open what is there, if it is what an export of ours has left."""
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise ConfigurationError(f"{path} is there and cannot be used ({error.strerror}); remove it.") from None
    status = os.fstat(descriptor)
    is_ours = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # A second name of a file is as good as a link.
    is_only_name = stat.S_ISDIR(status.st_mode) or status.st_nlink == 1
    if is_ours and is_only_name and is_of_kind(status.st_mode):
        return descriptor
    os.close(descriptor)
    raise ConfigurationError(f"{path} is there and was not made by an export of this user; remove it.")


def _give_name(descriptor: int, partial: Path, output: Path) -> None:
    """Give what was written its name, and make sure that it is this and nothing else that has it."""
    partial.replace(output)
    if not os.path.samestat(output.lstat(), os.fstat(descriptor)):
        raise ConfigurationError(f"{output} is not what was written: somebody else writes into its folder.")
    _secure_directory(output.parent)


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
        self._is_for_spreadsheets = output.name.endswith(SPREADSHEET_SUFFIX)

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
        if self._is_for_spreadsheets:
            rows = [_without_formulas(row) for row in rows]
        self._write([(*row[:-1], f"{row.created_at:%Y-%m-%dT%H:%M:%S.%fZ}") for row in rows])

    def secure(self) -> int:
        """Bring everything to the disk and return the length of the file."""
        os.fsync(self._descriptor)
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def finish(self) -> None:
        """Give the file its name."""
        _give_name(self._descriptor, self._partial, self._output)

    def _write(self, lines: Sequence[Sequence[str | None]]) -> None:
        text = StringIO(newline="")
        plain = csv.writer(text, lineterminator="\n")
        # Before Python 3.13 a lone carriage return is not quoted, and ends the row for who reads it.
        quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for line in lines:
            (quoted if any("\r" in (cell or "") for cell in line) else plain).writerow(line)
        data = memoryview(text.getvalue().encode())
        while data:
            data = data[os.write(self._descriptor, data) :]


def _without_formulas(row: Row) -> Row:
    """Return the row with a ' before each text that a spreadsheet would run. Numbers stay, also those below zero."""
    return row._replace(
        customer_id=without_formula(row.customer_id),
        name=without_formula(row.name),
        unit_label=without_formula(row.unit_label),
        reference=without_formula(row.reference),
    )


class ParquetFiles:
    """A directory of Parquet files, one for the rows between two positions that were noted."""

    def __init__(self, descriptor: int, partial: Path, output: Path) -> None:
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
        #: Of the directory; its parts are made in it, whatever becomes of its name.
        self._descriptor = descriptor
        self._partial = partial
        self._output = output
        self._parts = 0
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def resume(self, size: int) -> bool:
        """Remove the parts that are not among the first `size`; False if there are less."""
        kept = {_part(number) for number in range(1, size + 1)}
        found = set(os.listdir(self._descriptor))  # noqa: PTH208  # a path cannot be of a descriptor
        if not kept <= found:
            return False
        for name in found - kept:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode)
            (shutil.rmtree if is_directory else os.unlink)(name, dir_fd=self._descriptor)
        self._parts = size
        return True

    def write(self, rows: Sequence[Row]) -> None:
        """Append the rows, as one group, to the part under way."""
        if self._writer is None:
            self._file = self._new_part(self._parts + 1)
            self._writer = self._new_writer(self._file, self._schema, compression="zstd")
        cells = list(zip(*rows, strict=True)) or [()] * len(self._schema)
        columns = [self._pyarrow.array(column, field.type) for column, field in zip(cells, self._schema, strict=True)]
        self._writer.write_batch(self._pyarrow.record_batch(columns, schema=self._schema))

    def secure(self) -> int:
        """End the part under way, bring it to the disk and return the number of parts."""
        if self._writer is not None and self._file is not None:
            self._writer.close()
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
            self._writer = self._file = None
            self._parts += 1
            os.fsync(self._descriptor)
        return self._parts

    def finish(self) -> None:
        """Give the directory its name; an export without rows has one part without rows."""
        if self._parts == 0:
            self.write([])
            self.secure()
        _give_name(self._descriptor, self._partial, self._output)

    def _new_part(self, number: int) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(_part(number), flags, 0o600, dir_fd=self._descriptor), "wb")


def _part(number: int) -> str:
    return f"part-{number:06d}.parquet"


def _secure_directory(path: Path) -> None:
    """Bring a directory's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
