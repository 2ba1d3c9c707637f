"""How commands print: tables and progress bars for a person at a terminal, plain aligned lines for a pipe."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..lanes.log_stream import LogStream
from ..schemas.control_characters import visible

if TYPE_CHECKING:
    from pydantic import BaseModel

#: A cell: numbers are aligned to the right, None is shown as a dash.
Cell = str | int | float | None


def print_line(text: str) -> None:
    """Print one line on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def announce(text: str) -> None:
    """Print one line for whoever watches; nothing depends on it, so it is lost where it cannot be written."""
    LogStream(sys.stdout).write(f"{text}\n")


def print_json(report: BaseModel) -> None:
    """Print the report as one JSON object, for a program."""
    print_line(report.model_dump_json(indent=2, ensure_ascii=not _shows_everything(sys.stdout.encoding)))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str | None = None) -> None:
    """Print a table; nothing but the cells are aligned where nobody watches."""
    numeric = [_is_numeric([row[column] for row in rows]) for column in range(len(columns))]
    if not sys.stdout.isatty():
        _print_plain(columns, rows, numeric)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    for column, is_number in zip(columns, numeric, strict=True):
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell, grouped=True)) for cell in row))
    Console().print(table)


@contextmanager
def progress_bar(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Give what takes (done, total) and moves a bar, if a person watches standard error."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _shows_everything(encoding: str | None) -> bool:
    """Return whether every character can be written; where not, JSON has escapes of its own, for programs to read."""
    return encoding is not None and codecs.lookup(encoding).name == "utf-8"


def _is_numeric(cells: Sequence[Cell]) -> bool:
    return any(cell is not None for cell in cells) and not any(isinstance(cell, str) for cell in cells)


def _shown(cell: Cell, *, grouped: bool) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return visible(cell)
    if isinstance(cell, float):
        return f"{cell:,.3f}" if grouped else f"{cell:.3f}"
    return f"{cell:,}" if grouped else str(cell)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[Cell]], numeric: Sequence[bool]) -> None:
    lines = [list(columns), *([_shown(cell, grouped=False) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        print_line(
            "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in cells).rstrip()
        )
