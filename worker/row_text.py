"""Journal rows to and from Postgres: the text that COPY reads, and the tuples that SELECT gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..schemas.identifiers import ACCOUNT_PREFIX
from ..schemas.journal import JournalRow
from ..schemas.results import moment_of

#: Characters that mean something to COPY's text format, and how they are written.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_text(rows: Sequence[JournalRow]) -> bytes:
    r"""Return the rows as one text for COPY, `\N` for null, in the order of `sql.COPY_JOURNAL`."""
    moments: dict[int, str] = {}
    lines = []
    for row in rows:
        at_us = row.created_at_us
        moment = moments.get(at_us)
        if moment is None:
            moment = moments[at_us] = moment_of(at_us).isoformat()
        lines.append(
            f"{row.store_id}\t{row.account_id[4:]}\t{row.seq}\t{row.kind}\t{row.side}\t"
            f"{_or_null(row.amount)}\t{row.balance_after}\t{row.overdraft_limit or _NULL}\t"
            f"{_escaped(row.idempotency_key)}\t{_escaped(row.reference)}\t{_or_null(row.reversal_of)}\t{moment}\t"
            f"{row.rejection or _NULL}\t{_escaped(row.content)}\n"
        )
    return "".join(lines).encode()


_NULL = "\\N"


def _or_null(number: int | None) -> int | str:
    return _NULL if number is None else number


def _escaped(text: str | None) -> str:
    if text is None:
        return _NULL
    # isprintable() is one pass in C and false for tab, line feed and carriage return; the backslash is the rest.
    return text if text.isprintable() and "\\" not in text else text.translate(_ESCAPES)


def row_of(record: Sequence[Any]) -> JournalRow:
    """Return the row that a record of `sql.LOAD_KNOWN` or `sql.LOAD_ENTRIES` stands for."""
    store_id, account_id, seq, kind, side, amount, balance, limit, *rest = record
    return JournalRow(
        store_id,
        ACCOUNT_PREFIX + account_id.hex,
        seq,
        kind,
        side,
        None if amount is None else int(amount),
        int(balance),
        int(limit),
        *rest,
    )
