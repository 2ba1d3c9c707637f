"""`verify` finds every way in which the books can be wrong, says where, and finds nothing on sound books."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from creditlane.audit.findings import CHECKS, MAX_EXAMPLES, Judged
from creditlane.audit.recent import verify_period
from creditlane.audit.whole import verify
from creditlane.schemas.errors import NotMigrated, Unavailable

ANN = "cca_" + "0a" * 16
BOB = "cca_" + "0b" * 16
CAT = "cca_" + "0c" * 16
GHOST = "cca_" + "0d" * 16
OPEN, CREDIT, DEBIT, REVERSE, FREEZE, UNFREEZE, CLOSE = range(1, 8)

#: account, seq, kind, side, amount, balance after, seconds; then what differs from the default.
Row = tuple[str, int, int, int, int | None, int, int, dict[str, Any]]

SOUND: list[Row] = [
    (ANN, 1, OPEN, 1, 100, 100, 0, {}),
    (ANN, 2, DEBIT, -1, 30, 70, 1, {}),
    (ANN, -1, DEBIT, -1, 71, 70, 2, {"rejection": "insufficient_balance", "entries_before": 2}),
    (ANN, 3, REVERSE, 1, 30, 100, 3, {"reversal_of": 2}),
    (ANN, -2, FREEZE, 0, None, 100, 4, {"entries_before": 3}),
    (ANN, -3, DEBIT, -1, 1, 100, 5, {"rejection": "account_frozen", "entries_before": 3}),
    (ANN, -4, UNFREEZE, 0, None, 100, 6, {"entries_before": 3}),
    (ANN, 4, CREDIT, 1, 5, 105, 7, {}),
    (BOB, -1, OPEN, 0, None, 0, 0, {"overdraft_limit": 50, "entries_before": 0}),
    (BOB, 1, DEBIT, -1, 20, -20, 1, {"overdraft_limit": 50}),
    (BOB, 2, DEBIT, -1, 30, -50, 1, {"overdraft_limit": 50}),
    (BOB, -2, CLOSE, 0, None, -50, 1, {"overdraft_limit": 50, "entries_before": 2, "rejection": "account_overdrawn"}),
    (BOB, 3, CREDIT, 1, 50, 0, 1, {"overdraft_limit": 50}),
    (BOB, -3, FREEZE, 0, None, 0, 2, {"overdraft_limit": 50, "entries_before": 3}),
    (BOB, -4, CLOSE, 0, None, 0, 3, {"overdraft_limit": 50, "entries_before": 3}),
    (CAT, 1, OPEN, 1, 10**40, 10**40, 0, {}),
    (CAT, -1, FREEZE, 0, None, 10**40, 1, {"entries_before": 1}),
    (GHOST, -1, DEBIT, -1, 5, 0, 0, {"rejection": "account_not_found", "entries_before": 0}),
]
METADATA = {ANN: Jsonb({"plan": "gold", "seats": "3"})}
ACCOUNTS = [(ANN, 1, 0, 100), (BOB, 3, 50, 0), (CAT, 2, 0, 10**40)]


@pytest.fixture
def ledger(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A sound ledger, with everything that protects it out of the way."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for row in SOUND:
            insert(connection, row)
        for account, status, limit, _initial in ACCOUNTS:
            connection.execute(
                "insert into accounts values "
                "(1, %s, %s, 'Main', 'main', 'tokens', %s, %s, '2025-01-01', '2025-01-01', %s)",
                [account[4:], f"customer {account}", status, limit, METADATA.get(account)],
            )
        connection.execute("alter table journal disable trigger all")
        checks = "select conname from pg_constraint where contype = 'c' and conrelid = 'journal'::regclass"
        for (name,) in connection.execute(checks).fetchall():
            connection.execute(sql.SQL("alter table journal drop constraint {}").format(sql.Identifier(name)))
        connection.execute("alter table journal drop constraint journal_pkey")
        yield connection


def insert(connection: psycopg.Connection[Any], row: Row) -> None:
    account, seq, kind, side, amount, balance, seconds, other = row
    fields = {
        "store_id": 1,
        "account_id": account[4:],
        "seq": seq,
        "kind": kind,
        "side": side,
        "amount": amount,
        "balance_after": balance,
        "idempotency_key": f"{account} {seq}",
        "created_at": f"2025-01-01 00:00:{seconds:02d}+00",
        "content": content_of(account) if kind == OPEN else None,
        **other,
    }
    names = sql.SQL(", ").join(map(sql.Identifier, fields))
    values = sql.SQL(", ").join(map(sql.Placeholder, fields))
    connection.execute(sql.SQL("insert into journal ({}) values ({})").format(names, values), fields)


def content_of(account: str) -> Jsonb:
    limit, initial = next((limit, initial) for name, _, limit, initial in ACCOUNTS if name == account)
    return Jsonb(
        {
            "customer_id": f"customer {account}",
            "name": "Main",
            "unit_label": "tokens",
            "initial_balance": str(initial),
            "overdraft_limit": str(limit),
            **({"metadata": METADATA[account].obj} if account in METADATA else {}),
        }
    )


def found(report: Judged) -> set[tuple[str, str | None, int | None]]:
    """Return what a report found, as (check, account, seq)."""
    return {(check.name, item.account_id, item.seq) for check in report.failed for item in check.examples}


def test_sound_books_have_no_discrepancy(database_url: str, ledger: psycopg.Connection[Any]) -> None:
    report = verify(database_url)

    assert (report.discrepancies, report.failed) == (0, [])
    assert (report.stores, report.accounts, report.entries, report.decisions) == (1, 3, 8, 10)
    assert ledger.execute("select count(*) from journal").fetchone() == (18,)


def test_an_empty_ledger_has_no_discrepancy(database_url: str) -> None:
    report = verify(database_url)

    assert (report.discrepancies, report.accounts, report.entries) == (0, 0, 0)


class Damage(NamedTuple):
    """A change of the rows, and what must be found."""

    name: str
    statement: str
    found: set[tuple[str, str | None, int | None]]


def update(account: str, seq: int, change: str) -> str:
    return f"update journal set {change} where account_id = '{account[4:]}' and seq = {seq}"


def add(account: str, seq: int, kind: int, side: int, balance: int, **other: object) -> str:
    fields = {"amount": "1", "created_at": "'2025-01-01 00:00:30+00'", **other}
    names, values = ", ".join(fields), ", ".join(map(str, fields.values()))
    return (
        f"insert into journal (store_id, account_id, seq, kind, side, balance_after, idempotency_key, {names}) "
        f"values (1, '{account[4:]}', {seq}, {kind}, {side}, {balance}, gen_random_uuid()::text, {values})"
    )


def part(seq: int, balance: int, amount: int, asked: int | None = None) -> str:
    """Return what adds the reversal of a part of Ann's fourth entry, which is of 5."""
    row = add(
        ANN, seq, REVERSE, -1, balance, amount=amount, reversal_of=4, content=f"""'{{"amount": "{asked or amount}"}}'"""
    )
    return row.replace("gen_random_uuid()::text", f"'reversal:cct_{ANN[4:]}4:{seq}'")


def remove(account: str, seq: int) -> str:
    return f"delete from journal where account_id = '{account[4:]}' and seq = {seq}"


ASKED = 'content = \'{"asked": "%s"}\''

DAMAGES = [
    Damage("partial debit took more", update(ANN, 2, ASKED % 29), {("partial_debit", ANN, 2)}),
    Damage("partial debit left some", update(BOB, 1, ASKED % 21), {("partial_debit", BOB, 1)}),
    Damage("partial debit refused with some there", update(ANN, -1, ASKED % 71), {("partial_debit", ANN, -1)}),
    Damage("partial debit that took all", update(BOB, 2, ASKED % 31), set()),
    Damage("gap in the entries", update(ANN, 4, "seq = 5"), {("entry_sequence", ANN, 5)}),
    Damage("gap in the decisions", update(ANN, -4, "seq = -5"), {("decision_sequence", ANN, -5)}),
    Damage(
        "decision lost",
        remove(GHOST, -1) + ";" + add(GHOST, -2, DEBIT, -1, 0, rejection="'account_not_found'"),
        {("decision_sequence", GHOST, -2)},
    ),
    Damage(
        "entry doubled",
        add(ANN, 4, CREDIT, 1, 105, amount=5, created_at="'2025-01-01 00:00:07+00'"),
        {("entry_sequence", ANN, 4), ("running_balance", ANN, 4), ("books", None, None)},
    ),
    Damage(
        "entry lost in between",
        remove(ANN, 2),
        {
            ("entry_sequence", ANN, 3),
            ("running_balance", ANN, 3),
            ("reversal_original", ANN, 3),
            ("decided_balance", ANN, -1),
            ("books", None, None),
        },
    ),
    Damage("amount changed", update(ANN, 4, "amount = 6"), {("running_balance", ANN, 4), ("books", None, None)}),
    Damage(
        "balance changed", update(ANN, 4, "balance_after = 106"), {("running_balance", ANN, 4), ("books", None, None)}
    ),
    Damage(
        "first balance changed",
        update(CAT, 1, "balance_after = balance_after + 1"),
        {("running_balance", CAT, 1), ("decided_balance", CAT, -1), ("books", None, None)},
    ),
    Damage(
        "side changed",
        update(ANN, 4, "side = -1"),
        {("running_balance", ANN, 4), ("entry_kind", ANN, 4), ("books", None, None)},
    ),
    Damage("kind changed", update(ANN, 4, "kind = 3"), {("entry_kind", ANN, 4)}),
    Damage("entry of a rejected command", update(ANN, 4, "rejection = 'account_frozen'"), {("entry_kind", ANN, 4)}),
    Damage("below zero", add(ANN, 5, DEBIT, -1, -1, amount=106), {("overdraft_limit", ANN, 5)}),
    Damage(
        "below the limit",
        add(BOB, 4, DEBIT, -1, -51, amount=51, overdraft_limit=50, created_at="'2025-01-01 00:00:01+00'"),
        {
            ("overdraft_limit", BOB, 4),
            ("decision_place", BOB, -3),
            ("decision_place", BOB, -4),
            ("stopped_movement", BOB, 4),
        },
    ),
    Damage(
        "limit of an entry is not the account's",
        update(BOB, 2, "overdraft_limit = 60"),
        {("overdraft_limit", BOB, None)},
    ),
    Damage(
        "limit of the account raised",
        "update accounts set overdraft_limit = 60 where overdraft_limit = 50",
        {("overdraft_limit", BOB, None), ("account_content", BOB, -1)},
    ),
    Damage(
        "entry before the one before it",
        update(ANN, 4, "created_at = '2025-01-01 00:00:02+00'"),
        {
            ("chronology", ANN, 4),
            ("decision_place", ANN, -2),
            ("decision_place", ANN, -3),
            ("decision_place", ANN, -4),
        },
    ),
    Damage(
        "decision before the one before it",
        update(ANN, -3, "created_at = '2025-01-01 00:00:03+00'"),
        {("chronology", ANN, -3)},
    ),
    Damage("refused although it was there", update(ANN, -1, "amount = 70"), {("refusal", ANN, -1)}),
    Damage(
        "closed below zero",
        update(BOB, -2, "rejection = null"),
        {("closing", BOB, -2), ("state_change", BOB, -3), ("stopped_movement", BOB, 3)},
    ),
    Damage(
        "kept open although not below zero",
        update(BOB, -4, "rejection = 'account_overdrawn'"),
        {("closing", BOB, -4), ("account_status", BOB, None)},
    ),
    Damage(
        "decided on a balance that never was", update(ANN, -3, "balance_after = 99"), {("decided_balance", ANN, -3)}
    ),
    Damage("reversal of nothing", update(ANN, 3, "reversal_of = 9"), {("reversal_original", ANN, 3)}),
    Damage("reversal without an original", update(ANN, 3, "reversal_of = null"), {("reversal_original", ANN, 3)}),
    Damage(
        "reversal of a decision",
        update(ANN, 3, "reversal_of = -1"),
        {("reversal_original", ANN, 3), ("reversal_amount", ANN, 3)},
    ),
    Damage(
        "reversal of a later entry",
        update(ANN, 3, "reversal_of = 4"),
        {("reversal_original", ANN, 3), ("reversal_amount", ANN, 3)},
    ),
    Damage(
        "reversal on the same side",
        add(ANN, 5, REVERSE, 1, 110, amount=5, reversal_of=4),
        {("reversal_amount", ANN, 5)},
    ),
    Damage(
        "reversal of another amount",
        add(ANN, 5, REVERSE, -1, 101, amount=4, reversal_of=4),
        {("reversal_amount", ANN, 5)},
    ),
    Damage(
        "reversal of a reversal",
        add(ANN, 5, REVERSE, -1, 75, amount=30, reversal_of=3),
        {("reversal_of_reversal", ANN, 5)},
    ),
    Damage(
        "reversed twice",
        add(ANN, 5, REVERSE, 1, 135, amount=30, reversal_of=2),
        {("reversal_repeated", ANN, 3), ("reversal_repeated", ANN, 5)},
    ),
    Damage(
        "parts beyond the whole",
        f"{part(5, 102, amount=3)}; {part(6, 100, amount=2)}; {part(7, 99, amount=1)}",
        {("reversal_repeated", ANN, 5), ("reversal_repeated", ANN, 6), ("reversal_repeated", ANN, 7)},
    ),
    Damage(
        "a part of another amount than was asked for",
        part(5, 102, amount=3, asked=2),
        {("reversal_amount", ANN, 5)},
    ),
    Damage("a part larger than the whole", part(5, 99, amount=6), {("reversal_amount", ANN, 5)}),
    Damage(
        "a whole reversal that leaves something",
        f"{part(5, 103, amount=2)}; {add(ANN, 6, REVERSE, -1, 101, amount=2, reversal_of=4)}",
        {("reversal_amount", ANN, 6)},
    ),
    Damage(
        "entries without an account", "delete from accounts where overdraft_limit = 50", {("account_exists", BOB, None)}
    ),
    Damage("entry without an account", add(GHOST, 1, CREDIT, 1, 1), {("account_exists", GHOST, None)}),
    Damage("never opened", update(BOB, -1, "rejection = 'account_name_taken'"), {("account_opening", BOB, None)}),
    Damage(
        "account without any row",
        f"insert into accounts values (1, '{GHOST[4:]}', 'x', 'y', 'y', 'z', 1, 0, now(), now())",
        {("account_opening", GHOST, None)},
    ),
    Damage("opened twice", add(ANN, 5, OPEN, 1, 106), {("account_opening", ANN, None)}),
    Damage(
        "opened after it had moved",
        update(ANN, 1, f"kind = {CREDIT}")
        + ";"
        + update(
            ANN,
            4,
            f"kind = {OPEN}, content = (select content || "
            f"'{{\"initial_balance\": \"5\"}}' from journal where account_id = '{ANN[4:]}' and seq = 1)",
        ),
        {("account_opening", ANN, 4)},
    ),
    Damage(
        "customer changed",
        "update accounts set customer_id = 'somebody' where overdraft_limit = 50",
        {("account_content", BOB, -1)},
    ),
    Damage(
        "metadata changed",
        'update accounts set metadata = \'{"plan": "platinum", "seats": "3"}\' where metadata is not null',
        {("account_content", ANN, 1)},
    ),
    Damage(
        "metadata removed",
        "update accounts set metadata = null",
        {("account_content", ANN, 1)},
    ),
    Damage(
        "metadata added",
        'update accounts set metadata = \'{"a": "b"}\' where overdraft_limit = 50',
        {("account_content", BOB, -1)},
    ),
    Damage(
        "name freed for another account",
        "update accounts set name_key = 'other' where overdraft_limit = 50",
        {("account_content", BOB, -1)},
    ),
    Damage(
        "opened later than its opening",
        "update accounts set created_at = '2025-01-02', updated_at = '2025-01-02' where overdraft_limit = 50",
        {("account_content", BOB, -1)},
    ),
    Damage(
        "initial balance is not what was asked for",
        update(ANN, 1, """content = content || '{"initial_balance": "99"}'"""),
        {("account_content", ANN, 1)},
    ),
    Damage("status changed", "update accounts set status = 1 where status = 2", {("account_status", CAT, None)}),
    Damage(
        "frozen twice",
        update(ANN, -4, f"kind = {FREEZE}"),
        {("state_change", ANN, -4), ("account_status", ANN, None), ("stopped_movement", ANN, 4)},
    ),
    Damage(
        "unfrozen while active",
        update(ANN, -2, f"kind = {UNFREEZE}"),
        {("state_change", ANN, -2), ("state_change", ANN, -4)},
    ),
    Damage("changed after it was closed", update(BOB, -3, f"kind = {CLOSE}"), {("state_change", BOB, -4)}),
    Damage(
        "moved while frozen",
        update(ANN, -4, "entries_before = 4, balance_after = 105"),
        {("decision_place", ANN, -4), ("stopped_movement", ANN, 4)},
    ),
    Damage(
        "moved at a time when it was frozen",
        update(ANN, 3, "created_at = '2025-01-01 00:00:05+00'"),
        {("decision_place", ANN, -2)},
    ),
    Damage(
        "refused on an older balance",
        update(ANN, -1, "balance_after = 100, amount = 101"),
        {("decided_balance", ANN, -1)},
    ),
    Damage(
        "refused as if the entry before it were not there",
        update(ANN, -1, "entries_before = 1, balance_after = 100, amount = 101"),
        {("decision_place", ANN, -1)},
    ),
    Damage(
        "decided before the decision before it",
        update(ANN, -4, "entries_before = 2, balance_after = 70"),
        {("decision_place", ANN, -4)},
    ),
    Damage("decided in the future", update(ANN, 4, "created_at = now() + interval '1 hour'"), {("future", ANN, 4)}),
    Damage("moved after it was closed", add(BOB, 4, CREDIT, 1, 1, overdraft_limit=50), {("stopped_movement", BOB, 4)}),
    Damage(
        "entry in an unknown store",
        "update journal set store_id = 7 where reversal_of is null and kind = 5 and seq = -1",
        {("account_exists", CAT, None), ("account_status", CAT, None), ("decided_balance", CAT, -1)},
    ),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found_where_it_is(damage: Damage, database_url: str, ledger: psycopg.Connection[Any]) -> None:
    for statement in damage.statement.split(";"):
        ledger.execute(statement.encode())

    report = verify(database_url)

    assert found(report) == damage.found
    assert report.discrepancies == len(damage.found)


#: What both proofs say of the same rows, whatever stands twice or is missing.
ROW_BY_ROW = {
    "decision_sequence",
    "chronology",
    "future",
    "entry_kind",
    "refusal",
    "partial_debit",
    "closing",
    "decided_balance",
    "decision_place",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_the_proof_of_a_period_agrees(damage: Damage, ledger: psycopg.Connection[Any]) -> None:
    """Given damaged rows, when the period of all of them is proven, then it finds what the whole proof finds."""
    for statement in damage.statement.split(";"):
        ledger.execute(statement.encode())

    period = verify_period(ledger, datetime(2025, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))

    assert {finding for finding in found(period) if finding[0] in ROW_BY_ROW} == {
        finding for finding in damage.found if finding[0] in ROW_BY_ROW
    }


DAMAGES_BEFORE_SEQUENCES = [
    Damage(
        "decided on a balance that never was", update(ANN, -3, "balance_after = 99"), {("decided_balance", ANN, -3)}
    ),
    Damage(
        "moved while frozen", update(ANN, 3, "created_at = '2025-01-01 00:00:05+00'"), {("stopped_movement", ANN, 3)}
    ),
    Damage("moved after it was closed", add(BOB, 4, CREDIT, 1, 1, overdraft_limit=50), {("stopped_movement", BOB, 4)}),
]


@pytest.mark.parametrize("damage", DAMAGES_BEFORE_SEQUENCES, ids=lambda damage: damage.name)
def test_damage_is_found_where_decisions_have_no_position(
    damage: Damage, database_url: str, ledger: psycopg.Connection[Any]
) -> None:
    """Given decisions that were stored before they said after how many entries, then what times show is proven."""
    ledger.execute("update journal set entries_before = null")
    assert verify(database_url).discrepancies == 0

    ledger.execute(damage.statement.encode())

    assert found(verify(database_url)) == damage.found


def test_every_check_is_seen_to_fail() -> None:
    # test_verify_transactions.py has these.
    elsewhere = {"reversal_whole", "further_entry", "listed_entry", "transaction_sum", "transaction_reference"}
    # test_limits.py has these.
    elsewhere |= {"max_balance", "limit_refusal", "account_limits"}
    # And test_verify_holds.py these.
    elsewhere |= {"held", "hold_decision", "hold_state", "hold_end", "hold_closing"}

    assert {check for damage in DAMAGES for check, _, _ in damage.found} | elsewhere == set(CHECKS)


@pytest.mark.parametrize("rows_per_range", [1, 3])
def test_ranges_change_no_finding(rows_per_range: int, database_url: str, ledger: psycopg.Connection[Any]) -> None:
    ledger.execute(update(CAT, 1, "amount = 1").encode())
    whole = verify(database_url)
    reported: list[tuple[int, int]] = []

    in_ranges = verify(database_url, lambda done, total: reported.append((done, total)), rows_per_range=rows_per_range)

    assert in_ranges == whole
    assert found(whole) == {("running_balance", CAT, 1), ("account_content", CAT, 1), ("books", None, None)}
    assert reported[-1] == (18, 18)
    assert len(reported) > 1


def test_examples_are_few_and_all_are_counted(database_url: str, ledger: psycopg.Connection[Any]) -> None:
    ledger.execute(
        "insert into journal "
        "(store_id, account_id, seq, kind, side, amount, balance_after, created_at, idempotency_key) "
        "select 1, %s, seq, 2, 1, 1, 0, now(), seq::text from generate_series(5, 30) as seq",
        [ANN[4:]],
    )

    balances = next(check for check in verify(database_url).failed if check.name == "running_balance")

    assert balances.discrepancies == 26
    assert len(balances.examples) == MAX_EXAMPLES
    assert (balances.examples[0].expected, balances.examples[0].found) == ("106", "0")


def test_a_ledger_in_use_is_judged_as_of_one_moment(database_url: str, ledger: psycopg.Connection[Any]) -> None:
    """Given entries that arrive between two ranges, when they are proven, then none of them is seen by half."""

    def write_on(done: int, _total: int) -> None:
        seq = ledger.execute("select max(seq) + 1 from journal where account_id = %s", [CAT[4:]]).fetchone()
        assert seq is not None
        insert(ledger, (CAT, seq[0], CREDIT, 1, 1, 10**40 + seq[0] - 1, min(59, 10 + done), {}))

    report = verify(database_url, write_on, rows_per_range=1)

    assert (report.discrepancies, report.entries) == (0, 8)


def test_a_database_without_the_schema_says_so(empty_database_url: str) -> None:
    with pytest.raises(NotMigrated, match="creditlane migrate"):
        verify(empty_database_url)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="Postgres cannot be reached"):
        verify("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
