"""Code works with a range of schemas: from the oldest that it can use, to newer ones that name it in their own name."""

import pytest

from creditlane.schemas.errors import NotMigrated
from creditlane.schemas.installation import check_installation
from creditlane.schemas.schema_revision import OLDEST_REVISION, SCHEMA_REVISION, Revision, check_revision, is_ahead

NEWEST, OLDEST = int(SCHEMA_REVISION[:4]), int(OLDEST_REVISION[:4])
#: Made by newer versions, so that this one goes on.
AHEAD = [f"{NEWEST + 1:04}_since_{NEWEST:04}", f"{NEWEST + 30:04}_since_{NEWEST:04}", f"{NEWEST + 2:04}_since_0001"]


@pytest.mark.parametrize("name", [SCHEMA_REVISION, OLDEST_REVISION, *AHEAD])
def test_a_schema_in_the_range_is_taken(name: str) -> None:
    check_revision(name)

    assert check_installation((name, 8), 8).partitions == 8
    assert is_ahead(name) == (name in AHEAD)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{OLDEST - 1:04}", f"has schema {OLDEST - 1:04} and .* needs {OLDEST_REVISION}; run `creditlane migrate`"),
        # It says nothing of older code.
        (f"{NEWEST + 1:04}", f"only code of schema {NEWEST + 1:04} and later works with it"),
        (f"{NEWEST + 3:04}_since_{NEWEST + 1:04}", f"{NEWEST + 3:04}, and only code of schema {NEWEST + 1:04} and"),
        (f"{NEWEST + 1:04}_since", f"has schema {NEWEST + 1:04}_since and"),
        ("5b0e9adcef9c", "has schema 5b0e9adcef9c and"),
        ("", "has schema  and"),
    ],
)
def test_a_schema_out_of_the_range_is_refused_with_what_to_do(name: str, message: str) -> None:
    with pytest.raises(NotMigrated, match=message):
        check_installation((name, 8), None)

    assert not is_ahead(name)


def test_a_name_says_which_code_works_with_the_schema() -> None:
    assert Revision.parse("0012_since_0009") == Revision(12, since=9)
    assert Revision.parse("0012") == Revision(12, since=12)
