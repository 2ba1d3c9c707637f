"""A body with more fields than any operation takes is refused before the models name each of them."""

import json

import pytest

from creditlane.producer.api.body_fields import MAX_FIELDS, UNCOUNTED_BYTES, has_too_many_fields
from creditlane.schemas.commands import MAX_ENTRIES, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARACTERS

PADDING = " " * UNCOUNTED_BYTES


def test_the_largest_body_that_an_operation_takes_passes() -> None:
    entry = {"account_id": "a" * 36, "side": "debit", "amount": "9" * 1_000}
    metadata = {f"{number}": "\U0001f600" * MAX_METADATA_VALUE_CHARACTERS for number in range(MAX_METADATA_PAIRS)}
    body = {"reference": "r", "entries": [entry] * MAX_ENTRIES, "metadata": metadata, "idempotency_key": "k"}

    assert not has_too_many_fields(json.dumps(body).encode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_too_many_fields_are_noticed_wherever_they_are(encoding: str) -> None:
    flat = {f"f{number}": 1 for number in range(MAX_FIELDS + 1)}
    deep = [{"a": {"b": number}} for number in range(MAX_FIELDS // 2 + 1)]
    same = "{" + ",".join('"a":NaN' for _ in range(MAX_FIELDS + 1)) + "}"

    for text in (json.dumps(flat), json.dumps(deep), same):
        assert has_too_many_fields((text + PADDING).encode(encoding))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":1', "\udcff"])
def test_what_is_no_json_is_left_to_who_says_what_is_wrong(text: str) -> None:
    assert not has_too_many_fields((text + PADDING).encode(errors="surrogateescape"))


def test_a_small_body_is_not_counted() -> None:
    assert not has_too_many_fields(b'{"a":1,' * 1_500)
