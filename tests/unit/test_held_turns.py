"""What is held back leaves half of the time to the others, and none where there are none."""

import pytest

from creditlane.schemas.commands import Credit, Post
from creditlane.schemas.encoding import encode_command
from creditlane.worker.held_turns import MAX_REST_SECONDS, MOST_READS_BEFORE_HELD, QUIET_SECONDS, HeldTurns
from creditlane.worker.requests import Request, parse_request

from .moved_clock import MovedClock

A, B = "cca_" + "a" * 32, "cca_" + "b" * 32
CREDIT = Credit(account_id=A, amount=1, reference="r", idempotency_key="k")
POST = Post(
    account_id=A,
    entries=(
        {"account_id": A, "side": "credit", "amount": 1},
        {"account_id": B, "side": "debit", "amount": 1},
    ),  # type: ignore[arg-type]
    reference="r",
    idempotency_key="k",
)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def turns(clock: MovedClock) -> HeldTurns:
    return HeldTurns(clock)


def request_of(command: Credit | Post) -> Request:
    return parse_request(0, b"1-1", [b"c", encode_command(command, "store_default")])


def do_part(turns: HeldTurns, clock: MovedClock, command: Credit | Post, *, seconds: float, workers: float) -> None:
    turns.begin()
    turns.note_part([request_of(command)], workers)
    clock.now += seconds
    turns.note_done()


@pytest.mark.parametrize(
    ("command", "workers", "rest"), [(CREDIT, 1, 0.01), (CREDIT, 4, 0.01), (POST, 1, 0.01), (POST, 2, 0.03)]
)
def test_the_lanes_rest_as_long_as_all_parts_take(
    turns: HeldTurns, clock: MovedClock, command: Credit | Post, workers: int, rest: float
) -> None:
    turns.note_read(found=True, more=False)
    do_part(turns, clock, command, seconds=0.01, workers=workers)

    assert turns.rest_seconds == pytest.approx(rest)
    assert not turns.has_come(idle=True)
    clock.now += rest + 0.001
    assert turns.has_come(idle=True)
    assert not turns.has_come(idle=False)


def test_however_much_others_send_the_turn_comes(turns: HeldTurns, clock: MovedClock) -> None:
    do_part(turns, clock, CREDIT, seconds=0.01, workers=1)
    for _ in range(MOST_READS_BEFORE_HELD):
        assert not turns.has_come(idle=False)
        turns.note_read(found=True, more=False)

    assert turns.has_come(idle=False)


def test_where_nobody_else_is_at_work_there_is_no_rest(turns: HeldTurns, clock: MovedClock) -> None:
    turns.note_read(found=True, more=False)
    clock.now += QUIET_SECONDS + 1
    do_part(turns, clock, POST, seconds=0.01, workers=8)

    assert turns.has_come(idle=True)


def test_a_part_that_took_very_long_does_not_rest_for_ever(turns: HeldTurns, clock: MovedClock) -> None:
    turns.note_read(found=True, more=False)
    turns.begin()
    turns.note_part([request_of(POST)], 64)
    clock.now += QUIET_SECONDS - 0.5
    turns.note_done()

    assert turns.rest_seconds == MAX_REST_SECONDS
