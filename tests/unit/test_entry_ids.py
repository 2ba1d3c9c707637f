"""Ids of a stream's entries: their order, and what comes right before and after one."""

import pytest

from creditlane.worker.lanes.entry_ids import MAX_NUMBER, after, before, is_lower, order_of


def test_ids_are_ordered_by_their_numbers_and_not_as_text() -> None:
    ids = [b"10-0", b"9-10", b"9-9", b"100-0"]

    assert sorted(ids, key=order_of) == [b"9-9", b"9-10", b"10-0", b"100-0"]
    assert is_lower(b"9-9", b"9-10")
    assert not is_lower(b"9-9", b"9-9")


@pytest.mark.parametrize(
    ("one", "next_one"), [(b"7-0", b"7-1"), (b"7-9", b"7-10"), (b"7-%d" % MAX_NUMBER, b"8-0"), (b"0-1", b"0-2")]
)
def test_an_id_has_one_right_before_and_one_right_after(one: bytes, next_one: bytes) -> None:
    assert after(one) == next_one
    assert before(next_one) == one
