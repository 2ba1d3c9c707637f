"""A moment means the same in every spelling, and is UTC where it does not say otherwise."""

from datetime import UTC, datetime

import pytest

from creditlane.schemas.time import parse_moment

MOMENT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SPELLINGS = [
    "2026-03-01T12:30:00Z",
    "2026-03-01T12:30:00.000Z",
    "2026-03-01T12:30:00.000000+00:00",
    "2026-03-01T12:30",
    "2026-03-01 12:30:00",
    "2026-03-01T18:00:00+05:30",
    "2026-03-01T18:00:00+0530",
    "2026-03-01T04:30:00-08:00",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_is_one_moment(text: str) -> None:
    assert parse_moment(text) == MOMENT
    assert parse_moment(text).tzinfo is UTC


def test_a_day_is_its_beginning() -> None:
    assert parse_moment("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "12:30", "0001-01-01T00:00:00+14:00", "1772368200"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_moment(text)
