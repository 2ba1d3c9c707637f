"""The form of an API key, and how one differs from another."""

import re

import pytest

from creditlane.producer.operations.api_keys import KeyRow, hash_of, key_id_of, matching, new_key


def row_of(key: str, key_id: str = "") -> KeyRow:
    return KeyRow(key_id or key_id_of(key) or "", hash_of(key), "store_a", 1)


def test_a_key_has_an_id_that_may_be_shown_and_a_secret() -> None:
    key = new_key()

    assert re.fullmatch(r"cl_[0-9a-f]{16}_[0-9a-f]{48}", key)
    assert key_id_of(key) == key.split("_")[1]
    assert new_key() != key


KEY = "cl_0123456789abcdef_" + "0" * 48


@pytest.mark.parametrize(
    "text",
    ["", "cl_", "x" * 100_000, "\ud800", KEY[:-1], KEY + "0", KEY + "\n", " " + KEY, KEY.upper(), KEY[:-1] + "g"],
    ids=lambda text: ascii(text[-8:]),
)
def test_what_is_no_key_is_seen_before_anything_is_asked(text: str) -> None:
    assert key_id_of(text) is None


def test_what_is_stored_is_not_the_key() -> None:
    key = new_key()

    assert len(hash_of(key)) == 32
    assert key.encode() not in hash_of(key)


def test_a_key_matches_its_own_row_only() -> None:
    key, other = new_key(), new_key()

    assert matching(key, []) is None
    assert matching(key, [row_of(other)]) is None
    assert matching(key, [row_of(other), row_of(key)]) == row_of(key)


def test_the_id_alone_opens_nothing() -> None:
    key = new_key()
    guess = key[:-1] + ("0" if key[-1] != "0" else "1")

    assert key_id_of(guess) == key_id_of(key)
    assert matching(guess, [row_of(key)]) is None
