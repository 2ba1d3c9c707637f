"""The limits of an account: how each is set, what it stops, and what of it stands in the journal."""

from typing import Any, Literal

import msgspec
import pytest

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.schemas.accounts import AccountFeatures, AccountState
from creditlane.schemas.commands import Command, Credit, Debit, Post, Reverse, SetLimit
from creditlane.schemas.identifiers import Position, transaction_id
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.results import result_of_row
from creditlane.schemas.statuses import Status
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import BatchState, Outcome

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
STORE = 1
ACTIVE = AccountState(int(Status.ACTIVE), 100, 0, 2, 1, 500)
Limit = Literal["credit_limit", "max_balance", "low_balance"]


class Account:
    """One account, on which commands are decided one after another."""

    def __init__(self, **fields: Any) -> None:
        self.batch = BatchState({(STORE, ANN): msgspec.structs.replace(ACTIVE, **fields), (STORE, BOB): ACTIVE})
        self.batch.has_reversals = True
        self.number = 0

    @property
    def state(self) -> AccountState:
        return self.batch.accounts[STORE, ANN]

    def decide(self, command: Command) -> Outcome:
        on_lane = decode_command(encode_command(command, "store_default"))
        (outcome,) = decide_all([((STORE, on_lane.account_id), on_lane)], self.batch, 1_000_000)
        return outcome

    def row(self, command: Command) -> JournalRow:
        row = self.decide(command).row
        assert row is not None
        return row

    def key(self) -> str:
        self.number += 1
        return f"key {self.number}"

    def set(self, limit: Limit, amount: int | None) -> JournalRow:
        return self.row(SetLimit(account_id=ANN, idempotency_key=self.key(), limit=limit, amount=amount))

    def credit(self, amount: int, **fields: Any) -> JournalRow:
        return self.row(Credit(account_id=ANN, idempotency_key=self.key(), amount=amount, reference="r", **fields))

    def debit(self, amount: int, **fields: Any) -> JournalRow:
        return self.row(Debit(account_id=ANN, idempotency_key=self.key(), amount=amount, reference="r", **fields))

    def post(self, *legs: tuple[str, str, int]) -> JournalRow:
        entries = tuple({"account_id": who, "side": side, "amount": amount} for who, side, amount in legs)
        return self.row(Post(idempotency_key=self.key(), reference="r", entries=entries))  # type: ignore[arg-type]


def details_of(row: JournalRow) -> dict[str, Any]:
    error = result_of_row(row).error
    return {} if error is None else error.details


def test_a_credit_limit_lets_debits_below_zero_and_stands_on_every_row() -> None:
    account = Account()

    assert account.debit(101).rejection == "insufficient_balance"
    changed = account.set("credit_limit", 50)
    assert (changed.seq, changed.rejection, changed.overdraft_limit, changed.amount) == (-3, None, 50, None)
    assert (account.debit(150).overdraft_limit, account.state.balance) == (50, -50)
    assert account.debit(1).rejection == "insufficient_balance"


@pytest.mark.parametrize(("wanted", "refused"), [(50, False), (49, True), (None, True), (60, False)])
def test_a_credit_limit_below_what_is_used_of_it_is_refused(wanted: int | None, refused: bool) -> None:
    account = Account(balance=-20, overdraft_limit=100, features=AccountFeatures(held=30))

    row = account.set("credit_limit", wanted)

    assert row.rejection == ("credit_limit_in_use" if refused else None)
    assert details_of(row) == ({"used": "50"} if refused else {})
    assert account.state.overdraft_limit == (100 if refused else wanted)


def test_a_credit_limit_that_nothing_is_used_of_is_taken_away() -> None:
    account = Account(overdraft_limit=100)

    assert account.set("credit_limit", None).rejection is None
    assert account.state.overdraft_limit == 0
    assert account.debit(101).rejection == "insufficient_balance"


@pytest.mark.parametrize(("amount", "refused"), [(50, False), (51, True)])
def test_no_credit_takes_the_balance_above_its_maximum(amount: int, refused: bool) -> None:
    account = Account()
    account.set("max_balance", 150)

    row = account.credit(amount, metadata={"a": "b"})

    assert row.rejection == ("max_balance_exceeded" if refused else None)
    if refused:
        assert details_of(row) == {"needed": "51", "room": "50", "max_balance": "150"}
        assert msgspec.json.decode(row.content or "")["metadata"] == {"a": "b"}


def test_a_maximum_below_the_balance_takes_nothing_and_lets_nothing_in() -> None:
    account = Account()

    assert account.set("max_balance", 40).rejection is None
    assert account.state.balance == 100
    assert details_of(account.credit(1)) == {"needed": "1", "room": "0", "max_balance": "40"}
    assert account.debit(61).rejection is None
    assert account.credit(1).rejection is None
    assert account.credit(1).rejection == "max_balance_exceeded"
    assert account.set("max_balance", None).rejection is None
    assert account.credit(10**30).rejection is None


def test_a_transaction_is_judged_by_the_maximum_of_each_account_that_it_credits() -> None:
    account = Account()
    account.set("max_balance", 110)

    refused = account.post((BOB, "debit", 11), (ANN, "credit", 11))
    in_turn = account.post((ANN, "debit", 50), (BOB, "credit", 50), (BOB, "debit", 60), (ANN, "credit", 60))

    assert refused.rejection == "max_balance_exceeded"
    assert details_of(refused) == {"account_id": ANN, "needed": "11", "room": "10"}
    assert (in_turn.rejection, account.state.balance) == (None, 110)


def test_what_was_taken_is_given_back_above_the_maximum() -> None:
    account = Account()
    debit = account.debit(60)
    account.batch.originals[STORE, Position(ANN, debit.seq)] = debit
    account.set("max_balance", 40)

    given_back = account.row(Reverse(account_id=ANN, transaction_id=transaction_id(ANN, debit.seq)))

    assert (given_back.rejection, given_back.balance_after) == (None, 100)
    assert account.credit(1).rejection == "max_balance_exceeded"


def test_an_entry_names_the_threshold_that_it_falls_below_and_no_other_does() -> None:
    account = Account()
    account.debit(1)
    account.set("low_balance", 50)

    rows = [account.debit(49), account.debit(1, metadata={"a": "b"}), account.debit(1), account.credit(2)]
    rows += [account.post((ANN, "debit", 20), (BOB, "credit", 20)), account.debit(5)]
    account.set("low_balance", None)
    rows += [account.credit(50), account.debit(60)]

    named = [msgspec.json.decode(row.content or "{}").get("fallen_below") for row in rows]
    assert named == [None, "50", None, None, "50", None, None, None]
    # What else its content has stays what it was.
    assert msgspec.json.decode(rows[1].content or "")["metadata"] == {"a": "b"}
    assert [entry["amount"] for entry in msgspec.json.decode(rows[4].content or "")["entries"]] == ["20", "20"]


def test_an_account_without_any_limit_is_one_that_uses_nothing() -> None:
    account = Account()
    account.set("max_balance", 0)
    account.set("low_balance", 0)
    assert account.state.features == AccountFeatures(max_balance=0, low_balance=0)

    account.set("max_balance", None)
    account.set("low_balance", None)

    assert account.state.features is None


def test_a_limit_is_set_again_under_its_key_for_the_same_and_for_nothing_else() -> None:
    account = Account()
    fields: dict[str, Any] = {"account_id": ANN, "idempotency_key": "one"}
    first = account.decide(SetLimit(**fields, limit="max_balance", amount=5))

    again = account.decide(SetLimit(**fields, limit="max_balance", amount=5))
    others = [
        account.decide(SetLimit(**fields, limit="max_balance", amount=6)),
        account.decide(SetLimit(**fields, limit="max_balance")),
        account.decide(SetLimit(**fields, limit="low_balance", amount=5)),
    ]

    assert (again.row, again.replayed) == (first.row, True)
    differing = [other.refusal.details["fields"] for other in others if other.refusal is not None]
    assert differing == [["amount"], ["amount"], ["limit"]]
