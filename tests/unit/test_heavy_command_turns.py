"""What is held back leaves half of the time to the others, and none where there are none."""

import pytest

from creditlane.worker.lanes.heavy_command_turns import (
    MAX_REST_SECONDS,
    MOST_READS_BEFORE_HELD,
    QUIET_SECONDS,
    HeavyCommandTurns,
)

from .moved_clock import MovedClock


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def turns(clock: MovedClock) -> HeavyCommandTurns:
    return HeavyCommandTurns(clock)


def do_part(turns: HeavyCommandTurns, clock: MovedClock, *, seconds: float, others: bool = True) -> float:
    turns.begin(others=others)
    assert turns.is_at_part
    clock.now += seconds
    rest = turns.note_done()
    assert not turns.is_at_part
    return rest


@pytest.mark.parametrize("others", ["here", "elsewhere"])
def test_the_lanes_rest_as_long_as_the_part_took(turns: HeavyCommandTurns, clock: MovedClock, others: str) -> None:
    if others == "here":
        turns.note_read(found=True, more=False)

    assert do_part(turns, clock, seconds=0.01, others=others == "elsewhere") == pytest.approx(0.01)

    assert not turns.has_come(idle=True)
    clock.now += 0.011
    assert turns.has_come(idle=True)
    assert not turns.has_come(idle=False)


def test_however_much_others_send_the_turn_comes(turns: HeavyCommandTurns, clock: MovedClock) -> None:
    do_part(turns, clock, seconds=0.01)
    clock.now += 0.011
    for _ in range(MOST_READS_BEFORE_HELD):
        assert not turns.has_come(idle=False)
        turns.note_read(found=True, more=False)

    assert turns.has_come(idle=False)


def test_where_nobody_else_is_at_work_there_is_no_rest(turns: HeavyCommandTurns, clock: MovedClock) -> None:
    turns.note_read(found=True, more=False)
    clock.now += QUIET_SECONDS + 1

    assert do_part(turns, clock, seconds=0.01, others=False) == 0.0
    assert turns.has_come(idle=True)


def test_a_part_that_took_very_long_does_not_rest_for_ever(turns: HeavyCommandTurns, clock: MovedClock) -> None:
    assert do_part(turns, clock, seconds=60.0) == MAX_REST_SECONDS


def test_the_turn_of_another_worker_is_waited_for(turns: HeavyCommandTurns, clock: MovedClock) -> None:
    turns.put_off()

    assert not turns.has_come(idle=True)
    clock.now += turns.rest_seconds
    assert turns.has_come(idle=True)
