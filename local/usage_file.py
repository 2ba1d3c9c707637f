"""Metered usage in CSV files: which forms are understood, and what each row takes from whose account."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from ..schemas.amounts import MAX_AMOUNT_DIGITS, parse_amount_or_zero
from ..schemas.commands import MAX_TEXT_CHARACTERS
from ..schemas.errors import InvalidCommand

#: The usage file that comes along.
SAMPLE = Path(__file__).with_name("sample_usage.csv")
#: How much of a file's name goes into keys and names, in characters.
MAX_STEM_CHARACTERS = 40

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")

OWN_COLUMNS = ("customer_id", "units", "reference")
TRACE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class UsageRow(NamedTuple):
    """What one row of a file takes from whom."""

    #: Counted from 0, without the header.
    number: int
    customer_id: str
    #: 0 if there is nothing to take.
    units: int
    reference: str


class _Form(NamedTuple):
    """A form of usage file."""

    columns: tuple[str, ...]
    #: How the rows are read, for people.
    rule: str
    #: Takes a row's number, its cells and the number of accounts.
    read: Callable[[int, dict[str, str], int], UsageRow]


class BadCell(Exception):
    """A cell that cannot be understood; `UsageFile` adds the line."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


class UsageFile:
    """A file of metered usage. It is read from the disk whenever its rows are asked for, never held.

    Raises:
        InvalidCommand: it is in none of the forms; `rows` raises it for a bad row, with line and column.
    """

    def __init__(self, path: Path, accounts: int) -> None:
        self.path = path
        self._accounts = accounts
        self._form = self._recognised()
        #: How its rows are read, for people.
        self.rule: str = self._form.rule.format(accounts=accounts)
        #: Names this content under this rule: the same again is a replay, anything else is not.
        self.name: str = f"{_NOT_PLAIN.sub('_', path.stem[:MAX_STEM_CHARACTERS])}-{self._digest()}"
        if self._form.columns == TRACE_COLUMNS:
            self.name += f"-{accounts}"

    def rows(self) -> Iterator[UsageRow]:
        """Yield the rows in the order of the file."""
        number = 0
        for line, cells in self._lines():
            if line == 1 or not cells:
                continue
            yield self._row(number, line, cells)
            number += 1

    def _row(self, number: int, line: int, cells: list[str]) -> UsageRow:
        columns = self._form.columns
        if len(cells) != len(columns):
            raise self._error(f"line {line}: has {len(cells)} columns, must have {len(columns)}: {', '.join(columns)}")
        try:
            return self._form.read(number, dict(zip(columns, cells, strict=True)), self._accounts)
        except BadCell as bad:
            raise self._error(f"line {line}, column {bad.column}: {bad}") from None

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        line = 0
        # Bytes that are no UTF-8 are looked for line by line: the decoder reads far ahead of the row that it fails in.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(self._in_utf_8(file), strict=True)
            try:
                for cells in reader:
                    line = reader.line_num
                    yield line, cells
            except csv.Error as error:
                raise self._error(f"line {line + 1}: begins what is no CSV in UTF-8: {error}") from None

    def _in_utf_8(self, lines: Iterable[str]) -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            try:
                line.encode()
            except UnicodeEncodeError:
                raise self._error(f"line {number}: is no CSV in UTF-8; save the file as UTF-8") from None
            yield line

    def _recognised(self) -> _Form:
        header = next((cells for _, cells in self._lines()), [])
        for form in _FORMS:
            if tuple(header) == form.columns:
                return form
        known = " or ".join(",".join(form.columns) for form in _FORMS)
        raise self._error(f"line 1: the header must be {known}")

    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def _error(self, message: str) -> InvalidCommand:
        return InvalidCommand(f"{self.path}, {message}")


def _own_row(number: int, cells: dict[str, str], _accounts: int) -> UsageRow:
    for column in ("customer_id", "reference"):
        if not 1 <= len(cells[column]) <= MAX_TEXT_CHARACTERS or "\0" in cells[column]:
            raise BadCell(column, f"must be a text of 1 to {MAX_TEXT_CHARACTERS} characters without NUL")
    return UsageRow(number, cells["customer_id"], _units(cells, "units"), cells["reference"])


def _trace_row(number: int, cells: dict[str, str], accounts: int) -> UsageRow:
    units = _units(cells, "ContextTokens") + _units(cells, "GeneratedTokens")
    return UsageRow(
        number, f"customer_{number % accounts:03d}", units, f"call at {cells['TIMESTAMP']}"[:MAX_TEXT_CHARACTERS]
    )


def _units(cells: dict[str, str], column: str) -> int:
    try:
        return parse_amount_or_zero(cells[column])
    except PydanticCustomError:
        shown = cells[column][:MAX_STEM_CHARACTERS]
        raise BadCell(column, f"must be a whole number of at most {MAX_AMOUNT_DIGITS} digits, not {shown!r}") from None


_FORMS = (
    _Form(OWN_COLUMNS, "each row takes `units` from the account of its `customer_id`", _own_row),
    _Form(
        TRACE_COLUMNS,
        "row i, counted from 0, takes ContextTokens + GeneratedTokens from the account of customer i modulo {accounts}",
        _trace_row,
    ),
)
