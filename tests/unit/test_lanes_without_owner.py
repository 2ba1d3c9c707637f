"""Lanes without an owner are a problem, unless they are on their way from one living worker to another."""

from datetime import UTC, datetime

import pytest

from creditlane.producer.operations.lane_problems import LanesWithoutOwner, LeaseRecord, WorkerRecord

LEASE_SECONDS = 10.0
LANES = 9


class Observer:
    """Looks at lanes at the moments that the test says."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._lanes = LanesWithoutOwner(lambda: self.now)

    def after(self, seconds: float, leases: list[LeaseRecord], workers: list[WorkerRecord]) -> list[int]:
        self.now += seconds
        return self._lanes.observe(leases, workers)


def worker(
    name: str = "a", *, alive: bool = True, stuck: bool = False, lease_seconds: float = LEASE_SECONDS
) -> WorkerRecord:
    return WorkerRecord(name, "host", 1, datetime.now(UTC), alive, stuck, lease_seconds, 0.0, 1, "{}")


def owned(*partitions: int, epoch: int = 1) -> list[LeaseRecord]:
    return [LeaseRecord(partition, epoch, "a", is_nobodys=False) for partition in partitions]


def given_back(*partitions: int, epoch: int = 2) -> list[LeaseRecord]:
    return [LeaseRecord(partition, epoch, None, is_nobodys=True) for partition in partitions]


def of_the_dead(*partitions: int, epoch: int = 1) -> list[LeaseRecord]:
    return [LeaseRecord(partition, epoch, None, is_nobodys=False) for partition in partitions]


@pytest.fixture
def observer() -> Observer:
    return Observer()


def test_a_worker_that_joins_is_no_problem_at_any_moment(observer: Observer) -> None:
    """Given two workers that give lanes to a third, each lane a moment after the other, then none is ever reported."""
    workers = [worker("a"), worker("b"), worker("c")]
    for lane in range(LANES):
        between = owned(*range(lane), epoch=3) + given_back(lane) + owned(*range(lane + 1, LANES))
        assert observer.after(LEASE_SECONDS / 5, between, workers) == []
        assert observer.after(LEASE_SECONDS / 5, between, workers) == []
    assert observer.after(1.0, owned(*range(LANES), epoch=3), workers) == []


def test_lanes_of_a_worker_that_leaves_are_no_problem_while_others_take_them(observer: Observer) -> None:
    assert observer.after(1.0, given_back(*range(LANES)), [worker("b")]) == []
    assert observer.after(LEASE_SECONDS, given_back(0, 1) + owned(*range(2, LANES), epoch=3), [worker("b")]) == []


def test_lanes_that_nobody_takes_for_a_lease_are_a_problem_until_somebody_does(observer: Observer) -> None:
    lanes, workers = owned(0) + given_back(1, 2), [worker()]

    assert observer.after(0.0, lanes, workers) == []
    assert observer.after(LEASE_SECONDS, lanes, workers) == []
    assert observer.after(0.1, lanes, workers) == [1, 2]
    assert observer.after(1.0, owned(0) + owned(1, epoch=3) + given_back(2), workers) == [2]
    assert observer.after(1.0, owned(0, 1, 2, epoch=3), workers) == []


def test_the_longest_lease_counts(observer: Observer) -> None:
    workers = [worker("a", lease_seconds=2.0), worker("b", lease_seconds=60.0), worker("c", alive=False)]

    assert observer.after(0.0, given_back(1), workers) == []
    assert observer.after(59.0, given_back(1), workers) == []
    assert observer.after(2.0, given_back(1), workers) == [1]


def test_two_hand_overs_are_not_one_that_lasts(observer: Observer) -> None:
    """Given who reads so rarely that it does not see the owner between, then the epoch shows that there was one."""
    assert observer.after(0.0, given_back(1, epoch=2), [worker()]) == []
    assert observer.after(60.0, given_back(1, epoch=4), [worker()]) == []
    assert observer.after(60.0, given_back(1, epoch=4), [worker()]) == [1]


@pytest.mark.parametrize("workers", [[], [worker(alive=False)], [worker(stuck=True)]])
def test_without_a_worker_to_take_them_lanes_are_a_problem_at_once(
    observer: Observer, workers: list[WorkerRecord]
) -> None:
    assert observer.after(0.0, given_back(1, 2), workers) == [1, 2]


def test_what_was_reported_stays_reported_until_it_has_an_owner(observer: Observer) -> None:
    """Given lanes that had no worker, when one starts, then they are a problem until it has taken them."""
    assert observer.after(0.0, given_back(1, 2), []) == [1, 2]
    assert observer.after(1.0, given_back(1, 2), [worker()]) == [1, 2]
    assert observer.after(1.0, given_back(1) + owned(2, epoch=3), [worker()]) == [1]


def test_a_lane_of_a_dead_owner_is_a_problem_at_once(observer: Observer) -> None:
    assert observer.after(0.0, of_the_dead(1) + owned(2), [worker(), worker("b", alive=False)]) == [1]
