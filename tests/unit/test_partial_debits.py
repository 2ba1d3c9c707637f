"""A debit that takes what is there: how much it takes, what it says is missing, and by what a repetition is known."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditlane import Credit, Debit
from creditlane.lanes.encoding import PlainCommand, decode_command, encode_command
from creditlane.schemas.accounts import AccountFeatures, AccountState
from creditlane.schemas.journal import Announcement
from creditlane.schemas.kinds import content_of_row
from creditlane.schemas.results import Result, result_of_announcement
from creditlane.schemas.statuses import Status
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import UNOPENED, BatchState, Outcome
from creditlane.worker.webhooks.callbacks import callback_event
from creditlane.worker.webhooks.event_bodies import OutboxItem, events_of
from tests.described_events import assert_described

ANN = "cca_" + "a" * 32
KEY = (1, ANN)
ACTIVE = AccountState(int(Status.ACTIVE), 100, 0, 2, 1, 500)


def debit(amount: int, key: str = "d", *, allow_partial: bool = True, **fields: object) -> Debit:
    values = {"account_id": ANN, "idempotency_key": key, "amount": amount, "reference": "r", **fields}
    return Debit(**values, allow_partial=allow_partial)  # type: ignore[arg-type]


def decided(state: AccountState, *commands: Debit | Credit) -> tuple[list[Outcome], BatchState]:
    batch = BatchState({KEY: state})
    addressed = [(KEY, decode_command(encode_command(command, "store_default"))) for command in commands]
    return decide_all(addressed, batch, 1_000), batch


def result_of(outcome: Outcome) -> Result:
    return result_of_announcement(Announcement(0, outcome.row, outcome.replayed, outcome.refusal), ANN, "d")


@given(
    balance=st.integers(-50, 100),
    limit=st.integers(0, 60),
    held=st.integers(0, 40),
    amount=st.integers(1, 200),
)
def test_it_takes_the_lesser_of_what_is_asked_and_what_is_available(
    balance: int, limit: int, held: int, amount: int
) -> None:
    """Given any account, then a debit takes what it can; with what is missing that is what was asked for."""
    features = AccountFeatures(held) if held else None
    state = AccountState(int(Status.ACTIVE), balance, limit, 2, 1, 500, features)
    (outcome,), batch = decided(state, debit(amount))
    result, available = result_of(outcome), balance - held + limit

    if available <= 0:
        assert (result.status, result.shortfall) == ("rejected", None)
        assert result.error is not None
        assert result.error.code == "insufficient_balance"
        assert batch.accounts[KEY].balance == balance
    else:
        assert (result.status, result.amount) == ("applied", min(amount, available))
        assert result.shortfall == max(0, amount - available)
        assert batch.accounts[KEY].available == max(0, available - amount)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (UNOPENED, "account_not_found"),
        (msgspec.structs.replace(ACTIVE, status=int(Status.FROZEN)), "account_frozen"),
        (msgspec.structs.replace(ACTIVE, status=int(Status.CLOSED)), "account_closed"),
    ],
    ids=["unopened", "frozen", "closed"],
)
def test_on_an_account_that_does_not_move_it_is_refused_as_any_debit(state: AccountState, code: str) -> None:
    (outcome,), _ = decided(state, debit(5))
    assert outcome.row is not None
    assert (outcome.row.rejection, outcome.row.amount) == (code, 5)


def test_a_repetition_is_known_by_what_it_asks_for_not_by_what_was_taken() -> None:
    """Given a debit that took less, then the same again is its replay, and one of what was taken is another request."""
    asked = debit(250, metadata={"a": "b"})
    outcomes, _ = decided(
        ACTIVE,
        asked,
        asked,
        debit(100, metadata={"a": "b"}),
        debit(250, metadata={"a": "b"}, allow_partial=False),
        debit(250, allow_partial=False),
    )
    first, again, *others = outcomes
    assert again == Outcome(first.row, replayed=True)
    assert result_of(again).shortfall == 150
    differing = [other.refusal.details["fields"] for other in others if other.refusal]
    assert differing == [["amount"], ["allow_partial"], ["metadata", "allow_partial"]]


def test_a_plain_debit_is_no_repetition_of_it_nor_it_of_a_plain_one() -> None:
    for first, second in ((debit(5), debit(5, allow_partial=False)), (debit(5, allow_partial=False), debit(5))):
        (_, outcome), _ = decided(ACTIVE, first, second)
        assert outcome.refusal is not None
        assert outcome.refusal.details["fields"] == ["allow_partial"]


def test_what_the_row_says_was_asked_for_is_what_was_asked_for() -> None:
    for amount in (40, 100, 250):
        (outcome,), _ = decided(ACTIVE, debit(amount))
        assert outcome.row is not None
        content = content_of_row(outcome.row)
        assert content == {"amount": amount, "reference": "r", "metadata": None, "allow_partial": True}


def test_a_debit_that_does_not_ask_for_it_stays_plain() -> None:
    """Given a plain debit, then it comes off the lane as before, and its row has no content."""
    command = debit(5, allow_partial=False)
    assert type(decode_command(encode_command(command, "store_default"))) is PlainCommand
    (outcome,), _ = decided(ACTIVE, command)
    assert outcome.row is not None
    assert outcome.row.content is None
    assert result_of(outcome).shortfall is None


def test_a_metadata_pair_of_the_name_is_not_taken_for_what_was_asked() -> None:
    (outcome,), _ = decided(ACTIVE, debit(5, allow_partial=False, metadata={"asked": "7"}))
    assert result_of(outcome).shortfall is None


def test_its_event_and_its_callback_say_what_is_missing() -> None:
    outcomes, _ = decided(ACTIVE, debit(250), debit(1, "e", allow_partial=False))
    bodies = []
    for row in (outcome.row for outcome in outcomes):
        assert row is not None
        item = OutboxItem(row, 3, "store_default", "c", "n", "u", 1, None)
        if row.rejection is None:
            bodies += [msgspec.json.decode(event.body) for event in events_of(item, {"credits.consumed"})]
        url = "https://example.com/x"
        told = callback_event(1, ANN, row.idempotency_key, url, row, sequence=3, written_at_us=1)
        bodies.append(msgspec.json.decode(told.body))
    consumed, of_partial, of_plain = bodies
    assert (consumed["object"]["amount_minor_units"], consumed["object"]["shortfall_minor_units"]) == ("100", "150")
    assert (of_partial["object"]["amount"], of_partial["object"]["shortfall"]) == ("100", "150")
    assert "shortfall" not in of_plain["object"]
    assert_described([consumed, of_partial, of_plain])
