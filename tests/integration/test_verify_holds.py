"""`verify` finds every way in which holds can be wrong, says where, and finds nothing where they are sound."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from creditlane.audit.findings import CHECKS
from creditlane.audit.whole import verify
from creditlane.schemas.commands import Capture, Close, Debit, Extend, Hold, OpenAccount, Void
from creditlane.schemas.identifiers import hold_id

from .test_store_holds import ClockedDirectStore

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
#: The clock of these books: the future is a finding of its own.
LONG_AGO = -100_000_000
TABLES = ("journal", "holds", "accounts")


def holding(number: int, **fields: Any) -> Hold:
    return Hold(account_id=ANN, idempotency_key=f"h{number}", amount=10 * number, reference="call", **fields)


def capture(number: int, key: str, amount: int, **fields: Any) -> Capture:
    return Capture(hold_id=hold_id(ANN, number), idempotency_key=key, amount=amount, **fields)


@pytest.fixture(scope="module")
def sound(database_server: Any, template_database: str) -> Iterator[str]:
    """Sound books with holds of every kind, and nothing that protects them.

    Of Ann: 1 open and extended, captured in part; 2 captured, with an overage; 3 voided; 4 expired; 5 refused.
    """
    name = f"creditlane_held_{uuid.uuid4().hex}"
    url = database_server.create_database(name, template=template_database)
    with ClockedDirectStore(url) as store:
        done = store.at(
            LONG_AGO,
            *(
                OpenAccount(account_id=account, idempotency_key=account, customer_id=account, initial_balance=200)
                for account in (ANN, BOB)
            ),
            *(holding(number) for number in (1, 2, 3)),
            holding(4, expires_in_seconds=10),
            holding(50),
            capture(1, "c1", 4, final=False),
            Extend(hold_id=hold_id(ANN, 1), idempotency_key="e1", expires_in_seconds=1_000),
            capture(2, "c2", 25, allow_overage=True),
            Close(account_id=ANN, idempotency_key="close"),
            Void(hold_id=hold_id(ANN, 3), idempotency_key="v3"),
        )
        assert done == ["applied"] * 6 + ["insufficient_balance"] + ["applied"] * 3 + ["account_has_holds", "applied"]
        more = Debit(account_id=ANN, idempotency_key="d", amount=1, reference="r")
        assert store.at(LONG_AGO + 10, more, Close(account_id=BOB, idempotency_key="b")) == ["applied", "applied"]
        assert [record[2] for record in store.holds()] == [1, 2, 3, 4]
    with psycopg.connect(url, autocommit=True) as connection:
        for table in ("journal", "holds"):
            connection.execute(sql.SQL("alter table {} disable trigger all").format(sql.Identifier(table)))
            checks = "select conname from pg_constraint where contype = 'c' and conrelid = %s::regclass"
            for (constraint,) in connection.execute(checks, [table]).fetchall():
                statement = sql.SQL("alter table {} drop constraint {}")
                connection.execute(statement.format(sql.Identifier(table), sql.Identifier(constraint)))
        for table in TABLES:
            connection.execute(f"create table sound_{table} as table {table}")
    yield url
    database_server.drop_database(name)


@pytest.fixture
def ledger(sound: str) -> Iterator[psycopg.Connection[Any]]:
    """The books, which are sound again afterwards."""
    with psycopg.connect(sound, autocommit=True) as connection:
        yield connection
        for table in TABLES:
            connection.execute(f"delete from {table}")
            connection.execute(f"insert into {table} table sound_{table}")


def test_sound_holds_have_no_discrepancy(sound: str, ledger: psycopg.Connection[Any]) -> None:
    assert ledger.info.dbname
    assert verify(sound).failed == []


def _journal(change: str, row: str) -> str:
    return f"update journal set {change} where {row}"


_CONTENT = "content = jsonb_set(content, '{{{0}}}', '{1}')"
DAMAGES = {
    "held of a row": (_journal("held_after = held_after + 1", "kind = 11"), {"held"}),
    "held forgotten": (_journal("held_after = null", "kind = 9 and seq = -2"), {"held"}),
    "held where nobody holds": (
        _journal("held_after = 5", f"account_id = '{BOB[4:]}' and seq > 0"),
        {"held"},
    ),
    "released of a capture": (
        _journal(_CONTENT.format("released", '"3"'), "kind = 10 and amount = 4"),
        {"held", "hold_state"},
    ),
    "nothing released": (
        _journal(_CONTENT.format("released", '"0"'), "kind = 10 and amount = 4"),
        {"held", "hold_state"},
    ),
    "hold of another id": (
        _journal(_CONTENT.format("hold_id", f'"{hold_id(ANN, 9)}"'), "kind = 11"),
        {"hold_state"},
    ),
    "hold without a decision": ("update holds set seq = 77 where seq = 3", {"hold_decision", "hold_state"}),
    "decision without a hold": ("delete from holds where seq = 4", {"hold_decision", "hold_state"}),
    "amount of a hold": ("update holds set amount = amount + 1 where seq = 4", {"hold_decision"}),
    "reference of a hold": ("update holds set reference = 'other' where seq = 4", {"hold_decision"}),
    "remaining of a hold": ("update holds set remaining = remaining + 1 where seq = 1", {"hold_state"}),
    "captured of a hold": ("update holds set captured = captured + 1 where seq = 2", {"hold_state"}),
    "expired that was voided": ("update holds set status = 4 where seq = 3", {"hold_state"}),
    "open that has ended": ("update holds set status = 1, ended_at = null where seq = 4", {"hold_state"}),
    "end of a hold": ("update holds set expires_at = expires_at + interval '1 second' where seq = 1", {"hold_end"}),
    "extension forgotten": (_journal(_CONTENT.format("ends_at", '"2027-01-01T00:00:00Z"'), "kind = 12"), {"hold_end"}),
    "open hold on a closed account": (
        f"update accounts set status = 3 where account_id = '{ANN[4:]}'",
        {"hold_closing", "account_status"},
    ),
    "refused for holds that are not there": (
        _journal("rejection = 'account_has_holds'", f"kind = 7 and account_id = '{BOB[4:]}'"),
        {"hold_closing", "account_status"},
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_to_holds_is_found(name: str, sound: str, ledger: psycopg.Connection[Any]) -> None:
    statement, checks = DAMAGES[name]

    assert ledger.execute(sql.SQL(statement)).rowcount == 1  # type: ignore[arg-type]
    assert {check.name for check in verify(sound).failed} == checks


def test_every_check_of_holds_is_seen_to_fail() -> None:
    found = {check for _, checks in DAMAGES.values() for check in checks}

    assert {name for name in CHECKS if name.startswith("h")} <= found
