"""The database refuses what the code refuses: each invariant stands a second time, as a constraint with a name."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.json import Jsonb

ANN = "a" * 32

ENTRY: dict[str, Any] = {
    "store_id": 1,
    "account_id": ANN,
    "seq": 1,
    "kind": 2,
    "side": 1,
    "amount": 5,
    "balance_after": 5,
    "overdraft_limit": None,
    "idempotency_key": "first",
    "reference": "r",
    "reversal_of": None,
    "created_at": "2025-01-01 00:00:00+00",
    "rejection": None,
    "content": None,
}
DECISION = {**ENTRY, "seq": -1, "side": 0, "kind": 5, "amount": None, "idempotency_key": "second"}
ACCOUNT: dict[str, Any] = {
    "store_id": 1,
    "account_id": ANN,
    "customer_id": "ann",
    "name": "main",
    "name_key": "main",
    "unit_label": "credits",
    "status": 1,
    "overdraft_limit": 0,
    "created_at": "2025-01-01 00:00:00+00",
    "updated_at": "2025-01-01 00:00:00+00",
}


@pytest.fixture(scope="module")
def module_database(database_server: Any, template_database: str) -> Iterator[str]:
    """One database for all tests here: none of them commits."""
    name = f"creditlane_constraints_{template_database[-12:]}"
    yield database_server.create_database(name, template=template_database)
    database_server.drop_database(name)


@pytest.fixture
def connection(module_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(module_database) as connection:
        insert(connection, "journal", ENTRY)
        insert(connection, "journal", DECISION)
        insert(connection, "accounts", ACCOUNT)
        yield connection
        connection.rollback()


def insert(connection: psycopg.Connection[Any], table: str, fields: dict[str, Any]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, fields))
    values = sql.SQL(", ").join(map(sql.Placeholder, fields))
    statement = sql.SQL("insert into {} ({}) values ({})").format(sql.Identifier(table), names, values)
    connection.execute(statement, fields)


NEXT = {**ENTRY, "seq": 2, "idempotency_key": "third"}
LATER = {**DECISION, "seq": -2, "idempotency_key": "third"}

_ASKED_4 = {"kind": 3, "side": -1, "balance_after": 0, "content": Jsonb({"asked": "4"})}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("balance below zero", {**NEXT, "balance_after": -1}, "journal_never_below_limit"),
    ("balance below the limit", {**NEXT, "balance_after": -6, "overdraft_limit": 5}, "journal_never_below_limit"),
    ("decision below zero", {**LATER, "balance_after": -1}, "journal_never_below_limit"),
    ("amount of nothing", {**NEXT, "amount": 0}, "journal_amount_whole_and_positive"),
    ("negative amount", {**NEXT, "amount": -5}, "journal_amount_whole_and_positive"),
    ("broken amount", {**NEXT, "amount": "1.5"}, "journal_amount_whole_and_positive"),
    ("entry without an amount", {**NEXT, "amount": None}, "journal_entry_moves"),
    ("entry without a side", {**NEXT, "side": 0}, "journal_entry_moves"),
    ("rejected entry", {**NEXT, "rejection": "account_frozen"}, "journal_entry_moves"),
    ("seq of nothing", {**NEXT, "seq": 0}, "journal_seq_not_zero"),
    ("seq twice", {**NEXT, "seq": 1}, "journal_pkey"),
    ("decision twice", {**LATER, "seq": -1}, "journal_pkey"),
    ("key twice", {**NEXT, "idempotency_key": "first"}, "journal_idempotency_key"),
    ("key of a decision", {**NEXT, "idempotency_key": "second"}, "journal_idempotency_key"),
    ("key on another account", {**ENTRY, "account_id": "b" * 32}, "journal_idempotency_key"),
    ("unknown kind", {**NEXT, "kind": 15}, "journal_kind_and_side_range"),
    ("unknown side", {**NEXT, "side": 2}, "journal_kind_and_side_range"),
    ("reversal of nothing", {**NEXT, "kind": 4}, "journal_reversal_names_original"),
    ("credit that undoes", {**NEXT, "reversal_of": 1}, "journal_reversal_names_original"),
    ("entry among the entries", {**NEXT, "entries_before": 1}, "journal_entries_before_decision"),
    ("debit of more than asked", {**NEXT, **_ASKED_4}, "journal_debit_within_asked"),
    ("hold of nothing", {**NEXT, "held_after": 0}, "journal_held_is_covered"),
    ("broken hold", {**NEXT, "held_after": "0.5"}, "journal_held_is_covered"),
    ("more held than there is", {**NEXT, "held_after": 6}, "journal_held_is_covered"),
    ("more held than there is for a decision", {**LATER, "held_after": 6}, "journal_held_is_covered"),
    ("rejected reversal that undoes", {**LATER, "kind": 4, "reversal_of": 1}, "journal_reversal_names_original"),
]


@pytest.mark.parametrize(("fields", "constraint"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_journal_refuses(connection: psycopg.Connection[Any], fields: dict[str, Any], constraint: str) -> None:
    """Given a row that the ledger would never write, when something else writes it, then a constraint refuses it and
    says by its name what it protects."""
    with pytest.raises(errors.IntegrityError) as refusal:
        insert(connection, "journal", fields)

    assert refusal.value.diag.constraint_name == constraint


@pytest.mark.parametrize("name", [name for name, value in ENTRY.items() if value is not None and name != "reference"])
def test_the_journal_wants_every_fact(connection: psycopg.Connection[Any], name: str) -> None:
    with pytest.raises((errors.NotNullViolation, errors.CheckViolation)):
        insert(connection, "journal", {**NEXT, name: None})


@pytest.mark.parametrize(
    "fields",
    [
        NEXT,
        LATER,
        {**NEXT, "balance_after": -5, "overdraft_limit": 5},
        {**NEXT, "amount": "9" * 1_000, "balance_after": "9" * 3_000},
        {**NEXT, "kind": 4, "side": -1, "reversal_of": 1},
        {**LATER, "kind": 4, "rejection": "transaction_not_found"},
        {**LATER, "kind": 3, "side": -1, "amount": 9, "rejection": "insufficient_balance"},
        {**LATER, "entries_before": 0},
        {**NEXT, "held_after": 5},
        {**NEXT, "held_after": 7, "overdraft_limit": 2},
        {**LATER, "held_after": 5},
        {**ENTRY, "store_id": 2},
        {**LATER, "kind": 1, "content": Jsonb({"name": "main"})},
    ],
)
def test_the_journal_takes_what_the_ledger_writes(connection: psycopg.Connection[Any], fields: dict[str, Any]) -> None:
    """Given a row as the ledger writes it, then it is taken: the constraints are no tighter than the rules."""
    insert(connection, "journal", fields)

    row = connection.execute("select count(*) from journal").fetchone()
    assert row == (3,)


@pytest.mark.parametrize(
    "statement",
    [
        "update journal set amount = 6",
        "update journal set amount = amount where false",
        "delete from journal",
        "delete from journal where seq = 1",
        "truncate journal",
        "merge into journal using (select 1) as one on true when matched then delete",
        "insert into journal select * from journal on conflict (store_id, account_id, seq) do update set amount = 7",
    ],
)
def test_history_cannot_be_rewritten(connection: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(errors.RaiseException, match="never updated or deleted"):
        connection.execute(statement.encode())


REFUSED_ACCOUNTS: list[tuple[str, dict[str, Any], str]] = [
    ("name twice", {"account_id": "b" * 32}, "accounts_open_name_key"),
    ("name twice, frozen", {"account_id": "b" * 32, "status": 2}, "accounts_open_name_key"),
    ("id twice", {"name_key": "other"}, "accounts_pkey"),
    ("unknown status", {"account_id": "b" * 32, "name_key": "other", "status": 4}, "accounts_status_range"),
    (
        "negative limit",
        {"account_id": "b" * 32, "name_key": "other", "overdraft_limit": -1},
        "accounts_overdraft_limit_whole",
    ),
    (
        "broken limit",
        {"account_id": "b" * 32, "name_key": "other", "overdraft_limit": "0.5"},
        "accounts_overdraft_limit_whole",
    ),
    (
        "updated before it was created",
        {"account_id": "b" * 32, "name_key": "other", "updated_at": "2024-12-31 00:00:00+00"},
        "accounts_updated_after_created",
    ),
    (
        "broken most",
        {"account_id": "b" * 32, "name_key": "other", "max_balance": "0.5"},
        "accounts_max_balance_whole",
    ),
    ("unknown store", {"store_id": 999}, "accounts_store_id_fkey"),
]


@pytest.mark.parametrize(
    ("fields", "constraint"), [row[1:] for row in REFUSED_ACCOUNTS], ids=[row[0] for row in REFUSED_ACCOUNTS]
)
def test_the_accounts_refuse(connection: psycopg.Connection[Any], fields: dict[str, Any], constraint: str) -> None:
    with pytest.raises(errors.IntegrityError) as refusal:
        insert(connection, "accounts", {**ACCOUNT, **fields})

    assert refusal.value.diag.constraint_name == constraint


def test_a_closed_account_gives_its_name_back(connection: psycopg.Connection[Any]) -> None:
    connection.execute("update accounts set status = 3")

    insert(connection, "accounts", {**ACCOUNT, "account_id": "b" * 32})

    assert connection.execute("select count(*) from accounts where name_key = 'main'").fetchone() == (2,)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("insert into installation (partitions) values (8)", "installation_pkey"),
        ("insert into installation (only_row, partitions) values (false, 8)", "installation_one_row"),
        ("update installation set partitions = 0", "installation_partitions_range"),
        ("update installation set partitions = 1025", "installation_partitions_range"),
        ("insert into stores (public_id, name) values ('default', '')", "stores_public_id_form"),
        ("insert into stores (public_id, name) values ('store_default', '')", "stores_public_id_key"),
        (
            "insert into api_keys values (1, 'k', 'the key itself', 'name', now(), null)",
            "api_keys_hash_length",
        ),
        ("insert into leases (partition) values (-1)", "leases_partition_range"),
        ("update leases set epoch = -1", "leases_epoch_range"),
    ],
)
def test_the_installation_refuses(connection: psycopg.Connection[Any], statement: str, constraint: str) -> None:
    with pytest.raises(errors.IntegrityError) as refusal:
        connection.execute(statement.encode())

    assert refusal.value.diag.constraint_name == constraint


HOLD: dict[str, Any] = {
    "store_id": 1,
    "account_id": ANN,
    "seq": 1,
    "status": 1,
    "amount": 5,
    "captured": 0,
    "remaining": 5,
    "reference": "r",
    "created_at": "2025-01-01 00:00:00+00",
    "expires_at": "2025-01-02 00:00:00+00",
}

REFUSED_HOLDS: list[tuple[str, dict[str, Any], str]] = [
    ("seq of an entry", {"seq": -1}, "holds_seq_above_zero"),
    ("seq twice", {"seq": 1}, "holds_pkey"),
    ("unknown status", {"status": 5, "ended_at": "2025-01-01", "remaining": 0}, "holds_status_range"),
    ("amount of nothing", {"amount": 0, "remaining": 0}, "holds_amount_whole_and_positive"),
    ("broken amount", {"amount": "5.5"}, "holds_amount_whole_and_positive"),
    ("negative capture", {"captured": -1}, "holds_captured_whole"),
    ("more than it was", {"remaining": 6}, "holds_remaining_whole"),
    ("open with nothing left", {"remaining": 0}, "holds_open_while_remaining"),
    ("voided with something left", {"status": 3, "ended_at": "2025-01-01"}, "holds_open_while_remaining"),
    ("open and ended", {"ended_at": "2025-01-01"}, "holds_ended_when_not_open"),
    ("voided without an end", {"status": 3, "remaining": 0}, "holds_ended_when_not_open"),
    ("captured nothing", {"status": 2, "remaining": 0, "ended_at": "2025-01-01"}, "holds_captured_takes"),
    ("over before it began", {"expires_at": "2024-12-31"}, "holds_expires_after_created"),
]


@pytest.mark.parametrize(
    ("fields", "constraint"), [row[1:] for row in REFUSED_HOLDS], ids=[row[0] for row in REFUSED_HOLDS]
)
def test_the_holds_refuse(connection: psycopg.Connection[Any], fields: dict[str, Any], constraint: str) -> None:
    insert(connection, "holds", HOLD)
    with pytest.raises(errors.IntegrityError) as refusal:
        insert(connection, "holds", {**HOLD, "seq": 2, **fields})

    assert refusal.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("status = 3, remaining = 0, ended_at = now()", "status = 1, remaining = 5, ended_at = null"),
        ("status = 3, remaining = 0, ended_at = now()", "expires_at = now() + interval '1 day'"),
        ("status = 2, remaining = 0, captured = 5, ended_at = now()", "captured = 4"),
        ("remaining = 3", "remaining = 4"),
        ("captured = 2, remaining = 3", "captured = 1"),
        ("reference = 's'", "amount = 6"),
    ],
    ids=["reopened", "extended after its end", "given back after its end", "grown", "captured less", "another amount"],
)
def test_a_hold_goes_one_way(connection: psycopg.Connection[Any], before: str, change: str) -> None:
    """Given a hold, when its end is undone or it gets back what was taken of it, then the database refuses."""
    insert(connection, "holds", HOLD)
    connection.execute(f"update holds set {before}".encode())
    with pytest.raises(errors.CheckViolation) as refusal:
        connection.execute(f"update holds set {change}".encode())

    assert refusal.value.diag.constraint_name == "holds_only_open_ones_change"
