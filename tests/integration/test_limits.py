"""Limits of accounts over the real store: set by one worker, judged by every other, and proven by `verify`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from creditlane.audit.findings import Judged
from creditlane.audit.whole import verify
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Credit, Debit, Freeze, OpenAccount, Post, PostEntry, Reverse, SetLimit
from creditlane.schemas.identifiers import transaction_id

from .direct_store import PARTITIONS, DirectStore, codes

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")


class Worker:
    """A worker that owns the lane of one account, and one like it that may take the lane over."""

    def __init__(self, database: psycopg.Connection[Any], store: DirectStore, account: str) -> None:
        self.database, self.store, self.lane = database, store, partition_of(account, PARTITIONS)
        self.epoch = 0

    def owns(self, worker_id: str) -> dict[int, int]:
        self.epoch += 1
        statement = "update leases set worker_id = %s, epoch = %s where partition = %s"
        self.database.execute(statement, [worker_id, self.epoch, self.lane])
        return {self.lane: self.epoch}


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def one(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url, "one") as store:
        yield store


@pytest.fixture
def other(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url, "other") as store:
        yield store


def opening(account: str, balance: int = 100, **fields: Any) -> OpenAccount:
    fields = {"customer_id": account, "idempotency_key": f"open {account}", "initial_balance": balance, **fields}
    return OpenAccount(account_id=account, **fields)


def limit(key: str, name: str, amount: int | None = None, account: str = ANN) -> SetLimit:
    return SetLimit(account_id=account, idempotency_key=key, limit=name, amount=amount)  # type: ignore[arg-type]


def credit(key: str, amount: int, account: str = ANN) -> Credit:
    return Credit(account_id=account, idempotency_key=key, amount=amount, reference="r")


def debit(key: str, amount: int, account: str = ANN) -> Debit:
    return Debit(account_id=account, idempotency_key=key, amount=amount, reference="r")


def transfer(key: str, source: str, target: str, amount: int) -> Post:
    entries = (
        PostEntry(account_id=source, side="debit", amount=amount),
        PostEntry(account_id=target, side="credit", amount=amount),
    )
    return Post(entries=entries, reference="move", idempotency_key=key)


def limits_of(database: psycopg.Connection[Any], account: str = ANN) -> tuple[Any, ...] | None:
    statement = "select overdraft_limit, max_balance, low_balance, low_balance_since is null from accounts "
    return database.execute(statement + "where account_id = %s", [account[4:]]).fetchone()


@pytest.mark.parametrize("careful", [False, True])
def test_limits_of_a_batch_are_stored_as_its_last_commands_have_left_them(
    one: DirectStore, other: DirectStore, database: psycopg.Connection[Any], careful: bool
) -> None:
    """Given a batch that sets limits between entries, and changes status, then each entry is judged by what was set
    before it, the table has what was set last, and another worker reads and judges by the same."""
    results = one.apply(
        opening(ANN),
        opening(BOB),
        debit("too much", 101),
        limit("credit", "credit_limit", 50),
        debit("all", 150),
        limit("in use", "credit_limit", 49),
        limit("max", "max_balance", 10),
        credit("up to it", 60),
        credit("above it", 1),
        limit("low", "low_balance", 5),
        limit("max again", "max_balance", 12),
        Freeze(account_id=ANN, idempotency_key="freeze"),
        limit("frozen", "credit_limit", 7),
        limit("bob's", "low_balance", 1, BOB),
        limit("bob's again", "low_balance", None, BOB),
        careful=careful,
    )

    assert codes(results) == [
        *["applied"] * 2,
        "insufficient_balance",
        *["applied"] * 2,
        "credit_limit_in_use",
        *["applied"] * 2,
        "max_balance_exceeded",
        *["applied"] * 6,
    ]
    assert limits_of(database) == (7, 12, 5, False)
    assert limits_of(database, BOB) == (0, None, None, True)
    again = other.apply(limit("max", "max_balance", 10), limit("low", "low_balance", 6), careful=True)
    assert [result.replayed for result in again] == [True, False]
    assert codes(again) == ["applied", "idempotency_key_mismatch"]


def test_a_lane_that_comes_back_brings_no_old_limits(
    one: DirectStore, other: DirectStore, database: psycopg.Connection[Any]
) -> None:
    """Given limits that a worker remembers, when the lane goes to a worker that sets others and comes back, then it
    judges by those."""
    lane = Worker(database, one, ANN)
    one.apply(opening(ANN), limit("c", "credit_limit", 50), limit("m", "max_balance", 100), epochs=lane.owns("one"))
    other.apply(limit("c2", "credit_limit"), limit("m2", "max_balance", 120), epochs=lane.owns("other"))

    epochs = lane.owns("one")

    assert codes(one.apply(debit("d", 101), credit("c3", 20), epochs=epochs)) == ["insufficient_balance", "applied"]


def test_a_transaction_of_another_lane_is_judged_by_the_limits_of_all_its_accounts(
    one: DirectStore, other: DirectStore, database: psycopg.Connection[Any]
) -> None:
    """Given two workers with a lane each, when one sets limits on its account, then transactions that the other decides
    there keep them, and what the first decides next starts from what the other has moved."""
    own, others = Worker(database, one, ANN).owns("one"), Worker(database, other, BOB).owns("other")
    one.apply(opening(ANN), epochs=own)
    other.apply(opening(BOB, 1_000), epochs=others)
    other.apply(transfer("before", BOB, ANN, 1), epochs=others)
    one.apply(limit("m", "max_balance", 110), limit("c", "credit_limit", 10), epochs=own)

    results = other.apply(
        transfer("above", BOB, ANN, 10),
        transfer("up to it", BOB, ANN, 9),
        epochs=others,
    )
    assert codes(results) == ["max_balance_exceeded", "applied"]
    assert results[0].error is not None
    assert results[0].error.details == {"account_id": ANN, "needed": "10", "room": "9"}
    assert codes(one.apply(credit("one", 1), debit("d", 120), epochs=own)) == ["max_balance_exceeded", "applied"]
    assert codes(other.apply(transfer("back", ANN, BOB, 1), epochs=others)) == ["insufficient_balance"]


class Damage(NamedTuple):
    name: str
    statement: str
    found: set[tuple[str, int | None]]


def row(seq: int, change: str) -> str:
    return f"update journal set {change} where account_id = '{ANN[4:]}' and seq = {seq}"


def of_account(account: str, change: str) -> str:
    return f"update accounts set {change} where account_id = '{account[4:]}'"


#: What is wrong, and where it is found on Ann's account; see the fixture for its rows.
DAMAGES = [
    Damage("a credit above the maximum", row(-2, 'content = content || \'{"amount": "109"}\''), {("max_balance", 2)}),
    Damage("a credit limit that was not set", row(3, "overdraft_limit = 31"), {("overdraft_limit", 3)}),
    Damage("a credit limit that is gone", row(4, "overdraft_limit = 30"), {("overdraft_limit", 4)}),
    Damage(
        "a refusal without a reason",
        row(-3, "amount = 5"),
        {("limit_refusal", -3)},
    ),
    Damage(
        "a limit that was free",
        row(-6, 'content = content || \'{"amount": "20"}\''),
        {("limit_refusal", -6)},
    ),
    Damage("another credit limit", of_account(ANN, "overdraft_limit = 31"), {("account_limits", -8)}),
    Damage("another maximum", of_account(ANN, "max_balance = 121"), {("account_limits", -5)}),
    Damage("no maximum", of_account(ANN, "max_balance = null"), {("account_limits", -5)}),
    Damage("another threshold", of_account(ANN, "low_balance = 6"), {("account_limits", -7)}),
    Damage(
        "a maximum that nobody set",
        of_account(BOB, "max_balance = 5"),
        {("account_limits", None)},
    ),
]


@pytest.fixture
def ledger(one: DirectStore, database: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Limits set by the real store, with everything that protects its rows out of the way."""
    results = one.apply(
        opening(ANN, overdraft_limit=5),  # entry 1: 100
        limit("max", "max_balance", 100),  # -1
        limit("max 2", "max_balance", 115),  # -2
        credit("10", 10),  # entry 2: 110
        credit("above", 20),  # -3
        limit("credit", "credit_limit", 30),  # -4
        debit("130", 130),  # entry 3: -20
        limit("max 3", "max_balance", 120),  # -5
        limit("used", "credit_limit", 19),  # -6
        limit("low", "low_balance", 7),  # -7
        limit("credit 2", "credit_limit", 20),  # -8
        credit("1", 1),  # entry 4: -19
        opening(BOB),
    )
    refused = {"above": "max_balance_exceeded", "used": "credit_limit_in_use"}
    assert codes(results) == [refused.get(result.idempotency_key, "applied") for result in results]
    database.execute("alter table journal disable trigger all")
    checks = "select conname from pg_constraint where contype = 'c' and conrelid = 'journal'::regclass"
    for (name,) in database.execute(checks).fetchall():
        database.execute(sql.SQL("alter table journal drop constraint {}").format(sql.Identifier(name)))
    return database


def found(report: Judged) -> set[tuple[str, int | None]]:
    return {(check.name, item.seq) for check in report.failed for item in check.examples}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_verify_finds_what_is_wrong_with_limits_and_nothing_on_sound_books(
    damage: Damage, ledger: psycopg.Connection[Any], database_url: str
) -> None:
    assert found(verify(database_url)) == set()

    ledger.execute(damage.statement.encode())

    assert found(verify(database_url)) == damage.found


def test_what_is_given_back_above_a_maximum_is_sound(one: DirectStore, database_url: str) -> None:
    results = one.apply(opening(ANN), debit("d", 60), limit("m", "max_balance", 50))
    results += one.apply(Reverse(account_id=ANN, transaction_id=transaction_id(ANN, 2)), credit("c", 1))

    assert codes(results) == ["applied"] * 4 + ["max_balance_exceeded"]
    assert verify(database_url).discrepancies == 0


def test_a_threshold_that_the_release_before_has_set_since_is_sound(
    one: DirectStore, database: psycopg.Connection[Any], database_url: str
) -> None:
    one.apply(opening(ANN), limit("low", "low_balance", 5))
    database.execute("update accounts set low_balance = 9, low_balance_since = clock_timestamp()")
    assert verify(database_url).discrepancies == 0

    database.execute("update accounts set low_balance = null, low_balance_since = null")
    assert verify(database_url).discrepancies == 0
