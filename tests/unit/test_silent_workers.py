"""Who counts as silent is judged by what was waited, not by what a clock says."""

from typing import NamedTuple

import pytest

from creditlane.worker.lanes.silent_workers import Sign, Watch

LEASE = 10.0


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Watched(NamedTuple):
    time: Time
    watch: Watch

    def read(self, *signs: Sign, after: float = 0.0) -> None:
        self.time.now += after
        self.watch.observe(signs)


@pytest.fixture
def watched() -> Watched:
    time = Time()
    return Watched(time, Watch(LEASE, time))


def sign(expires_at_us: int | None, remaining: float | None, *, stuck: bool = False, owns: bool = True) -> Sign:
    return Sign("other", expires_at_us, remaining, LEASE, stuck, owns)


def silent(watch: Watch) -> list[str]:
    return [found.worker_id for found in watch.to_replace()]


def test_a_worker_whose_time_is_over_by_the_clock_and_by_the_wait_is_silent(watched: Watched) -> None:
    watched.read(sign(1, 8.0))
    watched.read(sign(1, 4.0), after=4)
    assert (silent(watched.watch), watched.watch.alive()) == ([], 1)
    watched.read(sign(1, 0.0), after=4)

    assert (silent(watched.watch), watched.watch.alive()) == (["other"], 0)


def test_a_time_that_lies_hours_ahead_ends_with_the_lease_that_was_waited(watched: Watched) -> None:
    """Given a worker that sent heartbeats while the clock was an hour ahead, when it sends none any more, then its
    lease is over when it would have been."""
    watched.read(sign(1, 3_610.0))
    for _ in range(5):
        watched.read(sign(1, 3_600.0), after=2)
        assert silent(watched.watch) == []

    watched.read(sign(1, 3_599.0), after=1)

    assert silent(watched.watch) == ["other"]


def test_a_clock_that_jumps_ahead_makes_nobody_silent_whose_heartbeat_comes(watched: Watched) -> None:
    """Given times that are over by the clock as soon as they are shown, when each read finds another, then all live."""
    for number in range(10):
        watched.read(sign(number, -3_600.0), after=2)
        watched.read(sign(number, -3_601.0), after=1)

        assert (silent(watched.watch), watched.watch.alive()) == ([], 1)


def test_who_has_just_come_waits_a_moment_before_it_believes_the_clock(watched: Watched) -> None:
    watched.read(sign(1, -60.0))
    assert silent(watched.watch) == []
    assert watched.watch.next_silence_seconds() == pytest.approx(4)

    watched.read(sign(1, -62.0), after=2)
    watched.read(sign(1, -64.0), after=2)

    assert silent(watched.watch) == ["other"]


def test_one_that_could_not_be_watched_was_not_silent_meanwhile(watched: Watched) -> None:
    """Given an observer that stood still, or was cut off, when it reads again, then little of that time counts."""
    watched.read(sign(1, 10.0))
    watched.read(sign(1, -50.0), after=60)
    assert silent(watched.watch) == []

    watched.watch.forget()
    watched.read(sign(1, -53.0), after=3)
    assert silent(watched.watch) == []

    watched.read(sign(1, -56.0), after=3)
    assert silent(watched.watch) == []


def test_an_observer_that_seldom_has_its_turn_finds_the_silent_all_the_same(watched: Watched) -> None:
    for number in range(5):
        watched.read(sign(1, 3_600.0 - 7 * number), after=7)
    assert silent(watched.watch) == ["other"]


def test_a_worker_that_does_not_get_on_is_replaced_at_once_and_counts_for_nothing(watched: Watched) -> None:
    watched.read(sign(1, 10.0, stuck=True))

    assert (silent(watched.watch), watched.watch.alive()) == (["other"], 0)


def test_lanes_of_one_that_is_not_on_record_are_free(watched: Watched) -> None:
    watched.read(sign(None, None))

    assert (silent(watched.watch), watched.watch.alive()) == (["other"], 0)


def test_one_whose_time_is_over_and_who_owns_nothing_counts_for_nothing(watched: Watched) -> None:
    watched.read(sign(1, -1.0, owns=False))

    assert (silent(watched.watch), watched.watch.alive()) == ([], 0)


def test_the_next_check_comes_when_the_first_could_be_silent(watched: Watched) -> None:
    watched.read(sign(1, 10.0))
    watched.read(sign(1, 5.0), sign(2, 9.0)._replace(worker_id="third"), after=5)

    assert watched.watch.next_silence_seconds() == pytest.approx(5)
