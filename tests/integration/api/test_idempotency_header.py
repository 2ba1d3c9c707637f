"""One idempotency key is one key, however the header spells it; what is no key, or two of them, is refused."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from .requests_of import (
    ACCOUNTS,
    COMMANDS,
    DEADLINE_SECONDS,
    REPLAY,
    TRANSACTIONS,
    balance,
    code_of,
    open_account,
    transfer,
)

pytestmark = pytest.mark.usefixtures("running_worker")

BARE = {"amount": "5", "reference": "order_1"}
#: What spells the key of this test.
KEY = 'say "hi", \\ and go'
SPELLINGS = [
    KEY.encode(),
    b"  " + KEY.encode() + b"\t",
    b'"say \\"hi\\", \\\\ and go"',
    b' "say \\"hi\\", \\\\ and go" ',
]
NO_KEYS = {
    "empty": b"",
    "white space": b" \t",
    "empty quotes": b'""',
    "half a quote": b'"key',
    "two quoted strings": b'"a", "b"',
    "a parameter": b'"a";b=c',
    "another escape": b'"a\\b"',
    "utf-8": "schlüssel".encode(),
    "latin-1": "schlüssel".encode("latin-1"),
    "quoted utf-8": '"schlüssel"'.encode(),
    "a tab within": b"a\tb",
    "too long": b"k" * 256,
    "too long within quotes": b'"' + b"k" * 256 + b'"',
    "reserved": b"reversal:x",
    "reserved within quotes": b'"reversal:x"',
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def send(api: TestClient, path: str, body: dict[str, Any], *keys: bytes) -> Any:
    headers: list[tuple[bytes, bytes]] = [(b"Idempotency-Key", key) for key in keys]
    return api.post(path, json=body, headers=headers)


def test_every_spelling_of_a_key_is_one_request(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}/credit"

    first = api.post(path, json={**BARE, "idempotency_key": KEY})
    again = [send(api, path, BARE, spelling) for spelling in SPELLINGS]
    both = [send(api, path, {**BARE, "idempotency_key": KEY}, spelling) for spelling in SPELLINGS]

    assert first.status_code == 201
    for answer in [*again, *both]:
        assert (answer.status_code, answer.json(), answer.headers[REPLAY]) == (201, first.json(), "true")
    assert balance(api, account) == "5"


def test_what_is_no_key_is_refused_and_moves_nothing(api: TestClient) -> None:
    account = open_account(api, initial_balance="7")
    path = f"{ACCOUNTS}/{account['id']}"
    posting = {key: value for key, value in transfer(account, account, "1", "").items() if key != "idempotency_key"}

    answers = {
        (name, target): send(api, target, body, key)
        for name, key in NO_KEYS.items()
        for target, body in (
            (f"{path}/debit", BARE),
            (f"{path}/debit", {**BARE, "idempotency_key": "good"}),
            (f"{path}/freeze", {}),
            (ACCOUNTS, {"customer_id": "cust_1", "name": "other"}),
            (TRANSACTIONS, posting),
        )
    }

    reported = {tried: (answer.status_code, answer.json()["error"]["param"]) for tried, answer in answers.items()}
    assert reported == dict.fromkeys(answers, (400, "idempotency_key"))
    found = api.get(path).json()
    assert (found["balance"], found["status"]) == ("7", "active")
    assert len(api.get(ACCOUNTS).json()["data"]) == 1


def test_two_headers_are_refused(api: TestClient) -> None:
    account = open_account(api, initial_balance="7")

    for second in (b"key_1", b"key_2", b'"key_1"', b""):
        answer = send(api, f"{ACCOUNTS}/{account['id']}/debit", BARE, b"key_1", second)

        assert code_of(answer, 400) == "validation_error"
        assert "more than once" in answer.json()["error"]["message"]
    assert balance(api, account) == "7"


def test_a_batch_takes_no_header_since_each_line_has_a_key(api: TestClient) -> None:
    account = open_account(api, initial_balance="7")
    line = {"kind": "debit", "account_id": account["id"], **BARE, "idempotency_key": "key_1"}

    answer = send(api, COMMANDS, line, b"key_1")

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == "idempotency_key"
    assert balance(api, account) == "7"


def test_a_key_may_fill_its_length_in_quotes(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}/credit"
    key = "k" * 254 + '"'

    first = send(api, path, BARE, b'"' + b"k" * 254 + b'\\""')

    assert (first.status_code, first.json()["idempotency_key"]) == (201, key)
