"""Identifiers: what they hold can be read back, and the rules behind stored data do not move."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditlane.lanes.routing import partition_of
from creditlane.schemas.errors import InvalidCommand
from creditlane.schemas.identifiers import (
    Position,
    derive_account_id,
    entry_id,
    hold_id,
    hold_position_of,
    position_of,
    transaction_id,
)
from creditlane.schemas.installation import MAX_PARTITIONS
from creditlane.schemas.tickets import Ticket

ANN = "cca_" + "a" * 32

account_ids = st.uuids().map(lambda uuid: "cca_" + uuid.hex)
seqs = st.integers(1, 2**60 - 1)


@given(account_id=account_ids, seq=seqs)
def test_a_position_can_be_read_from_its_ids(account_id: str, seq: int) -> None:
    assert position_of(transaction_id(account_id, seq)) == Position(account_id, seq)
    assert position_of(entry_id(account_id, seq)) == Position(account_id, seq)
    assert hold_position_of(hold_id(account_id, seq)) == Position(account_id, seq)


def test_a_hold_is_no_transaction_and_a_transaction_no_hold() -> None:
    assert position_of(hold_id(ANN, 1)) is None
    assert hold_position_of(transaction_id(ANN, 1)) is None
    assert hold_position_of("cch_" + transaction_id(ANN, 1)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ANN,
        "cct_" + "a" * 32,
        "cct_" + "a" * 32 + "0",
        "cct_" + "a" * 32 + "01",
        "cct_" + "a" * 32 + "1" * 16,
        "cct_" + "A" * 32 + "1",
        "cct_" + "a" * 32 + "1\n",
        "cct_" + "a" * 31 + "\u0661" + "1",
        "ccx_" + "a" * 32 + "1",
    ],
)
def test_what_is_no_position_is_distinguished(text: str) -> None:
    assert position_of(text) is None


@pytest.mark.parametrize(
    ("account_id", "partition_of_64", "partition_of_8"),
    [
        ("cca_00000000000000000000000000000001", 45, 5),
        ("cca_00000000000000000000000000000002", 23, 7),
        ("cca_0000000000000000000000000000000d", 22, 6),
        (ANN, 28, 4),
    ],
)
def test_routing_never_changes(account_id: str, partition_of_64: int, partition_of_8: int) -> None:
    """Given an account, then its lane is the same in every release: commands of it may be on that lane now."""
    assert partition_of(account_id, 64) == partition_of_64
    assert partition_of(account_id, 8) == partition_of_8


@given(account_id=account_ids, partitions=st.integers(1, MAX_PARTITIONS))
def test_every_account_has_a_lane(account_id: str, partitions: int) -> None:
    assert 0 <= partition_of(account_id, partitions) < partitions


def test_the_derived_account_id_never_changes() -> None:
    """Given a store and a key, then opening with them gives the same account in every release."""
    assert derive_account_id("store_default", "open_1") == "cca_4b66e35037a9120c4469f4c33ad7db27"


def test_another_store_or_key_derives_another_account() -> None:
    pairs = [("store_a", "key"), ("store_b", "key"), ("store_a", "key2"), ("store_ak", "ey")]

    assert len({derive_account_id(store, key) for store, key in pairs}) == len(pairs)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(key=texts, account_id=account_ids, kept=st.booleans())
def test_a_ticket_survives_being_written_down(key: str, account_id: str, kept: bool) -> None:
    """Given a ticket, when its text is parsed elsewhere, then it finds the same command; who waits is left out."""
    ticket = Ticket("store_default", account_id, key, "1700000000000-3", "0123456789abcdef", kept, "producer", 7)

    text = str(ticket)

    assert text.isascii()
    assert text.replace("_", "").replace("-", "").isalnum()
    assert Ticket.parse(text) == Ticket("store_default", account_id, key, "1700000000000-3", "0123456789abcdef", kept)


def written(*fields: object) -> str:
    """Return the text of a ticket with these fields, whatever they are."""
    return "cmd_" + base64.urlsafe_b64encode(msgspec.json.encode(fields)).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cmd_",
        "cmd_!!!!",
        "cmd_a",
        "cmd_\u0661\u0661\u0661",
        "cmd_\ud800",
        "cmd_AAAA",
        "cmd_ AAAA",
        "x" * 1_000_000,
        written("store_default", ANN, "key", "1-0", "f"),
        written("store_default", ANN, "key", "1-0", "f", False, "more"),
        written("store_default", ANN, "key", "1-0", "f", 1),
        written("store_default", ANN, None, "1-0", "f", False),
        written({"store_id": "store_default"}),
    ],
)
def test_a_text_that_is_no_ticket_is_refused(text: str) -> None:
    with pytest.raises(InvalidCommand, match="ticket: must be the text") as refusal:
        Ticket.parse(text)

    assert refusal.value.field == "ticket"


@given(text=st.text())
def test_any_text_is_a_ticket_or_is_refused(text: str) -> None:
    ticket = refusal = None
    try:
        ticket = Ticket.parse(text)
    except InvalidCommand as error:
        refusal = error

    assert (refusal and refusal.field == "ticket") or (ticket and Ticket.parse(str(ticket)) == ticket)
