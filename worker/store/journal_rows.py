"""Journal rows as the text that COPY reads, in the order of `schemas.journal_columns`; a test holds it to that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...schemas.journal import JournalRow
from ...schemas.journal_columns import COPIED_RARELY
from ...schemas.results import moment_of

#: Characters that mean something to COPY's text format, and how they are written.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"
_NO_REST = f"\t{_NULL}" * len(COPIED_RARELY)


class Lines(NamedTuple):
    """Rows as COPY reads them, without the ends of the lines."""

    texts: list[str]
    #: They end after the columns of `sql.COPY_ENTRIES`, for nearly every row has nothing in the others.
    are_short: bool


def lines_of(rows: Sequence[JournalRow]) -> Lines:
    r"""Return the rows as lines of text for COPY, `\N` for null, in the order of `sql.COPY_JOURNAL`.

    The lines are sorted, and each begins with its position in the primary key: two transactions that touch the same
    accounts take their index entries in the same order, so neither can wait for the other in a circle.
    """
    moments: dict[int, str] = {}
    lines: list[str] = []
    rests: dict[int, str] = {}
    for row in rows:
        at_us, key, reference = row.created_at_us, row.idempotency_key, row.reference
        moment = moments.get(at_us)
        if moment is None:
            moment = moments[at_us] = moment_of(at_us).isoformat()
        # isprintable() is one pass in C and false for tab, line feed and carriage return; the backslash is the rest.
        if not key.isprintable() or "\\" in key:
            key = key.translate(_ESCAPES)
        if reference is None:
            reference = _NULL
        elif not reference.isprintable() or "\\" in reference:
            reference = reference.translate(_ESCAPES)
        if row.seq < 0 or row.content is not None or row.transaction_seq or row.reversal_of or row.held_after:
            rests[len(lines)] = _rest_of(row)
        lines.append(
            f"{row.store_id}\t{row.account_id[4:]}\t{row.seq}\t{row.kind}\t{row.side}\t{row.amount or _NULL}\t"
            f"{row.balance_after}\t{row.overdraft_limit or _NULL}\t{key or _NULL}\t{reference}\t{moment}"
        )
    if rests:
        lines = [line + rests.get(index, _NO_REST) for index, line in enumerate(lines)]
    lines.sort()
    return Lines(lines, are_short=not rests)


def _rest_of(row: JournalRow) -> str:
    """Return the columns of a row that most rows have nothing in."""
    content, before = row.content, row.entries_before
    return (
        f"\t{row.reversal_of or _NULL}\t{row.rejection or _NULL}\t"
        f"{_NULL if content is None else content.translate(_ESCAPES)}\t"
        f"{row.transaction_account[4:] if row.transaction_account else _NULL}\t{row.transaction_seq or _NULL}\t"
        f"{_NULL if before is None else before}\t{row.held_after or _NULL}"
    )


def copy_text(lines: Sequence[str]) -> bytes:
    """Return lines as COPY reads them."""
    return "\n".join([*lines, ""]).encode()
