"""A request ends in its time, whatever of it the check of its key and its reads have taken."""

import pytest

from creditlane.producer.api.read_deadline import LEAST_READ_SECONDS, ReadDeadline
from creditlane.producer.ledger.read_limits import READ_SECONDS
from creditlane.schemas.errors import Unavailable

from .moved_clock import MovedClock


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


def read(read_deadline: ReadDeadline, clock: MovedClock, seconds: float) -> float:
    """Let a read take so long, and return how long it might have taken."""
    with read_deadline.taken() as until:
        might = until - clock.now
        clock.now += seconds
    return might


def test_reads_share_their_time(clock: MovedClock) -> None:
    read_deadline = ReadDeadline(clock)

    assert read(read_deadline, clock, 3.0) == READ_SECONDS
    clock.now += 60
    assert read(read_deadline, clock, 2.0) == READ_SECONDS - 3
    with pytest.raises(Unavailable), read_deadline.taken():
        pass


def test_the_time_of_a_write_counts_from_when_its_request_came(clock: MovedClock) -> None:
    read_deadline = ReadDeadline(clock)
    read(read_deadline, clock, 4.0)

    assert read_deadline.deadline_of_write(10.0) == pytest.approx(clock.now + 6.0)


def test_what_is_read_after_a_write_is_over_with_it_but_for_a_moment(clock: MovedClock) -> None:
    read_deadline = ReadDeadline(clock)
    read_deadline.deadline_of_write(10.0)
    clock.now += 7.0
    assert read(read_deadline, clock, 0.0) == 3.0
    clock.now += 5.0

    assert read(read_deadline, clock, 0.0) == LEAST_READ_SECONDS
