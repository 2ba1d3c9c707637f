"""A history in which all is right is judged right; each damage to it is found, under its name."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from .checks import check
from .good_history import CLOSED_SET, OTHER, STEP, good_history
from .records import NEVER, Books, Operation, OutboxPosition, Row

A, B = CLOSED_SET
Damage = Callable[[list[Operation], Books], None]


def kinds_of(operations: list[Operation], books: Books) -> set[str]:
    return {anomaly.kind for anomaly in check(operations, books, closed_sets=[CLOSED_SET])}


def operation_of(operations: list[Operation], op: str, *, key: str | None = None, nth: int = 0) -> Operation:
    return [o for o in operations if o.op == op and key in {None, o.request.get("key")}][nth]


def change_row(books: Books, key: str, **fields: object) -> Row:
    """Change the row of the key, and return it as it was."""
    number = next(number for number, row in enumerate(books.rows) if row.key == key)
    row = books.rows[number]
    books.rows[number] = replace(row, **fields)  # type: ignore[arg-type]
    return row


def lose_an_entry(_operations: list[Operation], books: Books) -> None:
    books.rows.remove(next(row for row in books.rows if row.key == "fill"))


def lose_what_was_only_accepted(operations: list[Operation], _books: Books) -> None:
    ticket = {"kind": "accepted", "ticket": "cmd_"}
    request = {**operation_of(operations, "credit").request, "key": "lost"}
    operations.append(Operation("lost", "process", request, 1, 5.0, 2, 2, ticket))


def double_an_entry(_operations: list[Operation], books: Books) -> None:
    row = next(row for row in books.rows if row.key == "fill")
    books.rows.append(replace(row, seq=row.seq + 10))


def answer_a_wrong_balance(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "credit").outcome["balance"] += 1


def answer_a_repeat_otherwise(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "credit", key="fill", nth=1).outcome["seq"] += 1


def hide_that_it_is_a_repeat(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "credit", key="fill", nth=1).outcome["replayed"] = False


def turn_an_acknowledgement_into_a_refusal(operations: list[Operation], _books: Books) -> None:
    refusal = {"kind": "rejected", "code": "insufficient_balance"}
    operation_of(operations, "debit", key="empty").outcome = refusal


def turn_a_refusal_into_an_acknowledgement(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "debit", key="too much").outcome = {"kind": "applied", "balance": 0, "seq": 2}


def read_what_was_before(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "read_balance").outcome["balance"] = 0


def read_what_never_was(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "read_balance").outcome["balance"] = 12_345


def read_the_state_from_before(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "read_account").outcome["status"] = "active"


def miss_an_account_that_is_there(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "read_balance").outcome = {"kind": "absent"}


def go_back_between_two_reads(operations: list[Operation], _books: Books) -> None:
    """Nobody got the result of the post, so one may see it or not; but not first see it and then not."""
    post = operation_of(operations, "post", key="third")
    post.outcome, post.ended, post.began = {"kind": "none"}, NEVER, 1
    read = operation_of(operations, "read_balance", nth=2)
    later = replace(read, name="later", began=read.ended + 1, ended=read.ended + 2)
    later.outcome = {"kind": "read", "balance": 120}
    operations.append(later)


def refuse_on_an_old_balance(operations: list[Operation], books: Books) -> None:
    """The account has had 0, and has it no more when the debit begins."""
    maker_row = change_row(books, "close", kind="debit", rejection="insufficient_balance", side=-1, amount=60)
    assert maker_row.balance == 0
    change_row(books, "close", balance=70, reference="close", amount=80)
    close = operation_of(operations, "close")
    close.request.update({"op": "debit", "amount": 80, "reference": "close"})
    close.outcome = {"kind": "rejected", "code": "insufficient_balance", "needed": 80, "available": 70}


def refuse_what_is_covered(operations: list[Operation], books: Books) -> None:
    change_row(books, "too much", amount=0)
    debits = [o for o in operations if o.request.get("key") == "too much"]
    for debit in debits:
        debit.request["amount"] = 0
        debit.outcome["needed"] = 0


def freeze_on_an_old_balance(_operations: list[Operation], books: Books) -> None:
    change_row(books, "freeze", balance=100)


def swap_the_order_of_two_entries(_operations: list[Operation], books: Books) -> None:
    first = change_row(books, "first", seq=3)
    change_row(books, "third", seq=2, balance=first.balance)


def swap_what_was_accepted(operations: list[Operation], books: Books) -> None:
    """Neither was answered, but one was on the lane before the other was sent."""
    for key in ("empty", "fill"):
        for operation in operations:
            if operation.request.get("key") == key and operation.kind == "applied":
                operation.outcome = {"kind": "accepted", "ticket": "cmd_"}
    empty, fill = (operation_of(operations, op, key=key) for op, key in (("debit", "empty"), ("credit", "fill")))
    empty.began, empty.ended, fill.began, fill.ended = fill.began, fill.ended, empty.began, empty.ended
    assert books.rows


def move_while_frozen(operations: list[Operation], books: Books) -> None:
    """Nobody got the result when the account was unfrozen; it was after what moved on it."""
    unfreeze = operation_of(operations, "unfreeze")
    unfreeze.outcome, unfreeze.ended = {"kind": "none"}, NEVER
    moved = next(row for row in books.rows if row.key == "third")
    change_row(books, "unfreeze", balance=moved.balance, created_us=moved.created_us)


def publish_a_decision_at_another_sequence(_operations: list[Operation], books: Books) -> None:
    sequences = {(A, -1): 3, (A, 3): 4}
    books.published[:] = [
        OutboxPosition(a, seq, sequences.get((a, seq), sequence)) for a, seq, sequence in books.published
    ]


def give_a_later_decision_an_earlier_time(_operations: list[Operation], books: Books) -> None:
    change_row(books, "freeze", created_us=1)


def give_a_later_entry_an_earlier_time(_operations: list[Operation], books: Books) -> None:
    change_row(books, "second", created_us=1)


def write_the_legs_at_two_moments(_operations: list[Operation], books: Books) -> None:
    change_row(books, "first", created_us=books.rows[0].created_us + 1)


def unbalance_the_legs(_operations: list[Operation], books: Books) -> None:
    number = next(number for number, row in enumerate(books.rows) if row.first is not None)
    books.rows[number] = replace(books.rows[number], amount=31)


def read_one_leg_as_of_a_moment(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "read_at").outcome["balance"] += 30


def read_a_moment_that_changed(operations: list[Operation], books: Books) -> None:
    """Something was written before the moment after it had been read."""
    read = operation_of(operations, "read_at", nth=2)
    for number, row in enumerate(books.rows):
        if row.key == "third" or row.first == (A, 4):
            books.rows[number] = replace(row, created_us=read.outcome["as_of_us"])


def miss_a_sequence(_operations: list[Operation], books: Books) -> None:
    books.published.remove(next(each for each in books.published if each.account == B and each.seq == 2))


def publish_a_sequence_twice(_operations: list[Operation], books: Books) -> None:
    number = next(number for number, each in enumerate(books.published) if each.account == B and each.sequence == 2)
    books.published[number] = books.published[number]._replace(sequence=1)


def apply_what_was_said_not_to_be_accepted(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "debit", key="empty").outcome = {"kind": "unavailable", "error": ""}


def apply_what_nobody_asked_for(operations: list[Operation], _books: Books) -> None:
    operations.remove(operation_of(operations, "post", key="second"))


def mistake_a_repeat_for_a_collision(operations: list[Operation], _books: Books) -> None:
    repeat = operation_of(operations, "credit", key="fill", nth=1)
    repeat.outcome = {"kind": "rejected", "code": "idempotency_key_mismatch"}


def take_a_collision_for_a_repeat(operations: list[Operation], _books: Books) -> None:
    colliding = operation_of(operations, "credit", key="fill", nth=2)
    colliding.outcome = operation_of(operations, "credit", key="fill").outcome


def end_too_late(operations: list[Operation], _books: Books) -> None:
    operations[-1].ended += 20 * STEP


def fail_in_no_documented_way(operations: list[Operation], _books: Books) -> None:
    operations[-1].outcome = {"kind": "error", "error": "status 500"}


def call_what_is_there_lost(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "credit", key="fill").outcome = {"kind": "lost", "error": ""}


def hold_of(books: Books, key: str) -> str:
    return next(f"cch_{row.account[4:]}{-row.seq:x}" for row in books.rows if row.key == key)


def change_content(books: Books, key: str, **fields: object) -> None:
    row = next(row for row in books.rows if row.key == key)
    change_row(books, key, content={**row.content, **fields})


def keep_what_was_voided(_operations: list[Operation], books: Books) -> None:
    change_row(books, "void", held=10)


def take_what_is_held(_operations: list[Operation], books: Books) -> None:
    """More is held than there is."""
    change_row(books, "part", held=200)


def capture_what_is_not_there(_operations: list[Operation], books: Books) -> None:
    change_content(books, "rest", hold_id=hold_of(books, "voided"))


def capture_more_than_is_left(_operations: list[Operation], books: Books) -> None:
    change_row(books, "held", amount=9)


def release_the_rest_of_a_capture_that_is_not_final(_operations: list[Operation], books: Books) -> None:
    change_content(books, "part", final=True)


def refuse_a_capture_of_an_open_hold(operations: list[Operation], books: Books) -> None:
    change_row(books, "beyond", rejection="hold_expired")
    operation_of(operations, "capture", key="beyond").outcome["code"] = "hold_expired"


def refuse_a_capture_that_is_covered(operations: list[Operation], books: Books) -> None:
    change_row(books, "beyond", amount=15)
    change_content(books, "beyond", amount="15")
    operation_of(operations, "capture", key="beyond").request["amount"] = 15


def let_a_hold_end_too_early(_operations: list[Operation], books: Books) -> None:
    change_content(books, "short", ends_at="2100-01-01T00:00:00+00:00")


def void_a_hold_after_its_end(_operations: list[Operation], books: Books) -> None:
    change_content(books, "voided", ends_at="1970-01-01T00:00:01+00:00")


def close_with_an_open_hold(_operations: list[Operation], books: Books) -> None:
    """The hold is on the account that is closed, and has not ended by itself."""
    end = next(number for number, row in enumerate(books.rows) if row.kind == "expiry")
    row = books.rows[end]
    books.rows[end] = replace(row, kind="close", content={}, amount=None, reference=None)


def store_a_hold_otherwise(_operations: list[Operation], books: Books) -> None:
    books.holds[0] = books.holds[0]._replace(captured=11)


def lose_a_hold(_operations: list[Operation], books: Books) -> None:
    books.holds.pop()


def answer_with_another_hold(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "hold", key="held").outcome["hold"] = "cch_" + "d" * 32 + "9"


def leave_a_row_of_a_trial(_operations: list[Operation], books: Books) -> None:
    row = next(row for row in books.rows if row.key == "held")
    books.rows.append(replace(row, seq=-99, key="attempt"))


def give_a_trial_an_id(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "credit", key="attempt").outcome["transaction"] = "cct_" + "d" * 32 + "9"


def take_less_than_is_there(_operations: list[Operation], books: Books) -> None:
    row = change_row(books, "all there is", balance=1)
    change_row(books, "all there is", amount=(row.amount or 0) - 1)


def answer_another_shortfall(operations: list[Operation], _books: Books) -> None:
    operation_of(operations, "debit", key="all there is").outcome["shortfall"] += 1


DAMAGES: dict[Damage, str] = {
    lose_an_entry: "answer_without_row",
    lose_what_was_only_accepted: "accepted_and_lost",
    double_an_entry: "two_effects",
    answer_a_wrong_balance: "answer_differs",
    answer_a_repeat_otherwise: "answer_differs",
    hide_that_it_is_a_repeat: "replay_not_reported",
    turn_an_acknowledgement_into_a_refusal: "answer_differs",
    turn_a_refusal_into_an_acknowledgement: "answer_differs",
    read_what_was_before: "stale_or_unreal",
    read_what_never_was: "stale_or_unreal",
    read_the_state_from_before: "stale_status",
    miss_an_account_that_is_there: "stale_status",
    go_back_between_two_reads: "stale_or_unreal",
    refuse_on_an_old_balance: "stale_decision",
    refuse_what_is_covered: "wrong_refusal",
    freeze_on_an_old_balance: "stale_decision",
    swap_the_order_of_two_entries: "order",
    swap_what_was_accepted: "acceptance_order",
    move_while_frozen: "decision_order",
    publish_a_decision_at_another_sequence: "sequence_of_decision",
    give_a_later_decision_an_earlier_time: "time_against_order",
    give_a_later_entry_an_earlier_time: "time_goes_back",
    write_the_legs_at_two_moments: "leg_at_other_moment",
    unbalance_the_legs: "legs_do_not_balance",
    read_one_leg_as_of_a_moment: "sum_at_moment",
    read_a_moment_that_changed: "moment_changed",
    miss_a_sequence: "sequence_missing",
    publish_a_sequence_twice: "sequence_twice",
    apply_what_was_said_not_to_be_accepted: "unavailable_but_applied",
    apply_what_nobody_asked_for: "nobody_asked",
    mistake_a_repeat_for_a_collision: "wrong_mismatch",
    take_a_collision_for_a_repeat: "mismatch_not_reported",
    end_too_late: "late",
    fail_in_no_documented_way: "undocumented",
    call_what_is_there_lost: "reported_as_lost",
    keep_what_was_voided: "held_does_not_add_up",
    take_what_is_held: "entries_do_not_add_up",
    capture_what_is_not_there: "ended_hold_used",
    capture_more_than_is_left: "captured_beyond_hold",
    release_the_rest_of_a_capture_that_is_not_final: "ended_hold_used",
    refuse_a_capture_of_an_open_hold: "wrong_refusal_of_hold",
    refuse_a_capture_that_is_covered: "wrong_refusal_of_hold",
    let_a_hold_end_too_early: "wrong_side_of_end",
    void_a_hold_after_its_end: "end_overlooked",
    close_with_an_open_hold: "wrong_closing",
    store_a_hold_otherwise: "hold_differs",
    lose_a_hold: "hold_differs",
    answer_with_another_hold: "answer_differs",
    leave_a_row_of_a_trial: "trial_left_a_row",
    give_a_trial_an_id: "trial_made_something",
    take_less_than_is_there: "partial_debit",
    answer_another_shortfall: "answer_differs",
}


def test_nothing_is_found_in_a_good_history() -> None:
    assert check(*good_history(), closed_sets=[CLOSED_SET]) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_checks_find(damage: Damage) -> None:
    operations, books = good_history()
    damage(operations, books)
    assert DAMAGES[damage] in kinds_of(operations, books)


def test_the_good_history_has_every_kind_of_command() -> None:
    operations, books = good_history()
    assert {row.kind for row in books.rows} == {
        "open_account", "credit", "debit", "post", "reverse", "freeze", "unfreeze", "close",
        "hold", "capture", "void", "extend", "expiry",
    }  # fmt: skip
    assert any(operation.request.get("account") == OTHER for operation in operations)
