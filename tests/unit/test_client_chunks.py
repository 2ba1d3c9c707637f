"""What a client refuses before anything is sent, and how commands are grouped on their way to the lanes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from creditlane import Close, Command, Credit, Debit, InvalidCommand, OpenAccount, Reverse
from creditlane.lanes.encoding import decode_command, encode_command, fingerprint
from creditlane.lanes.routing import partition_of
from creditlane.producer.client import chunks
from creditlane.producer.client.chunks import chunk_of, chunk_of_encoded, chunks_of, make_command, valid_account_id
from creditlane.schemas.identifiers import derive_account_id

STORE = "store_default"
ACCOUNT = "cca_" + "0" * 31 + "1"
DEBIT = {"account_id": ACCOUNT, "amount": 5, "reference": "req_1", "idempotency_key": "key_1"}
OPENING = {"customer_id": "cust_1", "name": "main", "unit_label": "tokens"}


def debits(count: int) -> list[Debit]:
    return [Debit(**DEBIT | {"idempotency_key": f"key_{number}"}) for number in range(count)]


@pytest.mark.parametrize(
    "amount", [0, -1, 1.5, 5.0, True, None, "", "0", "05", "1.5", "1e3", "-1", " 5", "\u0661", 10**1_000]
)
def test_an_amount_that_is_no_positive_whole_number_is_refused(amount: object) -> None:
    with pytest.raises(InvalidCommand, match="amount") as caught:
        make_command(Debit, **DEBIT | {"amount": amount})

    assert caught.value.field == "amount"


@pytest.mark.parametrize("text", ["", "x" * 256, "a\0b", "\ud800", 5, None])
@pytest.mark.parametrize("field", ["reference", "idempotency_key"])
def test_a_text_that_postgres_or_an_index_could_not_hold_is_refused(field: str, text: object) -> None:
    with pytest.raises(InvalidCommand, match=field) as caught:
        make_command(Debit, **DEBIT | {field: text})

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("customer_id", ""),
        ("name", "   "),
        ("name", "x" * 101),
        ("unit_label", "a\0b"),
        ("initial_balance", -1),
        ("initial_balance", 0.0),
        ("overdraft_limit", "-5"),
        ("account_id", "cca_1"),
    ],
)
def test_an_account_is_not_opened_with_a_field_that_breaks_its_rule(field: str, value: object) -> None:
    with pytest.raises(InvalidCommand, match=field) as caught:
        make_command(OpenAccount, **OPENING | {field: value})

    assert caught.value.field == field


@pytest.mark.parametrize("account_id", ["", "cca_", "cca_" + "G" * 32, ACCOUNT + "\n", "cct_" + "0" * 32, None, 5])
def test_what_has_not_the_form_of_an_account_id_is_refused(account_id: Any) -> None:
    with pytest.raises(InvalidCommand) as read:
        valid_account_id(account_id)
    with pytest.raises(InvalidCommand) as sent:
        make_command(Close, account_id=account_id, idempotency_key="key_1")

    assert (read.value.field, sent.value.field) == ("account_id", "account_id")


def test_the_keys_of_reversals_belong_to_reversals() -> None:
    with pytest.raises(InvalidCommand, match="idempotency_key"):
        make_command(Credit, **DEBIT | {"idempotency_key": "reversal:mine"})
    with pytest.raises(InvalidCommand, match="transaction_id"):
        make_command(Reverse, account_id=ACCOUNT, transaction_id="cct_1")


def test_a_client_sends_no_command_of_another_store() -> None:
    with pytest.raises(InvalidCommand, match="store_default") as caught:
        chunk_of(Debit(**DEBIT, store_id="store_other"), STORE, 8)

    assert caught.value.field == "store_id"


@pytest.mark.parametrize("thing", [None, "debit", {"kind": "debit"}, Command(account_id=ACCOUNT, idempotency_key="k")])
def test_what_is_no_command_is_refused(thing: Any) -> None:
    with pytest.raises(InvalidCommand, match="must be one of the commands"):
        chunk_of(thing, STORE, 8)


def test_opening_with_one_key_leads_to_one_account_however_often_it_is_sent() -> None:
    command = OpenAccount(**OPENING, idempotency_key="open_1")

    first, second = chunk_of(command, STORE, 8), chunk_of(command, STORE, 8)

    assert first.accounts == second.accounts == [derive_account_id(STORE, "open_1")]
    assert first.fingerprints == second.fingerprints


def test_a_chunk_keeps_the_order_of_every_lane() -> None:
    accounts = ["cca_" + f"{number:032x}" for number in range(5)]
    commands = [
        Debit(**DEBIT | {"account_id": accounts[number % 5], "idempotency_key": f"key_{number}"})
        for number in range(50)
    ]

    (chunk,) = chunks_of(commands, STORE, 3)

    assert sorted(position for positions in chunk.lanes.values() for position in positions) == list(range(50))
    for partition, positions in chunk.lanes.items():
        assert positions == sorted(positions)
        assert {partition_of(chunk.accounts[position], 3) for position in positions} == {partition}
    assert [decode_command(encoded).idempotency_key for encoded in chunk.encoded] == chunk.keys


def test_an_encoded_command_goes_to_its_lane_byte_for_byte() -> None:
    encoded = encode_command(Debit(**DEBIT), STORE)

    chunk = chunk_of_encoded(STORE, ACCOUNT, "key_1", encoded, 8)

    assert (chunk.encoded, chunk.fingerprints) == ([encoded], [fingerprint(encoded)])


def with_a_command_of_another_store() -> Iterator[Command]:
    yield from debits(5)
    yield Debit(**DEBIT, store_id="store_other")


def with_a_command_that_cannot_be_made() -> Iterator[Command]:
    yield from debits(5)
    yield Debit(**DEBIT | {"amount": 1.5})


@pytest.mark.parametrize(
    ("commands", "field"),
    [(with_a_command_of_another_store, "store_id"), (with_a_command_that_cannot_be_made, "amount")],
)
def test_a_bad_command_in_a_bulk_is_named_after_everything_before_it(
    commands: Callable[[], Iterator[Command]], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_COMMANDS", 2)
    taken = []

    with pytest.raises(InvalidCommand, match=r"command 5: .*the 5 before it were accepted") as caught:
        taken.extend(len(chunk) for chunk in chunks_of(commands(), STORE, 8))

    assert taken == [2, 2, 1]
    assert caught.value.field == field


def test_an_error_of_the_callers_own_generator_comes_through_after_what_it_yielded() -> None:
    def commands() -> Iterator[Command]:
        yield from debits(3)
        raise LookupError("the meter is gone")

    taken = []
    with pytest.raises(LookupError, match="the meter is gone"):
        taken.extend(len(chunk) for chunk in chunks_of(commands(), STORE, 8))

    assert taken == [3]


def test_no_error_repeats_what_was_typed_in() -> None:
    with pytest.raises(ValidationError):
        Debit(**DEBIT | {"reference": "secret" * 100})
    with pytest.raises(InvalidCommand) as caught:
        make_command(Debit, **DEBIT | {"reference": "secret" * 100})

    assert "secret" not in str(caught.value)
