"""Whoever reads or writes rows of the journal has its columns in the one order, that of `JournalRow`."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec

from creditlane.producer.ledger import queries
from creditlane.producer.ledger.rows import EntryRow
from creditlane.schemas.accounts import AccountState
from creditlane.schemas.identifiers import ACCOUNT_PREFIX
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.journal_columns import COLUMNS, COPIED_ALWAYS, COPIED_RARELY, columns_of, row_of, select_list
from creditlane.schemas.tables import ledger as tables
from creditlane.worker.ledger.entries import move, note
from creditlane.worker.store.journal_rows import lines_of
from creditlane.worker.store.sql import COPY_ENTRIES, COPY_JOURNAL

ACCOUNT, FIRST = (ACCOUNT_PREFIX + letter * 32 for letter in "af")
#: A row that has something else in every column.
FULL = JournalRow(
    store_id=11,
    account_id=ACCOUNT,
    seq=12,
    kind=13,
    side=14,
    amount=15,
    balance_after=16,
    overdraft_limit=17,
    idempotency_key="the key",
    reference="the reference",
    reversal_of=18,
    created_at_us=1_000_000,
    rejection="the rejection",
    content='{"the": "content"}',
    transaction_account=FIRST,
    transaction_seq=19,
    entries_before=20,
    held_after=21,
)
#: The same as Postgres has it.
STORED = {
    "store_id": "11",
    "account_id": "a" * 32,
    "seq": "12",
    "kind": "13",
    "side": "14",
    "amount": "15",
    "balance_after": "16",
    "overdraft_limit": "17",
    "idempotency_key": "the key",
    "reference": "the reference",
    "reversal_of": "18",
    "created_at": "1970-01-01T00:00:01+00:00",
    "rejection": "the rejection",
    "content": '{"the": "content"}',
    "transaction_account": "f" * 32,
    "transaction_seq": "19",
    "entries_before": "20",
    "held_after": "21",
}


def named_in(statement: str) -> list[str]:
    found = re.fullmatch(r"copy journal \((.*)\) from stdin", statement.strip())
    assert found
    return found[1].split(", ")


def test_a_row_has_every_column_of_the_table() -> None:
    assert set(COLUMNS) == {column.name for column in tables.journal.columns}


def test_a_line_for_copy_has_its_parts_where_the_statement_names_them() -> None:
    """Given a row with all columns filled, and a plain one, then each part of the line is that of the column's name."""
    (line,), are_short = lines_of([FULL])
    assert not are_short
    assert dict(zip(named_in(COPY_JOURNAL), line.split("\t"), strict=True)) == STORED

    plain = msgspec.structs.replace(
        FULL,
        reversal_of=None,
        rejection=None,
        content=None,
        transaction_account=None,
        transaction_seq=None,
        entries_before=None,
        held_after=0,
    )
    (line,), are_short = lines_of([plain])
    assert are_short
    assert dict(zip(named_in(COPY_ENTRIES), line.split("\t"), strict=True)) == {
        name: STORED[name] for name in COPIED_ALWAYS
    }
    lines, are_short = lines_of([FULL, plain])
    assert not are_short
    assert dict(zip(named_in(COPY_JOURNAL), lines[1].split("\t"), strict=True)) == {
        **STORED,
        **dict.fromkeys(COPIED_RARELY, r"\N"),
    }


def test_each_column_alone_that_is_rare_makes_the_line_a_long_one() -> None:
    nothing: dict[str, Any] = dict.fromkeys(COPIED_RARELY) | {"held_after": 0}
    for name in COPIED_RARELY:
        fields = nothing | {name: getattr(FULL, name)}
        if name in {"transaction_account", "transaction_seq"}:
            fields |= {"transaction_account": FIRST, "transaction_seq": 19}
        # Only a decision has these two.
        seq = -12 if name in {"rejection", "entries_before"} else 12
        assert not lines_of([msgspec.structs.replace(FULL, seq=seq, **fields)]).are_short, name


def test_a_record_is_read_as_it_was_selected() -> None:
    """Given what Postgres gives for the list of columns, then each field of the row is that of its own column."""
    given = {
        **{name: int(text) for name, text in STORED.items() if text.isdigit()},
        **{name: STORED[name] for name in ("amount", "balance_after", "overdraft_limit", "held_after")},
        **{name: STORED[name] for name in ("idempotency_key", "reference", "rejection", "content")},
        "account_id": UUID("a" * 32),
        "transaction_account": UUID("f" * 32),
        "created_at": 1_000_000,
    }
    selected = [re.search(r"\bt\.(\w+)", part) for part in select_list("t").split(", ") if "t." in part]
    assert row_of([given[found[1]] for found in selected if found]) == FULL


def test_an_entry_that_is_read_has_columns_of_the_journal() -> None:
    """Given the fields of an entry as it is read, then each is selected from the column of its name."""
    columns = columns_of(EntryRow._fields)
    assert set(columns) < set(COLUMNS)
    selected = re.findall(r"\bj\.(\w+)", queries.READ_ENTRY.partition("where")[0])
    assert tuple(selected) == columns


def test_an_entry_and_a_decision_have_everything_in_its_column() -> None:
    """Given a command and an account of which no two values are alike, then the row has each under its name."""
    command = SimpleNamespace(kind="freeze", account_id=ACCOUNT, idempotency_key="the key")
    before = AccountState(status=1, balance=40, overdraft_limit=50, entries=6, decisions=7, latest_at_us=8)

    after, row = move(11, command, before, 9, -1, 60, "r", kind=3, reversal_of=2, content="c")
    assert after == AccountState(status=1, balance=-20, overdraft_limit=50, entries=7, decisions=7, latest_at_us=9)
    assert row == JournalRow(
        store_id=11,
        account_id=ACCOUNT,
        seq=7,
        kind=3,
        side=-1,
        amount=60,
        balance_after=-20,
        overdraft_limit=50,
        idempotency_key="the key",
        reference="r",
        reversal_of=2,
        created_at_us=9,
        rejection=None,
        content="c",
    )

    after, row = note(11, command, before, 9, "refused", 1, 60, "r", content="c")  # type: ignore[arg-type]
    assert after == AccountState(status=1, balance=40, overdraft_limit=50, entries=6, decisions=8, latest_at_us=9)
    assert row == JournalRow(
        store_id=11,
        account_id=ACCOUNT,
        seq=-8,
        kind=5,
        side=1,
        amount=60,
        balance_after=40,
        overdraft_limit=50,
        idempotency_key="the key",
        reference="r",
        reversal_of=None,
        created_at_us=9,
        rejection="refused",
        content="c",
        entries_before=6,
    )
