"""Which lanes a process owns and what of them is under way, as its threads see it."""

import threading

from creditlane.worker.lanes.ownership import Ownership


def test_what_is_owned_is_what_was_given_last() -> None:
    ownership = Ownership()

    assert ownership.replace({1: 5, 2: 7}) == ({1, 2}, set())
    assert ownership.replace({2: 7, 3: 1}) == ({3}, {1})
    assert ownership.current() == {2: 7, 3: 1}


def test_a_lane_under_a_new_epoch_is_gained_anew() -> None:
    """Given a lane that was away and came back, then it counts as gained: what is known of it is from before."""
    ownership = Ownership()
    ownership.replace({1: 5})

    assert ownership.replace({1: 7}) == ({1}, set())


def test_the_current_lanes_are_a_copy() -> None:
    ownership = Ownership()
    ownership.replace({1: 5})

    ownership.current().clear()

    assert ownership.current() == {1: 5}


def test_only_the_epoch_that_was_lost_is_lost() -> None:
    """Given a report that a lane was lost under an old epoch, when it is held under a newer one, then it is kept."""
    ownership = Ownership()
    ownership.replace({1: 5, 2: 7, 3: 9})

    ownership.lose([1, 2, 4], {1: 5, 2: 6, 4: 1})

    assert ownership.current() == {2: 7, 3: 9}


def test_a_lane_is_under_way_until_every_batch_of_it_is_finished() -> None:
    ownership = Ownership()
    ownership.begin({1: 5, 2: 7})
    ownership.begin({1: 5})

    ownership.finish({1: 5, 2: 7})
    assert (ownership.is_under_way(1, 5), ownership.is_under_way(2, 7)) == (True, False)

    ownership.finish({1: 5})
    assert not ownership.is_under_way(1, 5)


def test_a_lane_is_under_way_under_its_epoch_only() -> None:
    """Given a lane read under one epoch, when it comes back under another, then nothing of that one is under way."""
    ownership = Ownership()
    ownership.begin({1: 5})

    assert not ownership.is_under_way(1, 6)


def test_finishing_more_than_was_begun_does_no_harm() -> None:
    ownership = Ownership()
    ownership.finish({1: 5})
    ownership.begin({1: 5})

    assert ownership.is_under_way(1, 5)


def test_whoever_waits_for_lanes_hears_of_them() -> None:
    """Given a reader that waits, when the lease keeper brings a lane, then the reader goes on at once."""
    ownership = Ownership()
    seen: list[dict[int, int]] = []
    reader = threading.Thread(target=lambda: seen.append(ownership.wait_for_some(30)))
    reader.start()

    ownership.replace({1: 5})
    reader.join(30)

    assert seen == [{1: 5}]


def test_waiting_for_lanes_ends_without_any() -> None:
    assert Ownership().wait_for_some(0.001) == {}


def test_giving_up_a_lane_waits_for_what_is_under_way() -> None:
    """Given a batch under way, when its lane shall be released, then that waits for the batch, under whatever epoch."""
    ownership = Ownership()
    ownership.begin({1: 5, 2: 7})
    waited: list[bool] = []
    keeper = threading.Thread(target=lambda: waited.append(ownership.wait_until_finished({1}, 30)))
    keeper.start()

    ownership.finish({1: 5})
    keeper.join(30)

    assert waited == [True]
    assert ownership.is_under_way(2, 7)


def test_giving_up_a_lane_does_not_wait_for_ever() -> None:
    ownership = Ownership()
    ownership.begin({1: 5})

    assert not ownership.wait_until_finished({1}, 0.001)
    assert ownership.wait_until_finished({2}, 0.001)


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_lane_stands_while_what_was_read_of_it_is_not_done_with() -> None:
    time = Time()
    ownership = Ownership(time)
    ownership.replace({1: 5, 2: 7})
    ownership.begin({1: 5, 2: 7})
    time.now += 8
    ownership.finish({2: 7}, deleted=True)
    time.now += 8

    assert ownership.standing(10) == {1: 16}

    ownership.finish({1: 5}, deleted=True)
    assert ownership.standing(0) == {}


def test_a_lane_that_is_read_again_and_again_stands() -> None:
    """Given a lane whose entries are dropped and read anew, under whatever epoch, then it does not get on."""
    time = Time()
    ownership = Ownership(time)
    for epoch in range(5, 11):
        ownership.replace({1: epoch})
        ownership.begin({1: epoch})
        ownership.finish({1: epoch})
        ownership.lose([1], {1: epoch})
        time.now += 2
    ownership.replace({1: 11})

    assert ownership.standing(10) == {1: 12}


def test_a_lane_of_which_something_gets_done_does_not_stand() -> None:
    """Given a lane that is never without anything under way, when batch after batch is deleted, then it gets on."""
    time = Time()
    ownership = Ownership(time)
    ownership.replace({1: 5})
    ownership.begin({1: 5})
    for _ in range(10):
        ownership.begin({1: 5})
        time.now += 6
        ownership.finish({1: 5}, deleted=True)

    assert ownership.standing(10) == {}


def test_a_lane_stands_under_its_new_epoch_though_something_of_the_old_one_was_deleted() -> None:
    """Given a lane read under two epochs, when what was read under the first is deleted, then the other part waits."""
    time = Time()
    ownership = Ownership(time)
    ownership.replace({1: 5})
    ownership.begin({1: 5})
    ownership.move({1: 6})
    ownership.begin({1: 6})
    ownership.finish({1: 5}, deleted=True)
    time.now += 12

    assert ownership.standing(10) == {1: 12}


def test_a_lane_that_somebody_else_emptied_does_not_stand() -> None:
    time = Time()
    ownership = Ownership(time)
    ownership.replace({1: 5})
    ownership.begin({1: 5})
    ownership.finish({1: 5})
    time.now += 60

    assert ownership.standing(10) == {}
