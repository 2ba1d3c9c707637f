"""A ticket's command is kept apart from another request under the same key, and nobody gets another's result."""

import json

import msgspec
import pytest

from creditlane import Close, Command, Credit, Debit, Freeze, InvalidCommand, OpenAccount, Reverse, Ticket, Unfreeze
from creditlane.lanes.encoding import encode_command, fingerprint
from creditlane.producer.client.chunks import addressed
from creditlane.producer.client.resolve import own_ticket, resolve, resolve_all, resolve_announced
from creditlane.producer.ledger.command_reads import DeadLetterRow
from creditlane.schemas.journal import Announcement, JournalRow, Refusal
from creditlane.schemas.kinds import Kind

STORE = "store_default"
ACCOUNT = "cca_" + "0" * 31 + "1"
TRANSACTION = f"cct_{ACCOUNT[4:]}7"
REVERSAL = Reverse(account_id=ACCOUNT, transaction_id=TRANSACTION)
PART = Reverse(account_id=ACCOUNT, transaction_id=TRANSACTION, amount=3, idempotency_key="part")
DEBIT = Debit(account_id=ACCOUNT, amount=10**30, reference="req_1", idempotency_key="key_1")


def ticket_for(command: Command, *, lane_entry: str = "5-0") -> Ticket:
    command = addressed(command, STORE)
    digest = fingerprint(encode_command(command, STORE))
    return Ticket(STORE, command.account_id, command.idempotency_key, lane_entry, digest)


def row_for(command: Command, kind: Kind, **fields: object) -> JournalRow:
    command = addressed(command, STORE)
    values: dict[str, object] = {
        "store_id": 1,
        "account_id": command.account_id,
        "seq": 3,
        "kind": kind,
        "side": 0,
        "amount": None,
        "balance_after": 0,
        "overdraft_limit": 0,
        "idempotency_key": command.idempotency_key,
        "reference": None,
        "reversal_of": None,
        "created_at_us": 1,
        "rejection": None,
        "content": None,
    }
    return JournalRow(**values | fields)  # type: ignore[arg-type]


def debit_row(**fields: object) -> JournalRow:
    return msgspec.structs.replace(row_for(DEBIT, Kind.DEBIT, side=-1, amount=10**30, reference="req_1"), **fields)


OPENING = OpenAccount(
    customer_id="c", name="Ünïcode", unit_label="tokens", initial_balance=7, overdraft_limit="9", idempotency_key="open"
)
OPENING_CONTENT = json.dumps(
    {"name": "Ünïcode", "unit_label": "tokens", "overdraft_limit": "9", "customer_id": "c", "initial_balance": "7"}
)
STATE = {"account_id": ACCOUNT, "idempotency_key": "key_1"}


@pytest.mark.parametrize(
    ("command", "row"),
    [
        (DEBIT, debit_row()),
        (
            Credit(account_id=ACCOUNT, amount="5", reference="r", idempotency_key="key_1"),
            row_for(DEBIT, Kind.CREDIT, amount=5, reference="r", side=1),
        ),
        (OPENING, row_for(OPENING, Kind.OPEN_ACCOUNT, side=1, amount=7, content=OPENING_CONTENT)),
        (
            REVERSAL,
            row_for(REVERSAL, Kind.REVERSE, side=1, amount=3, reversal_of=7, idempotency_key=f"reversal:{TRANSACTION}"),
        ),
        (
            REVERSAL,
            row_for(REVERSAL, Kind.REVERSE, side=1, amount=3, reversal_of=7),
        ),
        (
            PART,
            row_for(PART, Kind.REVERSE, side=1, amount=3, reversal_of=7, content='{"amount": "3"}'),
        ),
        (Freeze(**STATE), row_for(DEBIT, Kind.FREEZE, seq=-1)),
        (Unfreeze(**STATE), row_for(DEBIT, Kind.UNFREEZE, seq=-1)),
        (Close(**STATE), row_for(DEBIT, Kind.CLOSE, seq=-1)),
    ],
    ids=lambda value: value.kind if isinstance(value, Command) else "",
)
def test_every_kind_of_command_is_recognised_by_its_row(command: Command, row: JournalRow) -> None:
    result = resolve(ticket_for(command), row, ())

    assert result is not None
    assert (result.status, result.error) == ("applied", None)


def test_a_part_that_is_queued_is_not_answered_with_the_whole_reversal() -> None:
    """Given the whole reversal of a transaction, when its tickets are asked about, then a part is still undecided, and
    every attempt at the whole has it for its result."""
    key = f"reversal:{TRANSACTION}"
    whole = row_for(REVERSAL, Kind.REVERSE, side=1, amount=3, reversal_of=7, idempotency_key=key)

    part, attempt = resolve_all([ticket_for(PART), ticket_for(REVERSAL)], {key: whole}, ())

    assert part is None
    assert attempt is not None
    assert (attempt.status, attempt.idempotency_key) == ("applied", key)


def test_a_command_with_a_callback_is_recognised_by_a_row_that_does_not_have_it() -> None:
    """Given that the first attempt of a request named another callback or none, then it is still the same request."""
    result = resolve(ticket_for(DEBIT.model_copy(update={"callback_url": "https://example.com/"})), debit_row(), ())

    assert result is not None
    assert (result.status, result.error) == ("applied", None)


@pytest.mark.parametrize(
    "row",
    [
        debit_row(amount=10**30 + 1),
        debit_row(reference="req_2"),
        debit_row(kind=Kind.CREDIT, side=1),
        debit_row(kind=Kind.CLOSE),
        debit_row(account_id="cca_" + "0" * 31 + "2"),
    ],
    ids=["amount", "reference", "kind", "other fields", "account"],
)
def test_a_key_that_belongs_to_another_request_is_a_mismatch_and_not_its_result(row: JournalRow) -> None:
    result = resolve(ticket_for(DEBIT), row, ())

    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.code) == ("rejected", "idempotency_key_mismatch")
    assert (result.balance, result.transaction_id, result.account_id) == (None, None, ACCOUNT)


def test_a_poll_key_with_the_announcement_of_another_request_says_nothing() -> None:
    mismatch = Announcement(0, None, refusal=Refusal("idempotency_key_mismatch", "used before"))

    assert resolve_announced(ticket_for(DEBIT), [Announcement(0, debit_row(amount=4)), mismatch]) is None
    found = resolve_announced(ticket_for(DEBIT), [Announcement(0, debit_row(), replayed=True)])
    assert found is not None
    assert found.replayed


@pytest.mark.parametrize(
    ("of_entry", "replayed", "expected"),
    [("5-0", False, False), ("5-0", True, True), ("4-9", False, True), ("4-9", True, True), ("", True, True)],
)
def test_the_announcement_in_a_poll_key_says_of_each_entry_whether_it_was_the_first(
    of_entry: str, expected: bool, *, replayed: bool
) -> None:
    announcement = Announcement(0, debit_row(), replayed=replayed, lane_entry=of_entry)

    found = resolve_announced(ticket_for(DEBIT, lane_entry="5-0"), [announcement])

    assert found is not None
    assert found.replayed is expected


def test_the_announcement_of_a_later_entry_does_not_say_whether_an_earlier_one_was_the_first() -> None:
    announcement = Announcement(0, debit_row(), replayed=True, lane_entry="5-10")

    assert resolve_announced(ticket_for(DEBIT, lane_entry="5-9"), [announcement]) is None


def letter(*, lane_entry: str = "5-0", command: Command = DEBIT, replayed: bool = False) -> DeadLetterRow:
    return DeadLetterRow("key_1", lane_entry, encode_command(command, STORE), "too odd", replayed)


def status_of(*letters: DeadLetterRow) -> str | None:
    result = resolve(ticket_for(DEBIT), None, letters)
    return result.status if result else None


def test_a_dead_letter_is_reported_with_its_reason() -> None:
    result = resolve(ticket_for(DEBIT), None, [letter()])

    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.code) == ("dead_lettered", "dead_lettered")
    assert "too odd" in result.error.message


def test_a_dead_letter_counts_only_for_the_attempt_that_it_holds() -> None:
    other = Debit(account_id=ACCOUNT, amount=1, reference="req_1", idempotency_key="key_1")

    assert status_of(letter(command=other)) is None
    assert status_of(letter(lane_entry="4-0")) is None
    assert status_of(letter(replayed=True)) == "queued"
    assert status_of(letter(replayed=True), letter(lane_entry="9-0")) == "dead_lettered"


@pytest.mark.parametrize(
    "changes",
    [
        {"account_id": "cca_1"},
        {"lane_entry": "-"},
        {"lane_entry": "+"},
        {"lane_entry": "9" * 30 + "-0"},
        {"idempotency_key": ""},
        {"idempotency_key": "a\0b"},
        {"store_id": "store_other"},
    ],
    ids=str,
)
def test_a_forged_ticket_reaches_neither_redis_nor_postgres(changes: dict[str, str]) -> None:
    ticket = ticket_for(DEBIT)
    fields = {name: getattr(ticket, name) for name in ticket.__struct_fields__}
    forged = Ticket(**{**fields, **changes})

    with pytest.raises(InvalidCommand, match="ticket"):
        own_ticket(str(forged), STORE)


def test_a_ticket_survives_as_text() -> None:
    ticket = ticket_for(DEBIT)

    assert own_ticket(str(ticket), STORE) == ticket


@pytest.mark.parametrize(("decided_ms", "replayed"), [(1_000, True), (8_999, True), (9_000, False), (10_003, False)])
def test_a_row_that_is_older_than_the_ticket_is_a_repeat(decided_ms: int, *, replayed: bool) -> None:
    # Given a command that was accepted ten seconds after 1970
    ticket = ticket_for(DEBIT, lane_entry="10000-0")
    # When Postgres has its row, decided then
    result = resolve(ticket, debit_row(created_at_us=decided_ms * 1_000), ())
    # Then it is a repeat if the row is older by more than two clocks may differ
    assert result is not None
    assert result.replayed is replayed
