"""A reversal is judged as a whole: it is made if no account ends below its limit, whatever way the original took."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.schemas.commands import Command, Credit, Debit, OpenAccount, Post, Reverse
from creditlane.schemas.identifiers import Position
from creditlane.schemas.journal import JournalRow
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.reversals import positions_of
from creditlane.worker.ledger.state import UNOPENED, BatchState, Outcome
from creditlane.worker.store.outbox import decided_rows, sequences_of

STORE = 1
ANN, BOB, CAT = ("cca_" + letter * 32 for letter in "abc")

Leg = tuple[str, str, int]


class Ledger:
    """The pure ledger over accounts that are open, with these balances and limits."""

    def __init__(self, balances: dict[str, int], limits: dict[str, int] | None = None) -> None:
        self.batch = BatchState({(STORE, account): UNOPENED for account in balances})
        self.batch.has_reversals = True
        for account, balance in balances.items():
            limit = (limits or {}).get(account, 0)
            self.apply(
                OpenAccount(
                    account_id=account,
                    idempotency_key=f"open {account}",
                    customer_id=account,
                    initial_balance=balance,
                    overdraft_limit=limit,
                )
            )

    def apply(self, *commands: Command) -> list[Outcome]:
        addressed = [
            ((STORE, str(command.account_id)), decode_command(encode_command(command, "store_default")))
            for command in commands
        ]
        return decide_all(addressed, self.batch, 1_000)

    def post(self, *legs: Leg, key: str = "post") -> JournalRow:
        entries = tuple({"account_id": account, "side": side, "amount": amount} for account, side, amount in legs)
        (outcome,) = self.apply(Post(reference="r", idempotency_key=key, entries=entries))  # type: ignore[arg-type]
        assert outcome.row is not None
        return outcome.row

    def reverse(self, transaction: JournalRow) -> Outcome:
        attempt = Reverse(account_id=transaction.account_id, transaction_id=str(transaction.transaction_id))
        (outcome,) = self.apply(attempt)
        return outcome

    def balance(self, account: str) -> int:
        return self.batch.accounts[STORE, account].balance


def spend(account: str, amount: int) -> Debit:
    return Debit(account_id=account, idempotency_key=f"spend {account}", amount=amount, reference="r")


PASSED_THROUGH: list[tuple[dict[str, int], list[Leg]]] = [
    # An account in the middle, empty before and after.
    ({ANN: 10, BOB: 0, CAT: 0}, [(ANN, "debit", 5), (BOB, "credit", 5), (BOB, "debit", 5), (CAT, "credit", 5)]),
    # In and out of one account that is empty.
    ({ANN: 0}, [(ANN, "credit", 7), (ANN, "debit", 7)]),
    # Out and in, of all there is.
    ({ANN: 7, BOB: 0}, [(ANN, "debit", 7), (BOB, "credit", 7), (BOB, "debit", 7), (ANN, "credit", 7)]),
]


@pytest.mark.parametrize(("balances", "legs"), PASSED_THROUGH)
def test_what_passed_through_an_account_is_reversed(balances: dict[str, int], legs: list[Leg]) -> None:
    ledger = Ledger(balances)
    made = ledger.post(*legs)
    assert made.rejection is None

    outcome = ledger.reverse(made)

    assert outcome.row is not None
    assert outcome.row.rejection is None
    assert {account: ledger.balance(account) for account in balances} == balances
    # What the database demands of each row, and the proof of the running balance.
    rows = sorted((outcome.row, *outcome.further), key=lambda row: (row.account_id, row.seq))
    assert all(row.balance_after >= 0 for row in rows)
    # Listed as the original lists what each undoes; the first holds the key, and all others name it.
    undone = [Position(row.account_id, row.reversal_of or 0) for row in (outcome.row, *outcome.further)]
    assert undone == positions_of(made)
    assert positions_of(outcome.row) == [Position(row.account_id, row.seq) for row in (outcome.row, *outcome.further)]
    assert {(row.transaction_account, row.transaction_seq) for row in outcome.further} == {
        (outcome.row.account_id, outcome.row.seq)
    }


def test_what_was_spent_since_counts_at_the_end_and_not_on_the_way() -> None:
    """Given out and in of one account, of which some was spent since, then the undo does not go below on its way."""
    ledger = Ledger({ANN: 5, BOB: 0})
    made = ledger.post((ANN, "debit", 5), (BOB, "credit", 5), (BOB, "debit", 4), (ANN, "credit", 4))
    ledger.apply(spend(ANN, 4))

    outcome = ledger.reverse(made)

    assert outcome.row is not None
    assert (outcome.row.rejection, ledger.balance(ANN), ledger.balance(BOB)) == (None, 1, 0)


def test_who_would_end_below_the_limit_is_named_with_what_the_whole_takes() -> None:
    """Given an account that gives 6 and gets 2, when it has 3 left, then the reversal needs 4 of it."""
    ledger = Ledger({ANN: 10, BOB: 0})
    made = ledger.post((ANN, "debit", 6), (BOB, "credit", 6), (BOB, "debit", 2), (ANN, "credit", 2))
    ledger.apply(spend(BOB, 1))

    outcome = ledger.reverse(made)

    assert outcome.row is not None
    assert outcome.row.rejection == "insufficient_balance"
    content = msgspec.json.decode(outcome.row.content or "")
    assert content["obstacle"] == {"account_id": BOB, "needed": "4", "available": "3"}
    assert (ledger.balance(ANN), ledger.balance(BOB)) == (6, 3)


def test_the_positions_of_its_entries_in_the_history_follow_their_numbers() -> None:
    """Given a refusal and then a reversal that takes and gives on one account, in one batch, then each decision says
    how many there were with it."""
    ledger = Ledger({ANN: 7, BOB: 0})
    made = ledger.post((ANN, "credit", 2), (BOB, "credit", 3), (ANN, "debit", 5))
    refused = Debit(account_id=ANN, idempotency_key="too much", amount=99, reference="r")
    reverse = Reverse(account_id=made.account_id, transaction_id=str(made.transaction_id))

    rows = decided_rows(ledger.apply(refused, reverse, refused.model_copy(update={"idempotency_key": "again"})))

    counts = sequences_of(rows, ledger.batch.accounts)
    of_ann = sorted((row.seq, count) for row, count in zip(rows, counts, strict=True) if row.account_id == ANN)
    # Three entries, a refusal, the two entries of the reversal, a refusal.
    assert of_ann == [(-2, 7), (-1, 4), (4, 5), (5, 6)]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, int], list[Leg], dict[str, int]]:
    """Return balances, limits, the legs of a post that balances, and what is spent or got afterwards."""
    accounts = [ANN, BOB, CAT]
    balances = {account: draw(st.integers(0, 12)) for account in accounts}
    limits = {account: draw(st.sampled_from([0, 0, 5])) for account in accounts}
    transfers = draw(
        st.lists(
            st.tuples(st.sampled_from(accounts), st.sampled_from(accounts), st.integers(1, 9)), min_size=1, max_size=4
        )
    )
    legs = [(source, "debit", amount) for source, _, amount in transfers]
    legs += [(target, "credit", amount) for _, target, amount in transfers]
    return balances, limits, draw(st.permutations(legs)), {account: draw(st.integers(-9, 9)) for account in accounts}


@given(world=worlds())
def test_a_reversal_is_made_exactly_if_no_account_ends_below_its_limit(world: Any) -> None:
    balances, limits, legs, since = world
    ledger = Ledger(balances, limits)
    made = ledger.post(*legs)
    if made.rejection is not None:
        return
    for account, amount in since.items():
        if amount > 0:
            credit = Credit(account_id=account, idempotency_key=f"get {account}", amount=amount, reference="r")
            ledger.apply(credit)
        elif amount < 0:
            ledger.apply(spend(account, -amount))
    net: Counter[str] = Counter()
    for account, side, amount in legs:
        net[account] += amount if side == "credit" else -amount
    ends = {account: ledger.balance(account) - net[account] for account in balances}

    outcome = ledger.reverse(made)

    assert outcome.row is not None
    is_possible = all(end >= -limits[account] for account, end in ends.items() if account in {leg[0] for leg in legs})
    assert (outcome.row.rejection is None) is is_possible
    if is_possible:
        assert {account: ledger.balance(account) for account in balances} == ends
        assert all(row.balance_after >= -limits[row.account_id] for row in (outcome.row, *outcome.further))
