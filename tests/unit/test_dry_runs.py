"""Dry runs are decided in their turn and change nothing: the rules, and how their results are told from real ones."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from creditlane import Close, Command, Credit, Debit, Freeze, InvalidCommand, OpenAccount, Post, Reverse, Ticket
from creditlane.lanes.encoding import PlainCommand, decode_command, encode_command, fingerprint
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.producer.client.chunks import addressed_for_later, chunk_of
from creditlane.producer.client.lane_reads import poll_stream
from creditlane.producer.client.resolve import own_ticket, resolve, resolve_announced
from creditlane.schemas.accounts import AccountState
from creditlane.schemas.commands import Capture, Hold
from creditlane.schemas.identifiers import hold_id, transaction_id
from creditlane.schemas.journal import Announcement, Refusal
from creditlane.schemas.results import result_of_announcement
from creditlane.schemas.statuses import Status
from creditlane.worker.lanes.entries import LaneEntry
from creditlane.worker.ledger import holds
from creditlane.worker.ledger.accounts import claims_of, dry_claims_of, parts_of
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import UNOPENED, AccountKey, BatchState, Outcome
from creditlane.worker.store.outbox import decided_rows
from creditlane.worker.store.sizing import DRY_RUN_ROWS, Sizing

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
STORE = "store_default"
ACTIVE = AccountState(int(Status.ACTIVE), 100, 0, 2, 1, 500)


def batch_of(state: AccountState = ACTIVE) -> BatchState:
    batch = BatchState({(1, ANN): state, (1, BOB): ACTIVE})
    batch.has_dry_runs = batch.has_reversals = True
    return batch


def on_lane(*commands: Command) -> list[tuple[AccountKey, Any]]:
    return [((1, str(command.account_id)), decode_command(encode_command(command, STORE))) for command in commands]


def decided(batch: BatchState, *commands: Command) -> list[Outcome]:
    return decide_all(on_lane(*commands), batch, 1_000)


def dry(command: Command) -> Command:
    return command.model_copy(update={"dry_run": True})


def debit(amount: int, key: str = "d", **fields: Any) -> Debit:
    return Debit(**{"account_id": ANN, "idempotency_key": key, "amount": amount, "reference": "r", **fields})


def opening(key: str = "o", account_id: str = ANN, **fields: Any) -> OpenAccount:
    return OpenAccount(account_id=account_id, idempotency_key=key, customer_id="c", **fields)


def test_what_has_ended_is_released_once_for_all_dry_runs_of_an_account_that_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold = Hold(account_id=ANN, idempotency_key="h", amount=60, reference="r", expires_in_seconds=1)
    batch = batch_of()
    decided(batch, hold)
    ended: list[int] = []
    release = holds.end
    monkeypatch.setattr(holds, "end", lambda *given: ended.append(1) or release(*given))

    of_bob = Credit(account_id=BOB, idempotency_key="bob", amount=2, reference="r")
    tried = [dry(debit(1, f"d{number}")) for number in range(4)]
    later = on_lane(*tried[:2], of_bob, *tried[2:], debit(2, "real"), dry(debit(3, "last")))
    outcomes = decide_all(later, batch, 5_000_000)

    assert [outcome.row.balance_after for outcome in outcomes if outcome.row] == [99, 99, 102, 99, 99, 98, 95]
    assert [outcome.row.held_after for outcome in outcomes if outcome.row] == [0] * 7
    assert len(ended) == 2
    assert len(batch.expired) == 1


def test_a_transaction_takes_fewer_dry_runs_since_each_copies_what_is_decided_before_it() -> None:
    entries = [
        LaneEntry(1, b"%d-0" % number, b"x", addressed[1], None, None, 0, keep=False)
        for number, addressed in enumerate(on_lane(dry(debit(1))) * 8_000)
    ]

    assert Sizing().first_part(entries).entries == 8_000 // DRY_RUN_ROWS


POST = Post(
    reference="r",
    idempotency_key="p",
    entries=(
        {"account_id": ANN, "side": "debit", "amount": 30},
        {"account_id": BOB, "side": "credit", "amount": 30},
    ),
)


def test_between_two_debits_it_changes_nothing_for_the_second() -> None:
    """Given 100, when 60 is tried dry between 60 and 40, then the dry run is refused, and the second debit is not."""
    batch = batch_of()
    first, tried, second = decided(batch, debit(60), debit(60, "x", dry_run=True), debit(40, "e"))
    assert tried.dry_run
    assert tried.row is not None
    assert tried.row.rejection == "insufficient_balance"
    assert [row.seq for row in decided_rows([first, tried, second])] == [3, 4]
    assert batch.accounts[1, ANN].balance == 0
    assert (1, "x") not in batch.known


@pytest.mark.parametrize(
    "command",
    [
        debit(60),
        debit(600),
        debit(600, allow_partial=True),
        Credit(account_id=ANN, idempotency_key="c", amount=5, reference="r"),
        Freeze(account_id=ANN, idempotency_key="f"),
        Close(account_id=ANN, idempotency_key="z"),
        POST,
    ],
    ids=["debit", "rejected debit", "partial debit", "credit", "freeze", "close", "post"],
)
def test_the_answer_is_that_of_the_command_itself(command: Command) -> None:
    """Given any command, then its dry run is answered as the command, and leaves the state that was there."""
    batch, untouched = batch_of(), batch_of()
    (tried,) = decided(batch, command.model_copy(update={"dry_run": True}))
    assert vars(batch) == vars(untouched)
    (real,) = decided(batch, command)
    assert (tried.row, tried.further, tried.refusal) == (real.row, real.further, real.refusal)
    assert (tried.dry_run, real.dry_run) == (True, False)


def test_a_reversal_is_tried_and_then_made() -> None:
    batch = batch_of()
    undo = Reverse(account_id=ANN, transaction_id=transaction_id(ANN, 3), dry_run=True)
    _, tried, real = decided(batch, POST, undo, undo.model_copy(update={"dry_run": False}))
    assert tried.row == real.row
    assert not real.replayed
    assert [row.account_id for row in (tried.row, *tried.further) if row] == [ANN, BOB]


def test_a_key_that_is_taken_answers_it_as_it_answers_the_command() -> None:
    """Given a debit, when it is tried dry, and another under its key, then they are a replay and a mismatch."""
    first, again, other = decided(
        batch_of(), debit(60), debit(60, dry_run=True), debit(61, dry_run=True, metadata={"a": "b"})
    )
    assert (again.row, again.replayed, again.dry_run) == (first.row, True, True)
    assert other.refusal is not None
    assert other.refusal.details["fields"] == ["amount", "metadata"]


def test_two_dry_runs_under_one_key_are_each_the_first() -> None:
    """Given dry runs under one key before the command, then each is answered anew, and the command is no replay."""
    batch = batch_of()
    one, other, real = decided(batch, debit(60, dry_run=True), debit(70, dry_run=True), debit(80))
    assert [outcome.replayed for outcome in (one, other, real)] == [False] * 3
    assert [outcome.row.balance_after for outcome in (one, other, real) if outcome.row] == [40, 30, 20]


def test_an_opening_claims_nothing_and_takes_turns_with_those_that_do() -> None:
    batch = batch_of(UNOPENED)
    batch.accounts[1, BOB] = UNOPENED
    commands = on_lane(
        opening(dry_run=True), opening("p", BOB, dry_run=True), opening("p", BOB), opening(dry_run=True), opening()
    )
    assert [len(part) for part in parts_of(commands)] == [2, 1, 1, 1]
    assert claims_of(commands[:2], batch) == []
    assert [command.idempotency_key for _, command in dry_claims_of(commands[:2], batch)] == ["o", "p"]


def test_two_dry_openings_of_one_account_do_not_share_a_part() -> None:
    """What is known of their names is known by account."""
    commands = on_lane(opening(name="a", dry_run=True), opening(name="b", dry_run=True))
    assert [len(part) for part in parts_of(commands)] == [1, 1]


def test_it_is_no_plain_command_and_has_another_digest() -> None:
    plain, dry = (encode_command(debit(5, dry_run=dry_run), STORE) for dry_run in (False, True))
    assert b"dry_run" not in plain
    assert type(decode_command(dry)) is not PlainCommand
    assert fingerprint(plain) != fingerprint(dry)


def test_what_is_done_with_a_hold_is_undone_again() -> None:
    """Given a hold that has ended, when its account's commands are tried, then it is released by the real one alone."""
    batch = batch_of()
    hold = Hold(account_id=ANN, idempotency_key="h", amount=60, reference="r", expires_in_seconds=1)
    capture = Capture(hold_id=hold_id(ANN, 2), idempotency_key="c", amount=50)
    tried, made, tried_capture, captured = decided(batch, dry(hold), hold, dry(capture), capture)
    assert (tried.row, tried_capture.row) == (made.row, captured.row)
    assert batch.accounts[1, ANN].held == 0
    second = Hold(account_id=ANN, idempotency_key="h2", amount=40, reference="r", expires_in_seconds=1)
    assert decided(batch, second)[0].row is not None
    before = deepcopy(vars(batch))
    (tried,) = decide_all(on_lane(dry(debit(50, "late"))), batch, 10_000_000)
    assert tried.row is not None
    assert (tried.row.rejection, tried.row.held_after) == (None, 0)
    assert vars(batch) == before
    assert (1, ANN) in batch.holders


def test_what_expires_is_told_before_the_command_that_comes_after_it() -> None:
    """Given dry runs before a command, when a hold ends before that, then it is known before which outcome it did."""
    batch = batch_of()
    hold = Hold(account_id=ANN, idempotency_key="h", amount=60, reference="r", expires_in_seconds=1)
    decided(batch, hold)
    commands = (dry(debit(1, "x")), dry(debit(1, "y")), debit(1, "z"), dry(debit(1, "x")))
    decide_all(on_lane(*commands), batch, 10_000_000)
    assert [number for number, _ in batch.expired] == [2]


# What is said of it


def ticket_of(command: Command, lane_entry: str = "9000-0") -> Ticket:
    chunk = chunk_of(command, STORE, 8)
    fields = chunk.accounts[0], chunk.keys[0], lane_entry, chunk.fingerprints[0]
    return Ticket(STORE, *fields, dry_run=bool(chunk.dry_runs))


def announced(outcome: Outcome, lane_entry: str = "9000-0") -> Announcement:
    return Announcement(0, outcome.row, outcome.replayed, outcome.refusal, lane_entry, outcome.dry_run, outcome.further)


def test_a_result_names_no_transaction_that_nobody_can_read() -> None:
    """Given a dry post, then its result has the entries that there would be, and no id."""
    (outcome,) = decided(batch_of(), POST.model_copy(update={"dry_run": True}))
    result = result_of_announcement(announced(outcome), ANN, "p")
    assert (result.status, result.dry_run, result.transaction_id, result.balance) == ("applied", True, None, 70)
    entries = [(entry.account_id, entry.side, entry.amount, entry.balance_after) for entry in result.entries or ()]
    assert entries == [(ANN, "debit", 30, 70), (BOB, "credit", 30, 130)]


def test_a_replay_names_the_transaction_that_there_is() -> None:
    _, again = decided(batch_of(), debit(60), debit(60, dry_run=True))
    result = result_of_announcement(announced(again), ANN, "d")
    assert (result.dry_run, result.replayed, result.transaction_id) == (True, True, transaction_id(ANN, 3))


def test_the_text_of_a_ticket_says_it_and_that_of_others_is_as_before() -> None:
    plain, dry = ticket_of(debit(5)), ticket_of(debit(5, dry_run=True))
    assert own_ticket(str(dry), STORE) == dry
    assert own_ticket(str(plain), STORE) == plain
    assert str(plain) == str(Ticket(*plain.__reduce__()[1][:6]))
    assert not Ticket.parse(str(plain)).dry_run


def test_each_is_kept_under_its_own_poll_key() -> None:
    """Given a command and its dry run under one key, then neither's poll key is the other's."""
    keys = Keys("x")
    dry = poll_stream(ticket_of(debit(5, dry_run=True)), keys, 8)
    other = poll_stream(ticket_of(debit(5, dry_run=True), "9000-1"), keys, 8)
    assert poll_stream(ticket_of(debit(5)), keys, 8) is None
    assert dry is not None
    assert other is not None
    assert dry.key != other.key
    partition = partition_of(ANN, 8)
    assert dry.key == f"x:{{p{partition}}}:result::store_default:9000-0"
    # No store has an empty name, so no key of a caller makes this one.
    assert dry.key != keys.result(partition, STORE, ":9000-0")


def test_the_command_is_never_answered_with_the_result_of_its_dry_run_nor_the_other_way() -> None:
    tried, real = decided(batch_of(), debit(60, dry_run=True), debit(60))
    dry, plain = ticket_of(debit(60, dry_run=True)), ticket_of(debit(60))
    both = [announced(tried), announced(real)]
    for items in (both, both[::-1]):
        assert (resolve_announced(dry, items) or pytest.fail("nothing")).dry_run
        assert not (resolve_announced(plain, items) or pytest.fail("nothing")).dry_run
    assert resolve_announced(plain, both[:1]) is None
    assert resolve_announced(dry, both[1:]) is None
    assert resolve_announced(ticket_of(debit(60, dry_run=True), "9000-1"), both) is None


def test_the_ledger_answers_it_only_with_what_was_there_before() -> None:
    """Given a decision under its key, then it is the answer if it is older than the dry run, and says nothing else."""
    (real,) = decided(batch_of(), debit(60))
    assert real.row is not None
    later, earlier = (ticket_of(debit(60, dry_run=True), f"{entry}-0") for entry in (9_000, 1))
    found = resolve(later, real.row, ())
    assert found is not None
    assert (found.status, found.replayed, found.dry_run) == ("applied", True, True)
    assert resolve(earlier, real.row, ()) is None
    mismatch = resolve(ticket_of(debit(61, dry_run=True)), real.row, ())
    assert mismatch is not None
    assert mismatch.error is not None
    assert (mismatch.error.code, mismatch.dry_run) == ("idempotency_key_mismatch", True)


def test_a_refusal_is_kept_too() -> None:
    refused = Announcement(0, None, refusal=Refusal("idempotency_key_mismatch", "m"), lane_entry="9000-0", dry_run=True)
    result = resolve_announced(ticket_of(debit(60, dry_run=True)), [refused])
    assert result is not None
    assert (result.status, result.dry_run) == ("rejected", True)


def test_none_is_scheduled() -> None:
    with pytest.raises(InvalidCommand, match="dry_run"):
        addressed_for_later(debit(5, dry_run=True), STORE)
