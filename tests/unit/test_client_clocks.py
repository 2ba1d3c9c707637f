"""What is said of the clocks of Redis and Postgres is so whatever the ways there take."""

from collections.abc import Iterator

import pytest

from creditlane.producer import clocks as module
from creditlane.producer.clocks import GOOD_SECONDS, QUICK_SECONDS, Clocks


class OwnClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 5_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def own() -> Iterator[OwnClock]:
    with pytest.MonkeyPatch.context() as patch:
        clock = OwnClock()
        patch.setattr(module, "time", clock)
        yield clock


@pytest.mark.parametrize("ahead", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize(("asked_for", "told_after"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.0, 0.0)])
def test_the_lead_is_never_more_than_it_is(own: OwnClock, ahead: float, asked_for: float, told_after: float) -> None:
    clocks, start = Clocks(), own.now
    for note, difference in ((clocks.note_redis, 0.0), (clocks.note_postgres, ahead)):
        asked = own.now
        own.now += asked_for
        shown = own.now - start + difference
        own.now += told_after
        note(shown, asked)

    lead = clocks.least_lead()

    assert lead is not None
    assert ahead - asked_for - told_after - 0.01 < lead <= ahead


def test_nothing_is_said_of_clocks_that_were_not_both_seen(own: OwnClock) -> None:
    clocks = Clocks()
    assert clocks.least_lead() is None
    clocks.note_postgres(7.0, own.now)
    assert clocks.least_lead() is None
    assert not clocks.is_ahead(1e9)


def test_what_was_seen_long_ago_is_nothing(own: OwnClock) -> None:
    clocks = Clocks()
    clocks.note_redis(7.0, own.now)
    own.now += GOOD_SECONDS + 1
    clocks.note_postgres(7.0, own.now)

    assert clocks.least_lead() is None
    assert not clocks.is_ahead(1e9)


def test_an_answer_that_was_long_in_coming_shows_nothing(own: OwnClock) -> None:
    clocks, asked = Clocks(), own.now
    own.now += QUICK_SECONDS + 0.01
    clocks.note_redis(7.0, asked)
    clocks.note_postgres(7.0, asked)

    assert clocks.least_lead() is None


def test_a_clock_that_was_set_is_as_it_was_seen_last(own: OwnClock) -> None:
    clocks = Clocks()
    clocks.note_redis(7.0, own.now)
    clocks.note_postgres(7.0, own.now)

    clocks.note_redis(3_607.0, own.now)

    assert clocks.least_lead() == pytest.approx(-3_600, abs=0.01)


def test_an_entry_is_ahead_if_it_is_later_than_redis_can_be_by_now(own: OwnClock) -> None:
    clocks = Clocks()
    clocks.note_redis(7.0, own.now)
    own.now += 5

    assert not clocks.is_ahead(12.0)
    assert clocks.is_ahead(12.1)
