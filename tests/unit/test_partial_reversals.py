"""A transaction of one entry is reversed in parts, each under a key of its own, and never by more than it moved."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from creditlane import Credit, Debit, IdempotencyKeyMismatch, OpenAccount, Post, Result, Reverse
from creditlane.lanes.encoding import decode_command, encode_command, fingerprint
from creditlane.schemas.commands import Command, reversed_transaction
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.kinds import content_of_row
from creditlane.schemas.results import result_of_row
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import UNOPENED, BatchState, Outcome

STORE = 1
ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
SPENT = f"cct_{ANN[4:]}2"


class Ledger:
    """The pure ledger with Ann, who got 100 and spent 30 of it, and Bob, who has nothing."""

    def __init__(self) -> None:
        self.batch = BatchState({(STORE, account): UNOPENED for account in (ANN, BOB)})
        self.batch.has_reversals = True
        for account in (ANN, BOB):
            self.apply(OpenAccount(account_id=account, idempotency_key=f"open {account}", customer_id=account))
        self.apply(Credit(account_id=ANN, idempotency_key="credit", amount=100, reference="sale"))
        self.apply(Debit(account_id=ANN, idempotency_key="debit", amount=30, reference="call"))

    def apply(self, command: Command) -> Outcome:
        sent = decode_command(encode_command(command, "store_default"))
        (outcome,) = decide_all([((STORE, str(command.account_id)), sent)], self.batch, 1_000)
        return outcome

    def reverse(self, amount: int | None = None, key: str | None = None, transaction: str = SPENT) -> Result:
        return result_of(self.apply(reversal(amount, key, transaction)))

    @property
    def balance(self) -> int:
        return self.batch.accounts[STORE, ANN].balance


def reversal(amount: int | None = None, key: str | None = None, transaction: str = SPENT) -> Reverse:
    part: dict[str, Any] = {} if amount is None else {"amount": amount, "idempotency_key": key}
    return Reverse(account_id=ANN, transaction_id=transaction, **part)


def result_of(outcome: Outcome) -> Result:
    assert outcome.row is not None
    return result_of_row(outcome.row, replayed=outcome.replayed)


def code_of(result: Result) -> str | None:
    return result.error.code if result.error else None


def test_parts_are_undone_until_nothing_is_left() -> None:
    ledger = Ledger()

    first, second, third = (ledger.reverse(amount, key) for amount, key in ((10, "a"), (20, "b"), (1, "c")))

    assert [(part.status, part.side, part.amount, part.balance) for part in (first, second)] == [
        ("applied", "credit", 10, 80),
        ("applied", "credit", 20, 100),
    ]
    assert {first.reversal_of, second.reversal_of} == {SPENT}
    assert (first.reference, first.idempotency_key) == ("call", f"reversal:{SPENT}:a")
    assert (code_of(third), third.amount, ledger.balance) == ("already_reversed", 1, 100)


def test_more_than_is_left_is_refused_and_says_what_is_left() -> None:
    ledger = Ledger()
    ledger.reverse(10, "a")

    refused = ledger.reverse(21, "b")

    assert refused.error is not None
    assert (refused.error.code, refused.error.details) == (
        "reversal_exceeds_original",
        {"amount": "21", "remaining": "20"},
    )
    assert (ledger.balance, ledger.reverse(20, "c").status) == (80, "applied")


def test_a_whole_reversal_undoes_what_the_parts_have_left_and_comes_once() -> None:
    ledger = Ledger()
    ledger.reverse(10, "a")

    whole, again, part = ledger.reverse(), ledger.reverse(), ledger.reverse(1, "b")

    assert (whole.status, whole.amount, whole.idempotency_key) == ("applied", 20, f"reversal:{SPENT}")
    assert (again.transaction_id, again.amount, again.replayed) == (whole.transaction_id, 20, True)
    assert (code_of(part), ledger.balance) == ("already_reversed", 100)


def test_a_whole_reversal_of_what_the_parts_have_used_up_is_refused() -> None:
    ledger = Ledger()
    ledger.reverse(30, "a")

    refused = ledger.reverse()

    assert (code_of(refused), refused.side, refused.amount, ledger.balance) == ("already_reversed", None, None, 100)


def test_a_key_has_one_answer_and_belongs_to_one_amount_of_one_transaction() -> None:
    ledger = Ledger()
    first = ledger.reverse(10, "a")

    again = ledger.reverse(10, "a")
    other = ledger.apply(reversal(11, "a"))
    elsewhere = ledger.reverse(5, "a", f"cct_{ANN[4:]}1")

    assert (again.transaction_id, again.replayed) == (first.transaction_id, True)
    assert other.refusal is not None
    assert (other.refusal.code, other.refusal.details) == (IdempotencyKeyMismatch.code, {"fields": ["amount"]})
    assert (elsewhere.status, elsewhere.side, ledger.balance) == ("applied", "debit", 75)


def test_a_refused_key_keeps_its_answer_and_the_next_is_free() -> None:
    ledger = Ledger()
    refused = ledger.reverse(31, "a")
    ledger.reverse(1, "b")

    assert (code_of(refused), code_of(ledger.reverse(31, "a"))) == ("reversal_exceeds_original",) * 2
    mismatch = ledger.apply(reversal(29, "a"))
    assert mismatch.refusal is not None
    assert mismatch.refusal.code == IdempotencyKeyMismatch.code
    assert ledger.reverse(29, "c").status == "applied"


def test_an_attempt_at_the_whole_and_a_part_of_one_key_are_two_requests() -> None:
    """Given a whole reversal that was made by an attempt, then its key is not used up, as in a later batch."""
    ledger = Ledger()
    ledger.apply(Reverse(account_id=ANN, transaction_id=SPENT, idempotency_key=f"reversal:{SPENT}:a"))

    assert code_of(ledger.reverse(1, "a")) == "already_reversed"


def test_a_whole_reversal_that_was_made_is_the_answer_to_its_attempt_whatever_takes_the_key_of_that() -> None:
    ledger = Ledger()
    attempt = Reverse(account_id=ANN, transaction_id=SPENT, idempotency_key=f"reversal:{SPENT}:k")
    made = result_of(ledger.apply(attempt))
    assert code_of(ledger.reverse(5, "k")) == "already_reversed"

    again = result_of(ledger.apply(attempt))

    assert (again.status, again.transaction_id, again.replayed) == ("applied", made.transaction_id, True)


def test_what_was_spent_since_cannot_be_taken_back_in_parts_either() -> None:
    ledger = Ledger()

    refused = ledger.reverse(71, "a", f"cct_{ANN[4:]}1")

    assert refused.error is not None
    assert (refused.error.code, refused.error.details) == (
        "insufficient_balance",
        {"account_id": ANN, "needed": "71", "available": "70"},
    )
    assert (ledger.reverse(70, "b", f"cct_{ANN[4:]}1").status, ledger.balance) == ("applied", 0)


def test_of_several_entries_no_part_is_undone() -> None:
    ledger = Ledger()
    legs = [{"account_id": ANN, "side": "debit", "amount": 9}, {"account_id": BOB, "side": "credit", "amount": 9}]
    posted = result_of(ledger.apply(Post(reference="r", idempotency_key="post", entries=legs)))  # type: ignore[arg-type]
    transaction = str(posted.transaction_id)

    refused = ledger.reverse(5, "a", transaction)

    assert (code_of(refused), refused.amount, ledger.balance) == ("reversal_not_divisible", 5, 61)
    assert (ledger.reverse(transaction=transaction).status, ledger.balance) == ("applied", 70)


def test_a_part_of_a_reversal_is_not_reversed() -> None:
    ledger = Ledger()
    part = ledger.reverse(10, "a")

    for refused in (
        ledger.reverse(5, "b", str(part.transaction_id)),
        ledger.reverse(None, None, str(part.transaction_id)),
    ):
        assert code_of(refused) == "reversal_not_reversible"


def test_what_was_only_tried_leaves_all_of_it_to_reverse() -> None:
    ledger = Ledger()
    tried = reversal(30, "a").model_copy(update={"dry_run": True})
    ledger.batch.has_dry_runs = True

    outcomes = [ledger.apply(tried), ledger.apply(reversal(30, "a")), ledger.apply(tried)]

    assert [(outcome.dry_run, outcome.replayed) for outcome in outcomes] == [
        (True, False),
        (False, False),
        (True, True),
    ]
    assert [result_of(outcome).amount for outcome in outcomes] == [30, 30, 30]
    assert ledger.balance == 100


@pytest.mark.parametrize("transaction", [f"cct_{ANN[4:]}9", f"cct_{BOB[4:]}1"])
def test_a_part_of_what_is_not_there_is_not_found(transaction: str) -> None:
    assert code_of(Ledger().reverse(1, "a", transaction)) == "transaction_not_found"


@given(asked=st.lists(st.tuples(st.one_of(st.none(), st.integers(1, 12)), st.sampled_from("abcdefgh")), max_size=12))
def test_the_reversals_of_an_entry_add_up_to_at_most_it(asked: list[tuple[int | None, str]]) -> None:
    """Given any reversals of 30, when they are decided, then each that fits is made, and nothing else."""
    ledger, left, used, whole = Ledger(), 30, dict[str, int](), False
    for amount, key in asked:
        outcome = ledger.apply(reversal(amount, key))
        if amount is not None and used.setdefault(key, amount) != amount:
            assert outcome.refusal is not None
            continue
        result = result_of(outcome)
        if result.status == "applied" and not result.replayed:
            assert result.amount == (left if amount is None else amount) <= left
            left -= result.amount or 0
            whole = whole or amount is None
        elif amount is None:
            assert (left, result.replayed, code_of(result)) == (0, whole, None if whole else "already_reversed")
        elif not result.replayed:
            assert code_of(result) == ("already_reversed" if left == 0 else "reversal_exceeds_original")
            assert amount > left
        assert ledger.balance == 100 - left


@pytest.mark.parametrize(
    ("given_key", "stored"),
    [
        ("goodwill", f"reversal:{SPENT}:goodwill"),
        ("with:colons:", f"reversal:{SPENT}:with:colons:"),
        (f"reversal:{SPENT}:shown", f"reversal:{SPENT}:shown"),
        ("k" * 255, f"reversal:{SPENT}:{'k' * 255}"),
    ],
)
def test_the_key_of_a_part_is_kept_behind_its_transaction(given_key: str, stored: str) -> None:
    command = reversal(1, given_key)

    assert command.idempotency_key == stored
    assert reversed_transaction(stored) == SPENT
    assert decode_command(encode_command(command, "store_default")).idempotency_key == stored


@pytest.mark.parametrize("key", [None, "", "k" * 256, f"reversal:{SPENT}:", "reversal:other", "nul\0", 7])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(ValidationError, match=r"key|NUL|pattern|reversal"):
        Reverse(account_id=ANN, transaction_id=SPENT, amount=1, idempotency_key=key)


@pytest.mark.parametrize("amount", [0, -1, "0", "-1", "1.5", 1.5, True, ""])
def test_an_amount_that_is_none_is_refused(amount: Any) -> None:
    with pytest.raises(ValidationError, match="amount"):
        Reverse(account_id=ANN, transaction_id=SPENT, amount=amount, idempotency_key="a")


def test_a_whole_reversal_is_encoded_as_before_and_a_row_gives_back_what_was_asked_for() -> None:
    ledger = Ledger()
    whole, part = reversal(), reversal(7, "a")

    encoded = msgspec.json.decode(encode_command(whole, "store_default"))
    made: list[JournalRow | None] = [
        ledger.apply(part).row,
        ledger.apply(whole).row,
        ledger.apply(reversal(8, "b")).row,
    ]

    assert "amount" not in encoded
    contents = [content_of_row(row) for row in made if row is not None]
    assert contents == [{"transaction_id": SPENT, "amount": amount} for amount in (7, None, 8)]
    again = Reverse(account_id=ANN, idempotency_key=part.idempotency_key, **contents[0])
    assert fingerprint(encode_command(again, "s")) == fingerprint(encode_command(part, "s"))
