"""The columns of the table `journal`, in the one order that all of them follow who read or write its rows.

The order is that of the fields of `JournalRow`, which is the form of announcements as well and so is only ever appended
to. What SELECT gives, what reads it and what COPY is given follow from it; tests hold the table and the text of COPY to
it. A new column is appended there, gets its entry in `_AS_SELECTED` and `_READ` where it is not taken as it is, and in
`_RARE` or in the line of `journal_rows.lines_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .identifiers import ACCOUNT_PREFIX
from .journal import JournalRow

_MICROSECONDS = "_us"


def columns_of(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the column of each field; a time is read in microseconds, which its field's name says."""
    return tuple(name.removesuffix(_MICROSECONDS) for name in fields)


COLUMNS = columns_of(JournalRow.__struct_fields__)

#: Columns in which nearly every row has nothing: plain credits and debits that were applied.
_RARE = frozenset(
    {"reversal_of", "rejection", "content", "transaction_account", "transaction_seq", "entries_before", "held_after"}
)
#: What every row has, as `journal_rows.lines_of` writes it; and what follows where some row has anything in it.
COPIED_ALWAYS = tuple(name for name in COLUMNS if name not in _RARE)
COPIED_RARELY = tuple(name for name in COLUMNS if name in _RARE)

#: How a column is selected that is not taken as it is. Amounts as digits, which an exact integer is made of at once.
_AS_SELECTED = {
    "amount": "{}::text",
    "balance_after": "{}::text",
    "overdraft_limit": "coalesce({}, 0)::text",
    "created_at": "(extract(epoch from {}) * 1000000)::bigint",
    "content": "{}::text",
    "held_after": "coalesce({}, 0)::text",
}


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


def _account(value: Any) -> str | None:
    return None if value is None else f"{ACCOUNT_PREFIX}{value.hex}"


def _text(value: str | None) -> str:
    return value or ""


#: What is made of a column that is not taken as it is selected.
_READ: dict[str, Callable[[Any], Any]] = {
    "account_id": _account,
    "amount": _whole,
    "balance_after": int,
    "overdraft_limit": int,
    "idempotency_key": _text,
    "transaction_account": _account,
    "held_after": int,
}
_READ_AT = tuple((COLUMNS.index(name), read) for name, read in _READ.items())


def select_list(table: str = "journal", columns: Sequence[str] = COLUMNS, **elsewhere: str) -> str:
    """Return what to select of the table of this name, so that `row_of` reads it, or of only some of its columns.

    A column may be found elsewhere: as an expression by its name.
    """
    found = [elsewhere.get(name, f"{table}.{name}") for name in columns]
    return ", ".join(_AS_SELECTED.get(name, "{}").format(source) for name, source in zip(columns, found, strict=True))


def row_of(record: Sequence[Any]) -> JournalRow:
    """Return the row that a record of `select_list` stands for."""
    values = list(record)
    for at, read in _READ_AT:
        values[at] = read(values[at])
    return JournalRow(*values)
