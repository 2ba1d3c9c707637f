"""What is written down of a decision reads back as it was: every text, every amount, every moment."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.schemas.commands import Credit, Debit, Freeze, OpenAccount
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.journal_columns import row_of, select_list
from creditlane.schemas.results import Result
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.worker.store import sql
from creditlane.worker.store.journal_rows import copy_text, lines_of

from .direct_store import DirectStore, codes

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
#: Characters that mean something to COPY, JSON or SQL, and some that cannot be seen.
SPECIAL = "\\\t\n\r\b\v\f\"'{}N.,;%$\x01\x1f\x7f\x85\u2028\ufeff\U0001f600"
texts = st.one_of(
    st.text(characters, min_size=1, max_size=255),
    st.text(st.sampled_from(SPECIAL), min_size=1, max_size=40),
    st.sampled_from(["\\N", "\\.", "\\\\", "\\x41", "\\t", "null"]),
)
amounts = st.one_of(st.integers(1, 100), st.integers(1, 10**1_000 - 1))


@pytest.fixture(scope="module")
def store(database_server: Any, template_database: str) -> Iterator[DirectStore]:
    name = f"creditlane_rows_{uuid.uuid4().hex}"
    with DirectStore(database_server.create_database(name, template=template_database)) as store:
        yield store
    database_server.drop_database(name)


def again(store: DirectStore, *commands: Any) -> list[Result]:
    """Return the answers that are read back from the database, without the mark that they are."""
    return [result.model_copy(update={"replayed": False}) for result in store.apply(*commands, careful=True)]


@settings(max_examples=60, deadline=None)
@given(key=texts, reference=texts, name=texts, amount=amounts, limit=st.one_of(st.just(0), amounts))
def test_a_replay_reads_what_was_first_answered(
    store: DirectStore, key: str, reference: str, name: str, amount: int, limit: int
) -> None:
    """Given commands with any text and any amount, when they are sent again, then the answers from the database are the
    first ones to the last character, and the contents agree."""
    account_id = f"cca_{uuid.uuid4().hex}"
    opening = OpenAccount(
        account_id=account_id,
        idempotency_key=f"open {account_id}",
        customer_id=name,
        name=account_id,
        unit_label=reference,
        overdraft_limit=limit,
    )
    credit = Credit(
        account_id=account_id, idempotency_key=f"{account_id}{key}"[:255], amount=amount, reference=reference
    )
    too_much = Debit(
        account_id=account_id, idempotency_key=f"{account_id[:20]}-{key}"[:255], amount=10**1_000 - 1, reference=name
    )

    first = store.apply(opening, credit, too_much)

    assert codes(first)[:2] == ["applied", "applied"]
    assert again(store, opening, credit, too_much) == first
    row = store.connection.execute(
        "select customer_id, unit_label, overdraft_limit from accounts where account_id = %s", [account_id[4:]]
    ).fetchone()
    store.connection.commit()
    assert row is not None
    assert (row[0], row[1], int(row[2])) == (name, reference, limit)


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(("seq", "kind"), [(1, 2), (-1, 5)], ids=["entry", "decision"])
def test_a_clock_that_was_set_back_does_not_turn_time_back(
    database_url: str, careful: bool, seq: int, kind: int
) -> None:
    """Given an account whose latest row is an hour ahead of the clock, when it goes on, then no row is older than that,
    and the account's change of status is not before it was created."""
    with DirectStore(database_url) as store:
        store.apply(OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann"))
        ahead = put_ahead(database_url, seq, kind)
        store.ledger_store.forget()

        results = store.apply(
            Credit(account_id=ANN, idempotency_key="credit", amount=1, reference="r"),
            Freeze(account_id=ANN, idempotency_key="freeze"),
            careful=careful,
        )

    assert codes(results) == ["applied", "applied"]
    assert [result.decided_at for result in results] == [ahead, ahead]


def test_a_decision_that_moved_nothing_has_its_position_among_the_entries(database_url: str) -> None:
    """Given decisions among the entries of one batch, all of one time, then each says how many entries came before."""
    refused = Debit(account_id=ANN, idempotency_key="refused", amount=9, reference="r")
    commands = [
        Freeze(account_id=ANN, idempotency_key="unopened"),
        OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann"),
        Credit(account_id=ANN, idempotency_key="first", amount=1, reference="r"),
        refused,
        Credit(account_id=ANN, idempotency_key="second", amount=1, reference="r"),
        Freeze(account_id=ANN, idempotency_key="freeze"),
    ]
    with DirectStore(database_url) as store:
        store.apply(*commands)
        rows = store.connection.execute(
            "select idempotency_key, seq, entries_before from journal order by seq desc"
        ).fetchall()
        store.connection.commit()
        number = store.ledger_store.find_stores([DEFAULT_STORE])[DEFAULT_STORE]
        lane_command = decode_command(encode_command(refused, DEFAULT_STORE))
        (outcome,) = store.ledger_store.transact([((number, ANN), lane_command)], {}, careful=True)

    assert rows == [
        ("second", 2, None),
        ("first", 1, None),
        ("unopened", -1, 0),
        ("open", -2, 0),
        ("refused", -3, 1),
        ("freeze", -4, 2),
    ]
    assert outcome.row is not None
    assert (outcome.replayed, outcome.row.seq, outcome.row.entries_before) == (True, -3, 1)


def test_a_row_that_was_copied_is_selected_as_it_was(database_url: str) -> None:
    """Given rows that between them fill every column, when they are read back, then each value is in its own field."""
    first = JournalRow(1, ANN, 1, 2, 1, 70, 70, 5, "first", "grant", None, 1_000_001, None, '{"metadata": {"a": "b"}}')
    rows = [
        first,
        msgspec.structs.replace(first, seq=-1, kind=3, idempotency_key="no", rejection="refused", entries_before=1),
        msgspec.structs.replace(
            first, seq=2, kind=4, idempotency_key="", reversal_of=1, transaction_account=BOB, transaction_seq=9
        ),
    ]
    with psycopg.connect(database_url) as connection:
        with connection.cursor() as cursor, cursor.copy(sql.COPY_JOURNAL) as copy:
            copy.write(copy_text(lines_of(rows).texts))
        records = connection.execute(f"select {select_list('j')} from journal as j").fetchall()
    assert sorted(map(row_of, records), key=rows.index) == rows


def put_ahead(database_url: str, seq: int, kind: int) -> Any:
    """Write a row of the account an hour ahead of the clock, and return when that is."""
    amount = 1 if seq > 0 else None
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select max(created_at) from journal").fetchone()
        assert row is not None
        ahead = row[0] + timedelta(hours=1)
        connection.execute(
            "insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, "
            "idempotency_key) values (1, %s, %s, %s, %s, %s, %s, %s, 'ahead')",
            [kind, 1 if seq > 0 else 0, seq if seq > 0 else -2, ahead, ANN[4:], amount, amount or 0],
        )
    return ahead
