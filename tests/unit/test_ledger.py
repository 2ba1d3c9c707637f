"""The rules of the ledger, one by one, as a table of what each command does to an account in each state."""

from typing import Any

import msgspec
import pytest

from creditlane.lanes.encoding import LaneCommand, decode_command, encode_command
from creditlane.schemas.accounts import AccountState
from creditlane.schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    SetLimit,
    Unfreeze,
)
from creditlane.schemas.identifiers import Position, transaction_id
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.statuses import Status
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import UNOPENED, AccountKey, BatchState, Outcome

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
STORE = 1
NOW_US = 1_000_000

ACTIVE = AccountState(int(Status.ACTIVE), 100, 0, 2, 1, 500)
FROZEN = msgspec.structs.replace(ACTIVE, status=int(Status.FROZEN))
CLOSED = msgspec.structs.replace(ACTIVE, status=int(Status.CLOSED))
STATES = {"unopened": UNOPENED, "active": ACTIVE, "frozen": FROZEN, "closed": CLOSED}

#: Entries of the account: a credit that can be reversed, and a reversal that cannot.
CREDITED = JournalRow(STORE, ANN, 1, 2, 1, 30, 30, 0, "credited", "purchase", None, 400, None, None)
REVERSED = JournalRow(STORE, ANN, 2, 4, -1, 10, 100, 0, "reversal", "usage", 1, 500, None, None)


def on_lane(command: Command) -> LaneCommand:
    return decode_command(encode_command(command, "store_default"))


def batch_of(state: AccountState) -> BatchState:
    batch = BatchState({(STORE, ANN): state, (STORE, BOB): UNOPENED})
    batch.has_reversals = True
    batch.originals = {(STORE, Position(ANN, row.seq)): row for row in (CREDITED, REVERSED)}
    return batch


def decided(
    state: AccountState, *commands: Command, batch: BatchState | None = None, now_us: int = NOW_US
) -> list[Outcome]:
    addressed = [((STORE, str(command.account_id)), on_lane(command)) for command in commands]
    return decide_all(addressed, batch or batch_of(state), now_us)


def opening(**fields: Any) -> OpenAccount:
    return OpenAccount(**{"account_id": ANN, "idempotency_key": "open", "customer_id": "ann", **fields})


def credit(amount: int = 5, key: str = "credit", **fields: Any) -> Credit:
    return Credit(**{"account_id": ANN, "idempotency_key": key, "amount": amount, "reference": "r", **fields})


def debit(amount: int = 5, key: str = "debit", **fields: Any) -> Debit:
    return Debit(**{"account_id": ANN, "idempotency_key": key, "amount": amount, "reference": "r", **fields})


def reversal(seq: int = 1, account_id: str = ANN) -> Reverse:
    return Reverse(account_id=account_id, transaction_id=transaction_id(ANN, seq))


OUTCOMES: list[tuple[Command, list[str | None]]] = [
    # What is refused, in the order unopened, active, frozen, closed; None where it is applied.
    (opening(), [None, "account_exists", "account_exists", "account_exists"]),
    (credit(), ["account_not_found", None, "account_frozen", "account_closed"]),
    (debit(), ["account_not_found", None, "account_frozen", "account_closed"]),
    (debit(101), ["account_not_found", "insufficient_balance", "account_frozen", "account_closed"]),
    (reversal(), ["account_not_found", None, "account_frozen", "account_closed"]),
    (reversal(2), ["account_not_found", "reversal_not_reversible", "account_frozen", "account_closed"]),
    (reversal(3), ["account_not_found", "transaction_not_found", "account_frozen", "account_closed"]),
    (
        Freeze(account_id=ANN, idempotency_key="f"),
        ["account_not_found", None, "account_frozen", "account_closed"],
    ),
    (
        Unfreeze(account_id=ANN, idempotency_key="u"),
        ["account_not_found", "account_not_frozen", None, "account_closed"],
    ),
    (Close(account_id=ANN, idempotency_key="c"), ["account_not_found", None, None, "account_closed"]),
    (
        SetLimit(account_id=ANN, idempotency_key="l", limit="max_balance", amount=5),
        ["account_not_found", None, None, "account_closed"],
    ),
]


@pytest.mark.parametrize(
    ("command", "status", "refusal"),
    [
        (command, status, refusal)
        for command, refusals in OUTCOMES
        for status, refusal in zip(STATES, refusals, strict=True)
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_each_command_in_each_state(command: Command, status: str, refusal: str | None) -> None:
    """Given an account in a state, when a command meets it, then it is applied or refused as the table says; a refusal
    moves nothing and is counted as a decision."""
    state = STATES[status]
    batch = batch_of(state)

    row = decided(state, command, batch=batch)[0].row

    after = batch.accounts[STORE, ANN]
    assert row is not None
    assert row.rejection == refusal
    if refusal:
        assert after == msgspec.structs.replace(state, decisions=state.decisions + 1, latest_at_us=NOW_US)
        assert (row.seq, row.balance_after) == (-state.decisions - 1, state.balance)


@pytest.mark.parametrize("status", ["active", "frozen"])
def test_an_account_below_zero_is_not_closed(status: str) -> None:
    """Given an account below zero, when it is closed, then that is refused; at zero it is closed."""
    overdrawn = msgspec.structs.replace(STATES[status], balance=-1, overdraft_limit=5)
    batch = batch_of(overdrawn)

    refused = decided(overdrawn, Close(account_id=ANN, idempotency_key="c"), batch=batch)[0].row
    closed = decided(msgspec.structs.replace(overdrawn, balance=0), Close(account_id=ANN, idempotency_key="c"))[0].row

    assert refused is not None
    assert (refused.rejection, refused.balance_after, refused.seq) == ("account_overdrawn", -1, -2)
    assert batch.accounts[STORE, ANN].status == overdrawn.status
    assert closed is not None
    assert closed.rejection is None


@pytest.mark.parametrize(
    ("limit", "amount", "refused"), [(0, 100, False), (0, 101, True), (7, 107, False), (7, 108, True)]
)
def test_a_debit_goes_down_to_the_limit_and_no_further(limit: int, amount: int, refused: bool) -> None:
    state = msgspec.structs.replace(ACTIVE, overdraft_limit=limit)

    row = decided(state, debit(amount))[0].row

    assert row is not None
    assert (row.rejection == "insufficient_balance") is refused
    assert row.balance_after == (100 if refused else -limit)


def test_reversing_a_credit_that_is_spent_is_refused() -> None:
    """Given a credit whose money is gone, when it is reversed, then the balance is kept from going below the limit."""
    state = msgspec.structs.replace(ACTIVE, balance=29)

    row = decided(state, reversal())[0].row

    assert row is not None
    assert (row.rejection, row.side, row.amount, row.balance_after) == ("insufficient_balance", -1, 30, 29)


def test_a_reversal_is_the_opposite_entry_and_names_the_original() -> None:
    row = decided(ACTIVE, reversal())[0].row

    assert row is not None
    assert (row.side, row.amount, row.balance_after, row.reversal_of) == (-1, 30, 70, 1)
    assert row.reference == "purchase"


def test_an_entry_made_in_the_same_batch_can_be_reversed() -> None:
    outcomes = decided(ACTIVE, debit(40), reversal(3))

    assert [outcome.row.balance_after for outcome in outcomes if outcome.row] == [60, 100]


def test_a_transaction_of_another_account_cannot_be_reversed() -> None:
    """Given an account, when it would reverse what another account's transaction moved, then there is no such thing."""
    batch = batch_of(ACTIVE)
    batch.accounts[STORE, BOB] = ACTIVE

    row = decided(ACTIVE, reversal(account_id=BOB), batch=batch)[0].row

    assert row is not None
    assert (row.account_id, row.rejection) == (BOB, "transaction_not_found")


def test_a_name_that_is_taken_opens_nothing() -> None:
    batch = batch_of(UNOPENED)
    batch.names_taken = {(STORE, ANN): BOB}

    outcomes = decided(UNOPENED, opening(), credit(), batch=batch)

    assert [outcome.row and outcome.row.rejection for outcome in outcomes] == [
        "account_name_taken",
        "account_not_found",
    ]


def test_an_initial_balance_is_an_entry() -> None:
    row = decided(UNOPENED, opening(initial_balance=9, overdraft_limit=3))[0].row

    assert row is not None
    assert (row.seq, row.side, row.amount, row.balance_after) == (1, 1, 9, 9)
    assert (row.overdraft_limit, row.reference) == (3, "initial_balance")


REPEATS: list[tuple[Command, Command, list[str]]] = [
    (debit(), debit(6), ["amount"]),
    (debit(), debit(reference="other"), ["reference"]),
    (debit(), debit(6, reference="other"), ["amount", "reference"]),
    (debit(), debit(account_id=BOB), ["account_id"]),
    (debit(), credit(key="debit"), ["kind"]),
    (debit(500), debit(501), ["amount"]),
    (Freeze(account_id=ANN, idempotency_key="f"), Freeze(account_id=BOB, idempotency_key="f"), ["account_id"]),
    (Freeze(account_id=ANN, idempotency_key="f"), Unfreeze(account_id=ANN, idempotency_key="f"), ["kind"]),
    (opening(), opening(name="other", initial_balance=1), ["name", "initial_balance"]),
    (
        opening(),
        opening(overdraft_limit=1, unit_label="x", customer_id="y"),
        ["customer_id", "unit_label", "overdraft_limit"],
    ),
]


@pytest.mark.parametrize(
    ("first", "second", "differing"), REPEATS, ids=lambda value: getattr(value, "kind", str(value))
)
def test_a_key_belongs_to_its_first_request(first: Command, second: Command, differing: list[str]) -> None:
    """Given a key that was used, when another request uses it, then it gets what differs and changes nothing."""
    batch = batch_of(ACTIVE)
    decided(ACTIVE, first, batch=batch)
    before = dict(batch.accounts)

    outcome = decided(ACTIVE, second, batch=batch)[0]

    assert outcome.row is None
    assert outcome.refusal is not None
    assert outcome.refusal.code == "idempotency_key_mismatch"
    assert outcome.refusal.details == {"fields": differing}
    assert all(name in outcome.refusal.message for name in differing)
    assert batch.accounts == before


@pytest.mark.parametrize("command", [command for command, _ in OUTCOMES], ids=lambda command: command.kind)
@pytest.mark.parametrize("status", STATES)
def test_the_same_request_again_gets_the_first_answer(command: Command, status: str) -> None:
    batch = batch_of(STATES[status])

    first, again = decided(STATES[status], command, command, batch=batch)

    assert again == Outcome(first.row, replayed=True)
    assert not first.replayed


def test_a_refused_key_is_refused_for_ever() -> None:
    """Given a debit that was refused, when the money has come and it is sent again, then it is still refused."""
    outcomes = decided(ACTIVE, debit(101), credit(50), debit(101))

    assert outcomes[2] == Outcome(outcomes[0].row, replayed=True)


def test_one_key_in_two_stores_is_two_commands() -> None:
    accounts: dict[AccountKey, AccountState] = {(1, ANN): ACTIVE, (2, ANN): ACTIVE}

    batch = BatchState(accounts)

    outcomes = decide_all([((store, ANN), on_lane(debit())) for store in (1, 2)], batch, NOW_US)

    assert [outcome.row.store_id for outcome in outcomes if outcome.row] == [1, 2]
    assert [batch.accounts[store, ANN].balance for store in (1, 2)] == [95, 95]
    # What the batch was made from is as it was.
    assert set(accounts.values()) == {ACTIVE}


@pytest.mark.parametrize("now_us", [0, 499, 500, 501])
@pytest.mark.parametrize("command", [debit(), debit(101)], ids=["entry", "refusal"])
def test_time_does_not_go_back_along_an_account(command: Command, now_us: int) -> None:
    """Given a clock that was set back, when an account goes on, then its rows stay in the order of time."""
    row = decided(ACTIVE, command, now_us=now_us)[0].row

    assert row is not None
    assert row.created_at_us == max(now_us, ACTIVE.latest_at_us)


@pytest.mark.parametrize(
    ("latest_us", "times_us"),
    [
        # As far as a clock is set back in daily life: one moment for both.
        (NOW_US + 900_000, [NOW_US + 900_000, NOW_US + 900_000]),
        # Left in the future by a clock that was an hour ahead: that hour stays where it is.
        (NOW_US + 3_600_000_000, [NOW_US + 3_600_000_000, NOW_US]),
    ],
)
def test_a_wrong_hour_does_not_spread(latest_us: int, times_us: list[int]) -> None:
    """Given an account ahead of the clock, when a transaction moves it and another, then no account's time goes back,
    and a time far ahead is not handed on."""
    ahead = msgspec.structs.replace(ACTIVE, latest_at_us=latest_us)
    batch = BatchState({(STORE, ANN): ahead, (STORE, BOB): ACTIVE})
    entries = (
        PostEntry(account_id=ANN, side="debit", amount=5),
        PostEntry(account_id=BOB, side="credit", amount=5),
    )

    [outcome] = decided(ahead, Post(entries=entries, reference="r", idempotency_key="post"), batch=batch)

    assert [row.created_at_us for row in (outcome.row, *outcome.further) if row] == times_us


def test_a_broken_invariant_stops_the_batch() -> None:
    """Given a command that no client could make, when it would move nothing or less, then the ledger raises."""
    wrong: Any = msgspec.structs.replace(on_lane(credit()), amount=-5)  # type: ignore[type-var]

    with pytest.raises(ArithmeticError, match="breaks the limit"):
        decide_all([((STORE, ANN), wrong)], batch_of(ACTIVE), NOW_US)


def test_a_refused_reversal_can_be_tried_again() -> None:
    """Given an attempt that met a frozen account, when the account is active again, then the next attempt reverses."""
    batch = batch_of(FROZEN)
    refused = decided(FROZEN, reversal(), batch=batch)[0].row
    decided(FROZEN, Unfreeze(account_id=ANN, idempotency_key="u"), batch=batch)

    made = decided(ACTIVE, reversal(), batch=batch)[0].row

    assert refused is not None
    assert refused.rejection == "account_frozen"
    assert made is not None
    assert (made.seq, made.reversal_of) == (ACTIVE.entries + 1, 1)
    assert made.idempotency_key == f"reversal:{transaction_id(ANN, 1)}"


def test_two_attempts_make_one_reversal() -> None:
    first, second = decided(ACTIVE, reversal(), reversal())

    assert second == Outcome(first.row, replayed=True)


def test_an_attempt_that_comes_again_hears_its_own_answer() -> None:
    """Given a refused attempt, when the same one is delivered again, then it is not decided a second time."""
    batch, attempt = batch_of(FROZEN), reversal()
    refused = decided(FROZEN, attempt, batch=batch)[0]
    decided(FROZEN, Unfreeze(account_id=ANN, idempotency_key="u"), batch=batch)

    assert decided(ACTIVE, attempt, batch=batch)[0] == Outcome(refused.row, replayed=True)
