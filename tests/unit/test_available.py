"""What of an account is available is said once: what is held counts wherever it is decided or shown.

No command holds anything yet, so these tests do: wherever something else is reckoned, one of them fails.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.producer.api import result_bodies as outcomes
from creditlane.producer.api.models.ledger import CreateAccount
from creditlane.producer.client.resolve import account_as_opened
from creditlane.producer.ledger import rows as ledger_rows
from creditlane.producer.ledger.rows import AccountRow, account_of
from creditlane.schemas import journal
from creditlane.schemas.accounts import AccountFeatures, AccountState
from creditlane.schemas.commands import Command, Debit, OpenAccount, Post, PostEntry, Reverse
from creditlane.schemas.identifiers import Position, transaction_id
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.results import Result, result_of_row
from creditlane.schemas.statuses import Status
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import BatchState, Outcome

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
#: 70 of 100 are there to be spent, and 5 below zero.
HELD = AccountState(int(Status.ACTIVE), 100, 5, entries=1, features=AccountFeatures(held=30))
EMPTY = AccountState(int(Status.ACTIVE), 0, 0)
CREDITED = JournalRow(1, ANN, 1, 2, 1, 100, 100, 5, "credited", "r", None, 1, None, None)


def taking(amount: int) -> list[Command]:
    """Return every kind of command that can take from an account, each so much of Ann's."""
    entries = (
        PostEntry(account_id=ANN, side="debit", amount=amount),
        PostEntry(account_id=BOB, side="credit", amount=amount),
    )
    return [
        Debit(account_id=ANN, idempotency_key="debit", amount=amount, reference="r"),
        Post(account_id=ANN, idempotency_key="post", reference="r", entries=entries),
        Reverse(account_id=ANN, transaction_id=transaction_id(ANN, 1)),
    ]


def decided(command: Command, amount: int) -> tuple[Outcome, AccountState]:
    batch = BatchState({(1, ANN): HELD, (1, BOB): EMPTY})
    batch.has_reversals = True
    batch.originals = {(1, Position(ANN, 1)): msgspec.structs.replace(CREDITED, amount=amount)}
    addressed = ((1, ANN), decode_command(encode_command(command, "store_default")))
    (outcome,) = decide_all([addressed], batch, 1)
    return outcome, batch.accounts[1, ANN]


def test_what_is_available_is_the_balance_without_what_is_held_and_with_the_overdraft() -> None:
    assert HELD.available == 100 - 30 + 5


@pytest.mark.parametrize("number", range(3), ids=["debit", "post", "reverse"])
def test_no_command_takes_what_is_held(number: int) -> None:
    """Given an account of which some is held, when a command takes all that is available, then it does and what is held
    stays so; when it takes one more, then it is refused."""
    outcome, after = decided(taking(75)[number], 75)
    assert outcome.row is not None
    assert outcome.row.rejection is None
    assert (after.balance, after.held, after.available) == (25, 30, 0)

    outcome, after = decided(taking(76)[number], 76)
    assert outcome.row is not None
    assert outcome.row.rejection == "insufficient_balance"
    assert (after.balance, after.held) == (100, 30)
    if outcome.row.content:
        obstacle = msgspec.json.decode(outcome.row.content).get("obstacle")
        assert obstacle in (None, {"account_id": ANN, "needed": "76", "available": "75"})


@pytest.fixture
def holding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 30 be held of every account, as far as that is not read yet."""

    def state(status: int, balance: int, overdraft_limit: int, **_: object) -> AccountState:
        return AccountState(status, balance, overdraft_limit, features=AccountFeatures(held=30))

    for module in (journal, ledger_rows, outcomes):
        monkeypatch.setattr(module, "AccountState", state)
    monkeypatch.setattr("creditlane.producer.client.resolve.AccountState", state)


@pytest.mark.usefixtures("holding")
def test_a_refusal_says_what_was_available() -> None:
    refused = msgspec.structs.replace(CREDITED, seq=-1, kind=3, amount=76, rejection="insufficient_balance")
    error = result_of_row(refused).error
    assert error is not None
    assert error.details == {"needed": "76", "available": "75"}
    assert "75 available" in error.message


class Shown(NamedTuple):
    balance: int
    held: int
    available: int


def shown(account: Any) -> Shown:
    return Shown(int(account.balance), int(account.held), int(account.available))


@pytest.mark.usefixtures("holding")
def test_an_account_is_shown_with_what_is_held_and_available() -> None:
    """Given accounts as they are read, and as their opening has left them, then all of them show the same sum."""
    row = AccountRow(ANN, "c", "n", "u", int(Status.ACTIVE), "100", "5", None, 1, 1, 1, None, "0", None)
    assert shown(account_of(row, "store_default")) == Shown(100, 30, 75)

    result = Result(status="applied", account_id=ANN, idempotency_key="k", balance=100, decided_at="2026-01-01T00:00Z")  # type: ignore[arg-type]
    command = OpenAccount(customer_id="c", idempotency_key="k", initial_balance=100, overdraft_limit=5)
    opened = account_as_opened(command, result, "store_default")
    assert shown(opened) == Shown(100, 30, 75)

    body = CreateAccount(customer_id="c", name="n", unit_label="u", initial_balance="100")
    assert shown(outcomes.opened_account(body, result, "store_default")) == Shown(100, 30, 70)
