"""What is said of the clocks of Redis and Postgres is so whatever the ways there take."""

import pytest

from creditlane.producer.client.clocks import DRIFT, GOOD_SECONDS, QUICK_SECONDS, Clocks

from .moved_clock import MovedClock


@pytest.fixture
def own() -> MovedClock:
    return MovedClock()


def see(clocks: Clocks, own: MovedClock, *, ahead: float = 0.0) -> None:
    """Let both clocks be seen at once: Redis's shows the time of our own, Postgres's is ahead of it."""
    clocks.note_redis(own.now, own.now)
    clocks.note_postgres(own.now + ahead, own.now)


@pytest.mark.parametrize("ahead", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize(("asked_for", "answered_after"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.0, 0.0)])
def test_only_what_is_older_is_reported_so(
    own: MovedClock, ahead: float, asked_for: float, answered_after: float
) -> None:
    """Given ways that take their time, then what was decided at once is not older, and what was so before that is."""
    clocks, accepted = Clocks(own), 0.0
    for note, difference in ((clocks.note_redis, 0.0), (clocks.note_postgres, ahead)):
        asked = own.now
        own.now += asked_for
        shown = own.now + difference
        own.now += answered_after
        note(shown, asked)
        accepted = accepted or shown

    assert clocks.is_older(accepted + ahead, accepted) is False
    assert clocks.is_older(accepted + ahead - asked_for - answered_after - 0.01, accepted) is True


def test_nothing_is_said_of_clocks_that_were_not_both_seen(own: MovedClock) -> None:
    clocks = Clocks(own)
    clocks.note_postgres(own.now, own.now)
    assert clocks.is_older(0.0, own.now) is None

    clocks = Clocks(own)
    clocks.note_redis(own.now, own.now)
    assert clocks.is_older(0.0, own.now) is None


def test_what_was_seen_long_ago_is_nothing(own: MovedClock) -> None:
    clocks = Clocks(own)
    see(clocks, own)
    own.now += GOOD_SECONDS + 1
    clocks.note_postgres(own.now, own.now)

    assert clocks.is_older(0.0, own.now) is None


def test_an_answer_that_was_long_in_coming_shows_nothing(own: MovedClock) -> None:
    clocks, asked = Clocks(own), own.now
    own.now += QUICK_SECONDS + 0.01
    clocks.note_redis(own.now, asked)
    clocks.note_postgres(own.now, asked)

    assert clocks.is_older(0.0, own.now) is None


def test_a_clock_that_was_set_is_as_it_was_seen_last(own: MovedClock) -> None:
    clocks = Clocks(own)
    see(clocks, own)

    clocks.note_redis(own.now + 3_600, own.now)

    assert clocks.is_older(own.now, own.now + 3_600) is False


def test_nothing_is_older_than_an_entry_ahead_of_the_clock_that_made_it(own: MovedClock) -> None:
    clocks = Clocks(own)
    see(clocks, own)

    assert clocks.is_older(0.0, own.now + 0.1) is False


def test_clocks_may_have_drifted_since_an_entry_was_made(own: MovedClock) -> None:
    clocks, accepted, hour = Clocks(own), own.now, 3_600
    own.now += hour
    see(clocks, own)

    assert clocks.is_older(accepted - hour * DRIFT + 0.1, accepted) is False
    assert clocks.is_older(accepted - hour * DRIFT - 0.1, accepted) is True
