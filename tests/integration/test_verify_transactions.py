"""`verify` proves transactions of several entries: it finds each way in which one can be wrong, and nothing else."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from creditlane import Post, Reverse
from creditlane.audit.whole import VerificationReport, verify
from creditlane.schemas.commands import Debit, OpenAccount
from creditlane.schemas.identifiers import transaction_id

from .direct_store import DirectStore, codes

ANN = "cca_" + "0a" * 16
BOB = "cca_" + "0b" * 16
CAT = "cca_" + "0c" * 16
POSTED = transaction_id(ANN, 2)


def opening(account: str, balance: int) -> OpenAccount:
    return OpenAccount(
        account_id=account, customer_id=account, idempotency_key=f"open {account}", initial_balance=balance
    )


def post(key: str, *entries: tuple[str, str, int]) -> Post:
    listed = tuple({"account_id": account, "side": side, "amount": amount} for account, side, amount in entries)
    return Post(reference="ref", idempotency_key=key, entries=listed)  # type: ignore[arg-type]


@pytest.fixture
def ledger(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Transactions made by the real store, with everything that protects them out of the way."""
    with DirectStore(database_url) as store:
        outcomes = store.apply(
            opening(ANN, 100),
            opening(BOB, 10),
            opening(CAT, 10),
            # Ann's second entry, Bob's second, Cat's second; Ann's third.
            post("one", (ANN, "debit", 50), (BOB, "credit", 30), (CAT, "credit", 25), (ANN, "debit", 5)),
            post("unbalanced", (ANN, "debit", 50), (BOB, "credit", 30)),
            # Refused at an account other than the first, and at a later entry of the first.
            post("bob is short", (ANN, "credit", 41), (BOB, "debit", 41)),
            post("ann is short", (ANN, "debit", 40), (BOB, "credit", 50), (ANN, "debit", 10)),
            Debit(account_id=CAT, amount=1, reference="ref", idempotency_key="plain"),
        )
        outcomes += store.apply(
            post("two", (BOB, "debit", 1), (CAT, "credit", 1)),
            Reverse(account_id=ANN, transaction_id=POSTED),
        )
    refusals = ["unbalanced_transaction", "insufficient_balance", "insufficient_balance"]
    assert codes(outcomes) == ["applied"] * 4 + refusals + ["applied"] * 3
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("alter table journal disable trigger all")
        checks = "select conname from pg_constraint where contype = 'c' and conrelid = 'journal'::regclass"
        for (name,) in connection.execute(checks).fetchall():
            connection.execute(sql.SQL("alter table journal drop constraint {}").format(sql.Identifier(name)))
        yield connection


def found(report: VerificationReport) -> set[tuple[str, str | None, int | None]]:
    return {(check.name, item.account_id, item.seq) for check in report.failed for item in check.examples}


def test_the_reversal_of_what_passed_through_an_account_is_sound(database_url: str) -> None:
    """Given a post through an account that is empty before and after, and one in and out of the payer, when both are
    reversed, then the database takes the rows, in whatever order they are numbered, and the books prove right."""
    through = post("through", (ANN, "debit", 5), (BOB, "credit", 5), (BOB, "debit", 5), (CAT, "credit", 5))
    wash = post("wash", (BOB, "credit", 7), (BOB, "debit", 7))
    with DirectStore(database_url) as store:
        made = store.apply(opening(ANN, 9), opening(BOB, 0), opening(CAT, 0), through, wash)[-2:]
        undone = store.apply(
            *(Reverse(account_id=each.account_id, transaction_id=str(each.transaction_id)) for each in made)
        )

    assert codes(made + undone) == ["applied"] * 4
    with psycopg.connect(database_url) as connection:
        latest = (
            "select distinct on (account_id) balance_after from journal where seq > 0 order by account_id, seq desc"
        )
        assert [int(balance) for (balance,) in connection.execute(latest)] == [9, 0, 0]
    assert verify(database_url).discrepancies == 0


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("rows_per_range", [1, 50_000])
def test_sound_transactions_have_no_discrepancy(database_url: str, rows_per_range: int) -> None:
    report = verify(database_url, rows_per_range=rows_per_range)

    assert found(report) == set()
    assert report.entries == 3 + 4 + 1 + 2 + 4


class Damage(NamedTuple):
    """A change of the rows, and what must be found."""

    name: str
    statement: str
    found: set[tuple[str, str | None, int | None]]


def update(account: str, seq: int, change: str) -> str:
    return f"update journal set {change} where account_id = '{account[4:]}' and seq = {seq}"


def relist(position: int, field: str, value: object) -> str:
    return update(ANN, 2, f"content = jsonb_set(content, '{{entries,{position},{field}}}', '{json.dumps(value)}')")


DAMAGES = [
    Damage(
        "first is gone",
        update(BOB, 2, "transaction_seq = 99"),
        {("further_entry", BOB, 2), ("listed_entry", ANN, 2)},
    ),
    Damage(
        "first is another account's",
        update(BOB, 2, f"transaction_account = '{CAT[4:]}'"),
        {("further_entry", BOB, 2), ("listed_entry", ANN, 2)},
    ),
    Damage(
        "entry is not listed",
        update(ANN, 2, "content = jsonb_set(content, '{entries}', (content -> 'entries') - 2)"),
        {("further_entry", CAT, 2), ("transaction_sum", ANN, 2), ("reversal_whole", ANN, 4)},
    ),
    Damage("side is listed otherwise", relist(1, "side", "debit"), {("listed_entry", ANN, 2)}),
    Damage("amount is listed otherwise", relist(1, "amount", "31"), {("listed_entry", ANN, 2)}),
    Damage(
        "seq is listed otherwise",
        relist(1, "seq", 1),
        {("listed_entry", ANN, 2), ("further_entry", BOB, 2), ("transaction_sum", ANN, 2)},
    ),
    Damage(
        "seq is nonsense",
        relist(1, "seq", "x"),
        {("listed_entry", ANN, 2), ("further_entry", BOB, 2), ("transaction_sum", ANN, 2)},
    ),
    Damage(
        "account is nonsense",
        relist(1, "account_id", "cca_x"),
        {("listed_entry", ANN, 2), ("further_entry", BOB, 2), ("transaction_sum", ANN, 2)},
    ),
    Damage("reference differs", update(CAT, 2, "reference = 'other'"), {("transaction_reference", ANN, 2)}),
    Damage(
        "list is lost",
        update(ANN, 2, "content = null"),
        {
            ("listed_entry", ANN, 2),
            ("reversal_whole", ANN, 4),
            *(("further_entry", account, seq) for account, seq in ((BOB, 2), (CAT, 2), (ANN, 3))),
        },
    ),
    Damage(
        "reversal of a part",
        update(ANN, 4, "content = null"),
        {
            ("reversal_whole", ANN, 4),
            *(("further_entry", account, seq) for account, seq in ((BOB, 4), (CAT, 5), (ANN, 5))),
        },
    ),
    Damage(
        "sum is not zero",
        ";".join(
            [
                update(CAT, 4, "amount = amount + 1, balance_after = balance_after + 1"),
                update(CAT, 5, "balance_after = balance_after + 1"),
                update(BOB, 3, "content = jsonb_set(content, '{entries,1,amount}', '\"2\"')"),
            ]
        ),
        {("transaction_sum", BOB, 3)},
    ),
    Damage(
        "post without a side", update(BOB, 3, "side = 0"), {
            ("entry_kind", BOB, 3),
            ("running_balance", BOB, 3),
            ("listed_entry", BOB, 3),
            ("transaction_sum", BOB, 3),
            ("books", None, None),
        }
    ),
    Damage(
        "refusal for what was there",
        update(ANN, -2, "content = jsonb_set(content, '{obstacle,available}', '\"41\"')"),
        {("refusal", ANN, -2)},
    ),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found_where_it_is(damage: Damage, database_url: str, ledger: psycopg.Connection[Any]) -> None:
    for statement in damage.statement.split(";"):
        ledger.execute(statement.encode())

    assert found(verify(database_url)) == damage.found


def test_every_check_of_transactions_is_seen_to_fail() -> None:
    checks = {"reversal_whole", "further_entry", "listed_entry", "transaction_sum", "transaction_reference"}

    assert checks <= {check for damage in DAMAGES for check, _, _ in damage.found}
