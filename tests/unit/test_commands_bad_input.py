"""Whatever breaks a rule of a command is refused where it is made, with the field's name and what it allows."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from creditlane.lanes.encoding import invalid_command
from creditlane.schemas.commands import Close, Command, Credit, Debit, Freeze, OpenAccount, Reverse, SetLimit, Unfreeze

ANN = "cca_" + "a" * 32
TRANSACTION = "cct_" + "a" * 32 + "1"

GOOD: dict[type[Command], dict[str, Any]] = {
    OpenAccount: {"account_id": ANN, "idempotency_key": "k", "customer_id": "ann"},
    Credit: {"account_id": ANN, "idempotency_key": "k", "amount": 5, "reference": "r"},
    Debit: {"account_id": ANN, "idempotency_key": "k", "amount": 5, "reference": "r"},
    Reverse: {"account_id": ANN, "transaction_id": TRANSACTION},
    Freeze: {"account_id": ANN, "idempotency_key": "k"},
    Unfreeze: {"account_id": ANN, "idempotency_key": "k"},
    Close: {"account_id": ANN, "idempotency_key": "k"},
    SetLimit: {"account_id": ANN, "idempotency_key": "k", "limit": "max_balance", "amount": 5},
}

WHOLE = "must be a whole number from 1, as an int or a string of digits [1-9][0-9]*, at most 1000 digits"
WHOLE_OR_ZERO = "must be a whole number from 0, as an int or a string of digits 0|[1-9][0-9]*, at most 1000 digits"
SHORT = "String should have at least 1 character"
LONG = "String should have at most 255 characters"
STRING = "Input should be a valid string"

BAD_AMOUNTS = [
    0,
    -1,
    1.5,
    1.0,
    float("nan"),
    float("inf"),
    True,
    False,
    None,
    10**1_000,
    -(10**1_000),
    Decimal(5),
    b"5",
    [5],
    "0",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "",
    " 1",
    "1 ",
    "1\n",
    "1_000",
    "01",
    "0x1",
    "\u0661",
    "\u00b2",
    "\uff11",
    "9" * 1_001,
    "9" * 1_000_000,
]
BAD_TEXTS = [
    ("", SHORT),
    ("x" * 256, LONG),
    ("x" * 10_000_000, LONG),
    ("\U0001f600" * 256, LONG),
    ("\0", "must not contain NUL"),
    ("before\0after", "must not contain NUL"),
    ("\ud800", STRING),
    ("before\udfffafter", STRING),
    (b"bytes", STRING),
    (5, STRING),
    (None, STRING),
    (["k"], STRING),
]
BAD_IDS = [
    "",
    "cca_",
    "a" * 32,
    ANN + "a",
    ANN[:-1],
    ANN.upper(),
    ANN + "\n",
    " " + ANN,
    "cct_" + "a" * 32,
    "cca_" + "g" * 32,
    "cca_" + "\uff41" * 32,
    "\0",
    "x" * 10_000_000,
]


def refusal_of(kind: type[Command], **fields: Any) -> tuple[str | None, str]:
    """Return the field that is named and the whole message, when a good command has these fields instead."""
    with pytest.raises(ValidationError) as refusal:
        kind(**{**GOOD[kind], **fields})
    error = invalid_command(refusal.value)
    assert error.code == "validation_error"
    return error.field, error.message


def test_the_good_ones_are_good() -> None:
    """Given what every table here starts from, then it is accepted: the refusals are due to what was changed."""
    assert all(kind(**fields).account_id == ANN for kind, fields in GOOD.items())


@pytest.mark.parametrize("kind", [Credit, Debit])
@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=lambda amount: repr(amount)[:12])
def test_an_amount_is_a_whole_number_above_zero(kind: type[Command], amount: object) -> None:
    assert refusal_of(kind, amount=amount) == ("amount", f"amount: {WHOLE}")


@pytest.mark.parametrize("field", ["initial_balance", "overdraft_limit"])
@pytest.mark.parametrize(
    "amount",
    [amount for amount in BAD_AMOUNTS if amount is not False and amount not in (0, "0")] + [False, 0.0, "00", "-0"],
    ids=lambda amount: repr(amount)[:12],
)
def test_what_may_be_zero_may_be_nothing_else_that_an_amount_is_not(field: str, amount: object) -> None:
    assert refusal_of(OpenAccount, **{field: amount}) == (field, f"{field}: {WHOLE_OR_ZERO}")


@pytest.mark.parametrize(
    ("amount", "meant"),
    [(1, 1), ("1", 1), (2**64, 2**64), ("9" * 1_000, 10**1_000 - 1), (10**1_000 - 1, 10**1_000 - 1)],
    ids=lambda amount: repr(amount)[:12],
)
def test_a_good_amount_is_exact(amount: Any, meant: int) -> None:
    command = Debit(account_id=ANN, idempotency_key="k", amount=amount, reference="r")

    assert command.amount == meant
    assert type(command.amount) is int


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Debit, "idempotency_key"),
        (Debit, "reference"),
        (Credit, "idempotency_key"),
        (Credit, "reference"),
        (OpenAccount, "idempotency_key"),
        (OpenAccount, "customer_id"),
        (OpenAccount, "unit_label"),
        (Freeze, "idempotency_key"),
        (Unfreeze, "idempotency_key"),
        (Close, "idempotency_key"),
    ],
)
@pytest.mark.parametrize(("text", "rule"), BAD_TEXTS, ids=lambda value: repr(value)[:16])
def test_a_text_has_characters_and_not_too_many(kind: type[Command], field: str, text: object, rule: str) -> None:
    named, message = refusal_of(kind, **{field: text})

    assert named == field
    assert message.startswith(f"{field}: {rule}")
    assert len(message) < 200


@pytest.mark.parametrize("text", ["x" * 255, "\U0001f600" * 255, " ", "line\nfeed", "'; drop table journal", "\u2028"])
def test_any_other_text_is_fine(text: str) -> None:
    command = Debit(account_id=ANN, idempotency_key=text, amount=1, reference=text)

    assert (command.idempotency_key, command.reference) == (text, text)


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("account_id", [*BAD_IDS, 5, b"x"], ids=lambda value: repr(value)[:16])
def test_an_account_id_has_one_form(kind: type[Command], account_id: object) -> None:
    named, message = refusal_of(kind, account_id=account_id)

    assert named == "account_id"
    assert "^cca_[0-9a-f]{32}$" in message or STRING in message


@pytest.mark.parametrize(
    "transaction_id", ["", "cct_1", TRANSACTION + "\n", TRANSACTION.upper(), "cct_" + "a" * 32 + "0", ANN, 5, None]
)
def test_a_transaction_id_has_one_form(transaction_id: object) -> None:
    named, message = refusal_of(Reverse, transaction_id=transaction_id)

    assert named == "transaction_id"
    assert message.startswith("transaction_id: ")


@pytest.mark.parametrize(
    "store_id", ["", "default", "store_", "store_" + "x" * 59, "store_\u00e9", "store_a\n", "store_a b"]
)
def test_a_store_id_has_one_form(store_id: str) -> None:
    named, message = refusal_of(Debit, store_id=store_id)

    assert named == "store_id"
    assert "^store_[0-9A-Za-z_]{1,58}$" in message


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", SHORT),
        (" \t\n\u2003", "must contain more than white space"),
        ("x" * 101, "String should have at most 100 characters"),
        ("a\0", "must not contain NUL"),
        ("\ud800", STRING),
        (None, STRING),
    ],
)
def test_a_name_can_be_seen(name: object, rule: str) -> None:
    named, message = refusal_of(OpenAccount, name=name)

    assert named == "name"
    assert rule in message


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("field", ["note", "Amount", "model_config"])
def test_no_field_is_passed_over_in_silence(kind: type[Command], field: str) -> None:
    assert refusal_of(kind, **{field: 1}) == (field, f"{field}: Extra inputs are not permitted")


def test_every_broken_rule_is_reported_at_once() -> None:
    _, message = refusal_of(Debit, amount=0, reference="", idempotency_key="")

    assert message == f"idempotency_key: {SHORT}; amount: {WHOLE}; reference: {SHORT}"


def test_the_input_is_not_repeated() -> None:
    """Given a field that may hold what nobody else shall read, when it is refused, then the error does not show it."""
    _, message = refusal_of(Debit, reference="hunter2" * 50, amount="hunter2", account_id="hunter2")

    assert "hunter2" not in message
