"""A line becomes the very bytes that the client would send, or a problem that names the field."""

import json
from typing import Any

import pytest

from creditlane import Close, Command, Credit, Debit, OpenAccount, Post, Reverse, SetLimit
from creditlane.lanes.encoding import MAX_COMMAND_BYTES, encode_command
from creditlane.producer.api.batch_lines import LineSplitter, command_of
from creditlane.producer.api.errors import Problem
from creditlane.producer.client.chunks import addressed

STORE = "store_default"
ACCOUNT = "cca_" + "0" * 31 + "1"
OTHER = "cca_" + "0" * 31 + "2"
URL = "https://example.com/hook"
PLAIN = {"kind": "debit", "account_id": ACCOUNT, "amount": "5", "reference": "r", "idempotency_key": "k"}
ENTRIES = [
    {"account_id": ACCOUNT, "side": "debit", "amount": "5"},
    {"account_id": OTHER, "side": "credit", "amount": "5"},
]


def line_of(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


COMMANDS: list[tuple[dict[str, Any], Command]] = [
    (PLAIN, Debit(account_id=ACCOUNT, amount=5, reference="r", idempotency_key="k")),
    (
        {**PLAIN, "kind": "credit", "amount": "9" * 1_000, "reference": "é\n"},
        Credit(account_id=ACCOUNT, amount="9" * 1_000, reference="é\n", idempotency_key="k"),  # type: ignore[arg-type]
    ),
    (
        {**PLAIN, "metadata": {"b": "1", "a": "2"}},
        Debit(account_id=ACCOUNT, amount=5, reference="r", idempotency_key="k", metadata={"a": "2", "b": "1"}),
    ),
    (
        {"kind": "post", "reference": "r", "idempotency_key": "k", "entries": ENTRIES},
        Post(reference="r", idempotency_key="k", entries=ENTRIES),  # type: ignore[arg-type]
    ),
    (
        {"kind": "open_account", "customer_id": "c", "name": " N ", "initial_balance": "7", "idempotency_key": "k"},
        OpenAccount(customer_id="c", name="N", initial_balance=7, idempotency_key="k"),
    ),
    (
        {"kind": "reverse", "transaction_id": f"cct_{ACCOUNT[4:]}1"},
        Reverse(account_id=ACCOUNT, transaction_id=f"cct_{ACCOUNT[4:]}1"),
    ),
    (
        {"kind": "close", "account_id": ACCOUNT, "idempotency_key": "k"},
        Close(account_id=ACCOUNT, idempotency_key="k"),
    ),
    (
        {"kind": "set_limit", "account_id": ACCOUNT, "limit": "max_balance", "amount": "0", "idempotency_key": "k"},
        SetLimit(account_id=ACCOUNT, limit="max_balance", amount=0, idempotency_key="k"),
    ),
    (
        {"kind": "set_limit", "account_id": ACCOUNT, "limit": "low_balance", "amount": None, "idempotency_key": "k"},
        SetLimit(account_id=ACCOUNT, limit="low_balance", idempotency_key="k"),
    ),
    (
        {**PLAIN, "callback_url": URL},
        Debit(account_id=ACCOUNT, amount=5, reference="r", idempotency_key="k", callback_url=URL),
    ),
    (
        {"kind": "reverse", "transaction_id": f"cct_{ACCOUNT[4:]}1", "callback_url": URL},
        Reverse(account_id=ACCOUNT, transaction_id=f"cct_{ACCOUNT[4:]}1", callback_url=URL),
    ),
    (
        {"kind": "close", "account_id": ACCOUNT, "idempotency_key": "k", "callback_url": URL},
        Close(account_id=ACCOUNT, idempotency_key="k", callback_url=URL),
    ),
]


@pytest.mark.parametrize(("fields", "command"), COMMANDS, ids=lambda value: getattr(value, "kind", ""))
def test_a_line_is_encoded_as_the_client_would(fields: dict[str, Any], command: Command) -> None:
    command = addressed(command, STORE)

    ready = command_of(line_of(**fields), STORE)

    if isinstance(command, Reverse):
        # Every attempt has a key of its own.
        command = command.model_copy(update={"idempotency_key": ready.idempotency_key})
    assert ready.encoded == encode_command(command, STORE)
    assert (ready.account_id, ready.idempotency_key) == (command.account_id, command.idempotency_key)


def test_a_change_of_state_without_a_key_gets_one_of_its_own() -> None:
    line = line_of(kind="freeze", account_id=ACCOUNT)

    assert command_of(line, STORE).idempotency_key != command_of(line, STORE).idempotency_key


BAD: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b"\xff", None),
    (b"[" * 10_000, None),
    (line_of(), "kind"),
    (line_of(**{**PLAIN, "kind": "steal"}), "kind"),
    (line_of(**{**PLAIN, "amount": 5}), "amount"),
    (line_of(**{**PLAIN, "amount": "0"}), "amount"),
    (line_of(**{**PLAIN, "amount": "\u0661"}), "amount"),
    (line_of(**{**PLAIN, "amount": "9" * 1_001}), "amount"),
    (line_of(**{**PLAIN, "reference": ""}), "reference"),
    (line_of(**{**PLAIN, "reference": "a\0b"}), "reference"),
    (line_of(**{**PLAIN, "reference": "r" * 256}), "reference"),
    (line_of(**{**PLAIN, "reference": "\ud800"}), None),
    (line_of(**{**PLAIN, "idempotency_key": None}), "idempotency_key"),
    (line_of(**{**PLAIN, "idempotency_key": "reversal:x"}), "idempotency_key"),
    (line_of(**{name: value for name, value in PLAIN.items() if name != "idempotency_key"}), "idempotency_key"),
    (line_of(**PLAIN)[:-1] + b',"amount":"6"}', "amount"),
    (line_of(**PLAIN)[:-1] + b',"\\u0061mount":"5"}', "amount"),
    (line_of(**PLAIN)[:-1] + b',"amount":6}', "amount"),
    (line_of(**PLAIN, metadata={})[:-2] + b'"a":"1","a":"1"}}', "a"),
    (line_of(**{**PLAIN, "account_id": "cca_x"}), "account_id"),
    (line_of(**{**PLAIN, "account_id": ACCOUNT + "\n"}), "account_id"),
    (line_of(**{**PLAIN, "store_id": "store_other"}), "store_id"),
    (line_of(**{**PLAIN, "v": 1}), "v"),
    (line_of(**{**PLAIN, "metadata": {"a": 1}}), "metadata.a"),
    (line_of(kind="post", reference="r", idempotency_key="k", entries=ENTRIES[:1]), "entries"),
    (line_of(kind="post", reference="r", idempotency_key="k", entries=[{"amount": 5}] * 2), "entries.0.account_id"),
    (line_of(kind="reverse", transaction_id="cct_x"), "transaction_id"),
    (line_of(kind="open_account", customer_id="c", initial_balance=5), "initial_balance"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "param"), BAD, ids=lambda value: repr(value)[:50])
def test_a_bad_line_names_its_field(line: bytes, param: str | None) -> None:
    with pytest.raises(Problem) as caught:
        command_of(line, STORE)

    assert (caught.value.code, caught.value.status) == ("validation_error", 400)
    assert caught.value.param == param


def test_a_command_larger_than_a_lane_takes_is_refused() -> None:
    metadata = {"\x01" * 38 + f"{number:02}": "\x01" * 500 for number in range(50)}
    entries = [{"account_id": ACCOUNT, "side": "debit", "amount": "9" * 1_000}] * 100

    with pytest.raises(Problem) as caught:
        command_of(line_of(kind="post", reference="r", idempotency_key="k", entries=entries, metadata=metadata), STORE)

    assert caught.value.code == "too_large"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_a_body_in_any_parts_has_the_same_lines(size: int) -> None:
    body = b"one\n\ntwo\r\nthree\n" + b"x" * 20 + b"\nlast"
    splitter = LineSplitter()

    lines = [line for start in range(0, len(body), size) for line in splitter.feed(body[start : start + size])]

    assert [*lines, *splitter.finish()] == body.split(b"\n")


def test_a_body_that_ends_with_its_last_line_has_no_further_one() -> None:
    splitter = LineSplitter()

    assert [*splitter.feed(b"one\ntwo\n"), *splitter.finish()] == [b"one", b"two"]


def test_a_line_that_is_too_long_is_known_without_being_held() -> None:
    splitter = LineSplitter()
    lines: list[bytes | None] = []
    for _ in range(100):
        lines += splitter.feed(b"x" * MAX_COMMAND_BYTES)
        assert sum(map(len, splitter._parts)) <= MAX_COMMAND_BYTES
    lines += splitter.feed(b"\nshort\n")

    assert lines == [None, b"short"]
