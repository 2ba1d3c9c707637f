"""Which commands the release before this one does not know."""

from typing import Any

import pytest
from pydantic import create_model

from creditlane.lanes.encoding import PlainCommand, decode_command, encode_command
from creditlane.schemas import releases
from creditlane.schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    Unfreeze,
)
from creditlane.schemas.kinds import Kind
from creditlane.schemas.releases import FIELDS_OF_RELEASE_0, is_new

ANN, BOB = "cca_" + "a" * 32, "cca_" + "b" * 32
OF: dict[str, Any] = {"account_id": ANN, "idempotency_key": "k"}
MOVING: dict[str, Any] = {**OF, "amount": 1, "reference": "r", "metadata": {"a": "b"}}
#: Each with all that 0.1.0 knows of it.
OLD: list[Command] = [
    OpenAccount(
        **OF, customer_id="c", name="n", unit_label="u", initial_balance=1, overdraft_limit=1, metadata={"a": "b"}
    ),
    Credit(**MOVING, callback_url="https://example.com/"),
    Debit(**MOVING),
    Post(
        idempotency_key="k",
        reference="r",
        entries=(
            PostEntry(account_id=ANN, side="debit", amount=1),
            PostEntry(account_id=BOB, side="credit", amount=1),
        ),
        metadata={"a": "b"},
    ),
    Reverse(account_id=ANN, transaction_id=f"cct_{ANN[4:]}1"),
    Freeze(**OF),
    Unfreeze(**OF),
    Close(**OF),
]


@pytest.mark.parametrize("command", OLD, ids=lambda command: command.kind)
def test_what_it_knows_is_not_new(command: Command) -> None:
    assert not is_new(command)
    assert not is_new(decode_command(encode_command(command, "store_default")))


def test_a_plain_command_is_never_new() -> None:
    assert not is_new(PlainCommand("debit", "store_default", ANN, "k", 1, "r"))


def test_every_kind_that_came_later_is_new() -> None:
    assert {kind for kind in Kind if kind in FIELDS_OF_RELEASE_0} == {kind for kind in Kind if kind <= Kind.POST}
    assert {model for model, added in releases._ADDED.items() if added is None} == {
        kind.record.model for kind in Kind if kind > Kind.POST
    }


def test_a_field_that_came_later_is_new_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("Debit", __base__=Debit, urgent=(bool, False))
    monkeypatch.setattr(Kind.DEBIT, "record", Kind.DEBIT.record._replace(model=model))
    monkeypatch.setattr(releases, "_ADDED", {model: releases._added_fields(Kind.DEBIT)})

    assert not is_new(model(**MOVING))
    assert is_new(model(**MOVING, urgent=True))
