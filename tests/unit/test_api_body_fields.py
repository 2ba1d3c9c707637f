"""A body with too many fields, or with one that stands twice, is refused before the models see it."""

import json

import pytest

from creditlane.producer.api.middleware.body_fields import MAX_FIELDS, MAX_NAME_CHARACTERS, check_fields
from creditlane.schemas.commands import MAX_ENTRIES, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARACTERS
from creditlane.schemas.errors import InvalidCommand


def refusal_of(body: bytes) -> InvalidCommand:
    with pytest.raises(InvalidCommand) as caught:
        check_fields(body)
    return caught.value


def test_the_largest_body_that_an_operation_takes_passes() -> None:
    entry = {"account_id": "a" * 36, "side": "debit", "amount": "9" * 1_000}
    metadata = {f"{number}": "\U0001f600" * MAX_METADATA_VALUE_CHARACTERS for number in range(MAX_METADATA_PAIRS)}
    body = {"reference": "r", "entries": [entry] * MAX_ENTRIES, "metadata": metadata, "idempotency_key": "k"}

    check_fields(json.dumps(body).encode())
    check_fields(json.dumps(body, ensure_ascii=False).encode("utf-8-sig"))


def test_too_many_fields_are_noticed_wherever_they_are() -> None:
    flat = {f"f{number}": 1 for number in range(MAX_FIELDS + 1)}
    deep = [{"a": {"b": number}} for number in range(MAX_FIELDS // 2 + 1)]

    for body in (flat, deep):
        assert f"more than {MAX_FIELDS} fields" in refusal_of(json.dumps(body).encode()).message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"amount":"1","amount":"2"}', "amount"),
        (b'{"amount":"1","\\u0061mount":"1"}', "amount"),
        (b'{"amount":"1","metadata":{"a":"1","b":"2","a":"1"}}', "a"),
        (b'[{"a":1},{"a":1,"a":1}]', "a"),
        (b'{"":1,"":1}', ""),
        (b'{"%(long)s":1,"%(long)s":1}' % {b"long": b"n" * 5_000}, "n" * MAX_NAME_CHARACTERS),
    ],
    ids=["in clear", "escaped", "nested", "in a list", "empty", "long"],
)
def test_a_field_that_stands_twice_is_named(body: bytes, field: str) -> None:
    refusal = refusal_of(body)

    assert refusal.field == field
    assert refusal.message == f"{field}: stands more than once in an object; send it once"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be", "latin-1"])
def test_another_encoding_than_utf_8_is_refused(encoding: str) -> None:
    assert "not UTF-8" in refusal_of('{"reference":"é"}'.encode(encoding)).message


def test_what_could_not_be_read_later_is_refused_in_words() -> None:
    assert "nested" in refusal_of(b"[" * 200_000).message
    assert "digits" in refusal_of(b'{"amount":%s}' % (b"9" * 5_000)).message


@pytest.mark.parametrize("text", ["", "{", '{"a":1', "x", '{"a":1,"a":1'])
def test_what_is_no_json_is_left_to_who_says_what_is_wrong(text: str) -> None:
    check_fields(text.encode())
