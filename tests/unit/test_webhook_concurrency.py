"""What hangs or fails takes little, and leaves the rest to those that work."""

from creditlane.worker.webhooks.concurrency import (
    MAX_CONCURRENCY,
    MAX_PAUSE_SECONDS,
    SLOW_SECONDS,
    EndpointConcurrency,
    RequestClass,
    Slots,
    failing_pause,
)


def test_an_endpoint_begins_with_one_and_grows_while_it_works() -> None:
    concurrency = EndpointConcurrency()
    limits = [concurrency.limit]

    for _ in range(MAX_CONCURRENCY + 10):
        concurrency.succeeded()
        limits.append(concurrency.limit)

    assert limits[:3] == [1, 2, 3]
    assert max(limits) == limits[-1] == MAX_CONCURRENCY
    assert concurrency.is_proven


def test_each_failure_halves_down_to_one() -> None:
    concurrency = EndpointConcurrency()
    for _ in range(MAX_CONCURRENCY):
        concurrency.succeeded()
    limits = []

    for _ in range(7):
        concurrency.failed()
        limits.append(concurrency.limit)

    assert limits == [16, 8, 4, 2, 1, 1, 1]
    assert not concurrency.is_proven


def test_those_that_hang_do_not_take_the_slots_of_the_others() -> None:
    slots = Slots(max_of_class=2)

    taken = {kind: [slots.take(kind, 0.0, 1) for _ in range(3)] for kind in RequestClass}

    assert all(each[1] is not None and each[2] is None for each in taken.values())
    assert slots.taken == 6


def test_whatever_other_stores_have_a_store_finds_a_slot() -> None:
    """Given a store that takes what it gets, then another gets as much as it needs of the rest, and one that comes when
    there is nothing left gets one slot for itself; what is given back counts no more."""
    slots = Slots(max_of_class=100)

    of_first = [slot for _ in range(100) if (slot := slots.take(RequestClass.NEW, 0.0, 1)) is not None]
    of_second = [slot for _ in range(100) if (slot := slots.take(RequestClass.NEW, 0.0, 2)) is not None]
    of_many = [slots.take(RequestClass.NEW, 0.0, store) for store in range(3, 103)]

    assert len(of_first) == 75
    assert 15 <= len(of_second) < 25
    assert None not in of_many
    assert slots.take(RequestClass.NEW, 0.0, 3) is None
    for slot in (*of_first, *of_second, *filter(None, of_many)):
        slots.give_back(slot)
    assert sum(slots.take(RequestClass.NEW, 0.0, 3) is not None for _ in range(100)) == 75


def test_a_slow_request_counts_among_the_slow_ones_of_its_store() -> None:
    slots = Slots(max_of_class=4)
    slow = [slots.take(RequestClass.NEW, 0.0, 1) for _ in range(4)]

    slots.move_slow(SLOW_SECONDS)

    assert slow[3] is None
    assert slots.take(RequestClass.SLOW, SLOW_SECONDS, 1) is None
    assert slots.take(RequestClass.SLOW, SLOW_SECONDS, 2) is not None
    assert slots.take(RequestClass.NEW, SLOW_SECONDS, 1) is not None


def test_a_slot_that_is_held_for_long_is_free_again_for_the_quick() -> None:
    slots = Slots(max_of_class=1)
    slow = slots.take(RequestClass.QUICK, 0.0, 1)
    assert slow is not None
    assert slots.take(RequestClass.QUICK, SLOW_SECONDS / 2, 1) is None
    assert not slots.has_slow(SLOW_SECONDS / 2)

    slots.move_slow(SLOW_SECONDS)

    quick = slots.take(RequestClass.QUICK, SLOW_SECONDS, 1)
    assert quick is not None
    assert slots.take(RequestClass.SLOW, SLOW_SECONDS, 1) is None
    assert slots.has_slow(SLOW_SECONDS)
    assert (slots.give_back(slow), slots.give_back(quick)) == (RequestClass.SLOW, RequestClass.QUICK)
    assert slots.taken == 0


def test_the_longer_an_endpoint_fails_the_longer_it_is_left_alone() -> None:
    assert failing_pause(0.0) == 0.0
    assert failing_pause(4.0) == 2.0
    assert failing_pause(86_400.0) == MAX_PAUSE_SECONDS
