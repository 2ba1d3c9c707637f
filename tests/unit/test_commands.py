"""Commands as values: frozen, complete, and with the keys that are theirs."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from creditlane.lanes.encoding import decode_command, encode_command, invalid_command
from creditlane.schemas.account_names import name_key
from creditlane.schemas.commands import Command, Credit, Debit, Freeze, OpenAccount, Reverse, reversal_key

ANN = "cca_" + "a" * 32
TRANSACTION = "cct_" + "a" * 32 + "1f"


def test_a_command_cannot_be_changed() -> None:
    command: Any = Debit(account_id=ANN, idempotency_key="k", amount=5, reference="r")

    with pytest.raises(ValidationError, match="frozen"):
        command.amount = 6

    assert command.amount == 5


def test_every_attempt_of_a_reversal_has_its_key_and_all_lead_to_one() -> None:
    """Given a transaction, when it is reversed under two keys, then the attempts differ and the reversal is one."""
    one, other = (Reverse(account_id=ANN, transaction_id=TRANSACTION) for _ in range(2))

    assert one.idempotency_key != other.idempotency_key
    assert {reversal_key(attempt.idempotency_key) for attempt in (one, other)} == {f"reversal:{TRANSACTION}"}
    assert Reverse(account_id=ANN, transaction_id=TRANSACTION, idempotency_key=one.idempotency_key) == one


@pytest.mark.parametrize(
    "key", ["mine", "", f"reversal:{TRANSACTION}", f"reversal:{TRANSACTION}0:1", TRANSACTION, None]
)
def test_a_reversal_takes_no_other_key(key: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        Reverse(account_id=ANN, transaction_id=TRANSACTION, idempotency_key=key)

    assert (
        f"idempotency_key of a reversal begins with reversal:{TRANSACTION}:; leave it out"
        in invalid_command(refusal.value).message
    )


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Credit, {"amount": 5, "reference": "r"}),
        (Debit, {"amount": 5, "reference": "r"}),
        (OpenAccount, {"customer_id": "ann"}),
        (Freeze, {}),
    ],
)
def test_nobody_else_takes_the_key_of_a_reversal(kind: type[Command], more: dict[str, Any]) -> None:
    """Given a key of the form that reversals have, when another command claims it, then it is refused: a credit of that
    key would keep the reversal from ever happening."""
    with pytest.raises(ValidationError) as refusal:
        kind(account_id=ANN, idempotency_key=f"reversal:{TRANSACTION}", **more)

    error = invalid_command(refusal.value)
    assert error.field == "idempotency_key"
    assert "must not start with 'reversal:'" in error.message


def test_every_attempt_to_open_without_a_key_is_an_account_of_its_own() -> None:
    one, other = (OpenAccount(customer_id="ann") for _ in range(2))

    assert one.idempotency_key != other.idempotency_key


def test_what_opening_leaves_out_has_a_default() -> None:
    command = OpenAccount(customer_id="ann", idempotency_key="k")

    assert (command.name, command.unit_label) == ("default", "credits")
    assert (command.initial_balance, command.overdraft_limit) == (0, 0)
    assert command.account_id is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("main", " main\n", True),
        ("Main", "mAIN", True),
        ("Straße", "STRASSE", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("ΰ", "\u03ab\u0301", True),
        ("\u01f0", "J\u030c", True),
        ("\u0130", "i\u0307", True),
        ("\u1f80", "\u1f00\u0345", True),
        ("KISA", "k\u0131sa", False),
        ("main", "main\u200b", True),
        ("main", "\ufeff ma\u00adi\u200dn\u2060 \u2003", True),
        ("main", "ma\x01in\x7f", True),
        ("caf\u00e9", "cafe\u034f\u0301", True),
        ("\u2764", "\u2764\ufe0f", True),
        ("main", "ma\tin", False),
        ("main", "mai n", False),
        ("cafe", "caf\u00e9", False),
    ],
)
def test_names_are_compared_as_people_read_them(one: str, other: str, same: bool) -> None:
    assert (name_key(one) == name_key(other)) is same


@pytest.mark.parametrize(
    "name", ["", " ", "\u2003\n", "\u200b\u2060\ufeff", "\u3164", " \x01 ", "\u2800", "\U000e0001"]
)
def test_a_name_that_nobody_sees_is_none(name: str) -> None:
    schema = OpenAccount.model_json_schema()["properties"]["name"]["pattern"]

    assert name_key(name) == ""
    # No pattern that every dialect reads names what lies beyond 16 bits.
    assert "\U000e0001" in name or not re.search(schema, name)
    assert all(re.search(schema, f"{name}{letter}") for letter in "a1-\u00e9\U0001f9fe")
    with pytest.raises(ValidationError):
        OpenAccount(customer_id="ann", name=name)


@pytest.mark.parametrize(
    "name", ["\u0390" * 100, "\ufb03" * 100, "\U0001d15e" * 100, "\u1fb7" * 100, "\U0001f600" * 100, "\ufb2c" * 100]
)
def test_the_longest_name_fits_an_index(name: str) -> None:
    """Given names that grow when they are folded, then customer and name still fit what an index of Postgres holds."""
    command = OpenAccount(customer_id="\U0001f600" * 255, name=name)

    assert len((command.customer_id + name_key(command.name)).encode()) < 2_600


def test_a_key_of_a_string_subclass_is_an_ordinary_string() -> None:
    """Given a key that is a member of a string enumeration, then it goes over the lane as its text."""

    class Key(str):
        __slots__ = ()

    command = Debit(account_id=ANN, idempotency_key=Key("k"), amount=1, reference=Key("r"))

    assert decode_command(encode_command(command, "store_default")).idempotency_key == "k"
