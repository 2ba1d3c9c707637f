"""Commands on the lanes: what goes in comes out, and the form of what lies there does not move."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditlane.lanes.encoding import MAX_COMMAND_BYTES, PlainCommand, decode_command, encode_command, fingerprint
from creditlane.schemas.account_names import name_key
from creditlane.schemas.commands import (
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Reverse,
    SetLimit,
    Unfreeze,
)
from creditlane.schemas.errors import UndecodableCommand
from creditlane.schemas.identifiers import transaction_id

ANN = "cca_" + "a" * 32

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, min_size=1, max_size=MAX_TEXT_CHARACTERS)
keys = texts.filter(lambda key: not key.startswith("reversal:"))
names = st.text(characters, max_size=MAX_NAME_CHARACTERS).filter(name_key)
account_ids = st.uuids().map(lambda uuid: "cca_" + uuid.hex)
amounts = st.one_of(st.integers(1, 10**6), st.integers(1, 10**1_000 - 1), st.just(10**1_000 - 1))
amounts_or_zero = st.one_of(st.just(0), amounts)

commands = st.one_of(
    st.builds(
        OpenAccount,
        account_id=account_ids,
        idempotency_key=keys,
        customer_id=texts,
        name=names,
        unit_label=texts,
        initial_balance=amounts_or_zero,
        overdraft_limit=amounts_or_zero,
    ),
    st.builds(Credit, account_id=account_ids, idempotency_key=keys, amount=amounts, reference=texts),
    st.builds(Debit, account_id=account_ids, idempotency_key=keys, amount=amounts, reference=texts),
    st.builds(
        Reverse,
        account_id=account_ids,
        transaction_id=st.builds(transaction_id, account_ids, st.integers(1, 2**60 - 1)),
    ),
    *[st.builds(kind, account_id=account_ids, idempotency_key=keys) for kind in (Freeze, Unfreeze, Close)],
    st.builds(
        SetLimit,
        account_id=account_ids,
        idempotency_key=keys,
        limit=st.sampled_from(["credit_limit", "max_balance", "low_balance"]),
        amount=st.one_of(st.none(), amounts_or_zero),
    ),
)


def fields_of(command: Any) -> dict[str, Any]:
    """Return what a command asks for, whether it is a model or a movement."""
    names = ("kind", "store_id", "account_id", "idempotency_key", *command.content_fields)
    return {name: getattr(command, name) for name in names}


@given(command=commands)
def test_what_goes_onto_a_lane_comes_off_it(command: Command) -> None:
    """Given any command, when it is encoded and decoded, then it asks for the same, in the name of its store."""
    encoded = encode_command(command, "store_default")

    decoded = decode_command(encoded)

    assert fields_of(decoded) == {**fields_of(command), "store_id": "store_default"}
    assert isinstance(decoded, PlainCommand) == isinstance(command, Credit | Debit)
    assert len(encoded) <= MAX_COMMAND_BYTES


@given(command=commands)
def test_a_command_is_json_that_any_language_reads(command: Command) -> None:
    """Given any command, when another JSON reader reads it, then nothing is lost: no number in it is above 1."""
    encoded = encode_command(command, "store_default")

    read = json.loads(encoded)

    assert read.pop("v") == 1
    assert read.pop("store_id") == "store_default"
    given = {
        name: value
        for name, value in fields_of(command).items()
        if name != "store_id" and value is not None and value is not False
    }
    assert read == {name: str(value) for name, value in given.items()}


@pytest.mark.parametrize(
    ("command", "encoded"),
    [
        (
            Debit(
                account_id=ANN,
                idempotency_key="k",
                amount=5,
                reference="r",
                allow_partial=True,
                dry_run=True,
                callback_url="https://example.com/x",
            ),
            (
                b'{"v":1,"account_id":"cca_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","idempotency_key":"k","amount":"5",'
                b'"reference":"r","kind":"debit","allow_partial":true,"store_id":"store_default","dry_run":true,'
                b'"callback_url":"https://example.com/x"}'
            ),
        ),
        (
            Debit(account_id=ANN, idempotency_key="request 1", amount=10**20, reference="r"),
            (
                b'{"v":1,"account_id":"cca_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","idempotency_key":"request 1",'
                b'"amount":"100000000000000000000","reference":"r","kind":"debit","store_id":"store_default"}'
            ),
        ),
        (
            Freeze(account_id=ANN, idempotency_key="f"),
            (
                b'{"v":1,"account_id":"cca_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","idempotency_key":"f",'
                b'"kind":"freeze","store_id":"store_default"}'
            ),
        ),
    ],
)
def test_the_form_on_the_lanes_does_not_move(command: Command, encoded: bytes) -> None:
    """Given a command of an earlier release on a lane, then this release reads it, and would write it the same way."""
    assert encode_command(command, "store_default") == encoded
    assert fields_of(decode_command(encoded)) == {**fields_of(command), "store_id": "store_default"}


def test_the_fingerprint_distinguishes_requests() -> None:
    one = Debit(account_id=ANN, idempotency_key="k", amount=1, reference="r")
    same = Debit(account_id=ANN, idempotency_key="k", amount="1", reference="r")  # type: ignore[arg-type]
    other = Debit(account_id=ANN, idempotency_key="k", amount=2, reference="r")

    prints = [fingerprint(encode_command(command, "store_default")) for command in (one, same, other)]

    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 16


URL = "https://example.com/hook?a=1"


@given(command=commands)
def test_a_callback_goes_along_and_makes_no_other_request(command: Command) -> None:
    """Given any command, when it also names a callback, then that comes off the lane with it, the rest is as it was,
    and the digest is that of the command without."""
    with_url = command.model_copy(update={"callback_url": URL})
    plain, encoded = (encode_command(each, "store_default") for each in (command, with_url))

    decoded = decode_command(encoded)

    assert decoded.callback_url == URL
    assert fields_of(decoded) == {**fields_of(command), "store_id": "store_default"}
    assert not isinstance(decoded, PlainCommand)
    assert encoded == plain[:-1] + b',"callback_url":"' + URL.encode() + b'"}'
    assert fingerprint(encoded) == fingerprint(plain)
    assert decode_command(plain).callback_url is None


@pytest.mark.parametrize("value", [URL, f'","callback_url":"{URL}"}}', f'\\","callback_url":"{URL}'])
def test_what_only_looks_like_a_callback_is_part_of_the_request(value: str) -> None:
    one, other = (
        Debit(account_id=ANN, idempotency_key="k", amount=1, reference=text, metadata={"a": "b", "callback_url": text})
        for text in (value, value + "x")
    )

    assert fingerprint(encode_command(one, "store_default")) != fingerprint(encode_command(other, "store_default"))


GOOD: dict[str, Any] = {
    "v": 1,
    "kind": "debit",
    "store_id": "store_default",
    "account_id": ANN,
    "idempotency_key": "key",
    "amount": "5",
    "reference": "r",
}


def changed(**fields: Any) -> bytes:
    """Return the good command with these fields instead, without those that are None."""
    return json.dumps({name: value for name, value in {**GOOD, **fields}.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Invalid JSON"),
        (b"\x80\x04pickle", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"[]", "command: Input should be an object"),
        (b"null", "command: Input should be an object"),
        (changed() + b"{}", "Invalid JSON"),
        (changed()[:-1], "Invalid JSON"),
        (changed().replace(b'"key"', b'"\\ud800"'), "Invalid JSON"),
        (changed().replace(b'"key"', b'"\xc3("'), "Invalid JSON"),
        (changed(v=2), "v: Input should be 1"),
        (changed(v="1"), "v: Input should be 1"),
        (changed(v=None), "v, store_id and account_id must be given"),
        (changed(v=None, version=1), "version: Extra inputs are not permitted"),
        (changed(kind="transfer"), "does not match any of the expected tags"),
        (changed(kind=None), "Unable to extract tag"),
        (changed(kind=3), "kind"),
        (changed(store_id=None), "v, store_id and account_id must be given"),
        (changed(store_id="default"), "store_id: String should match pattern"),
        (changed(store_id="store_default\n"), "store_id: String should match pattern"),
        (changed(account_id=None), "account_id: Field required"),
        (changed(account_id="cca_1"), "account_id: String should match pattern"),
        (changed(account_id=ANN + "\n"), "account_id: String should match pattern"),
        (changed(idempotency_key=None), "idempotency_key: Field required"),
        (changed(idempotency_key="reversal:x"), "idempotency_key: must not start with 'reversal:'"),
        (changed(idempotency_key="a\0b"), "idempotency_key: must not contain NUL"),
        (changed(amount=5.0), "amount: must be a whole number from 1"),
        (changed(amount=True), "amount: must be a whole number from 1"),
        (changed(amount="-5"), "amount: must be a whole number from 1"),
        (changed(reference=""), "reference: String should have at least 1 character"),
        (changed(callback_url="ftp://example.com/"), "callback_url: must be an absolute http or https URL"),
        (changed(note="more"), "note: Extra inputs are not permitted"),
        (changed(reference="x" * MAX_COMMAND_BYTES), "bytes are more than the 262144"),
    ],
)
def test_what_is_no_command_is_reported_with_its_reason(data: bytes, reason: str) -> None:
    """Given bytes on a lane that are no command, when they are decoded, then the error says which field and why."""
    with pytest.raises(UndecodableCommand) as refusal:
        decode_command(data)

    assert reason in refusal.value.message
    assert "\n" not in refusal.value.message


def test_a_number_is_as_good_as_a_digit_string() -> None:
    """Given an amount as a JSON number, which a hand-written command may hold, then it is read exactly."""
    assert fields_of(decode_command(changed(amount=2**70)))["amount"] == 2**70


@pytest.mark.parametrize("data", [changed(**{"no\0te\n": "x"}), changed(kind="cre\0dit\n")])
def test_a_reason_can_be_printed_and_stored(data: bytes) -> None:
    """Given a command whose unknown parts hold NUL and line feeds, then its reason, which names them, holds none:
    Postgres would not store it, and a log would break."""
    with pytest.raises(UndecodableCommand) as refusal:
        decode_command(data)

    assert refusal.value.message.isprintable()
    assert "\\x00" in refusal.value.message
