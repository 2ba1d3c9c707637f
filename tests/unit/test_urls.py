"""A URL that comes with a command is refused where it is made unless every reader agrees on where it leads."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from creditlane.lanes.encoding import invalid_command
from creditlane.schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Post,
    Reverse,
    SetLimit,
    Unfreeze,
)
from creditlane.schemas.events import MAX_URL_CHARACTERS
from creditlane.schemas.urls import TargetUrl

ANN = "cca_" + "a" * 32
FORM = "must be an absolute http or https URL with a host and without userinfo and fragment, in ASCII"
STATE = {"account_id": ANN, "idempotency_key": "k"}
MOVEMENT = {**STATE, "amount": 5, "reference": "r"}
ENTRIES = ({"account_id": ANN, "side": "debit", "amount": 1}, {"account_id": ANN, "side": "credit", "amount": 1})
KINDS: dict[type[Command], dict[str, Any]] = {
    OpenAccount: {"customer_id": "c"},
    Credit: MOVEMENT,
    Debit: MOVEMENT,
    Post: {"idempotency_key": "k", "reference": "r", "entries": ENTRIES},
    Reverse: {"account_id": ANN, "transaction_id": f"cct_{ANN[4:]}1"},
    Freeze: STATE,
    Unfreeze: STATE,
    Close: STATE,
    SetLimit: {**STATE, "limit": "low_balance", "amount": 5},
}

adapter: TypeAdapter[str] = TypeAdapter(TargetUrl)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "HTTP://EXAMPLE.com/",
        "https://example.com./a",
        "https://a-b.c_d.example:8443/hooks/%C3%BC?a=b&c=~!*'();:@$,/?[]{}|",
        "http://localhost:1",
        "http://127.0.0.1:65535/",
        "http://2130706433/",
        "http://[::1]:80/",
        "http://[::ffff:127.0.0.1]",
        "https://xn--mnchen-3ya.example/",
        "https://example.com?x=1",
        "https://" + "a" * 63 + ".example",
        "https://example.com/" + "x" * (MAX_URL_CHARACTERS - 20),
    ],
)
def test_a_url_is_kept_as_it_is(url: str) -> None:
    assert adapter.validate_python(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:example.com",
        "https:/example.com",
        "https:///path",
        "https://",
        "https://?a",
        "https://:80/",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com@evil.example/",
        "https://example.com\\@evil.example/",
        "https://example.com/#fragment",
        "https://example.com#",
        "https://exa mple.com/",
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/\n",
        "https://example.com/a\r\nX: y",
        "https://example.com/\t",
        "https://example.com/\0",
        "https://example.com/\x7f",
        'https://example.com/"',
        "https://example.com/<>",
        "https://example.com/\\",
        "https://münchen.example/",
        "https://example.com/ü",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:80a/",
        "https://example.com:/",
        "https://.example.com/",
        "https://exa..mple.com/",
        "https://-a.example/",
        "https://" + "a" * 64 + ".example/",
        "https://[::1/",
        "https://::1/",
        "https://[fe80::1%25eth0]/",
        "https://[evil.example]/",
    ],
)
def test_what_could_lead_elsewhere_is_no_url(url: str) -> None:
    with pytest.raises(ValidationError, match=FORM):
        adapter.validate_python(url)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("ftp://example.com/", FORM),
        ("https://user:hunter2@example.com/", FORM),
        ("https://example.com/" + "x" * (MAX_URL_CHARACTERS - 19), f"at most {MAX_URL_CHARACTERS} characters"),
        (5, "Input should be a valid string"),
        (b"https://example.com/", "Input should be a valid string"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_names_the_field_of_a_bad_callback(kind: type[Command], url: object, rule: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        kind(**KINDS[kind], callback_url=url)  # type: ignore[arg-type]

    error = invalid_command(refusal.value)
    assert error.field == "callback_url"
    assert error.message.startswith("callback_url: ")
    assert rule in error.message
    assert "hunter2" not in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_may_name_a_callback(kind: type[Command]) -> None:
    assert kind(**KINDS[kind], callback_url="https://example.com/").callback_url == "https://example.com/"
    assert kind(**KINDS[kind]).callback_url is None
    assert "callback_url" not in kind.content_fields
