"""What is wrong with a request is said in one form, before anything is accepted: no worker is needed for that."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from .requests_of import (
    ACCOUNTS,
    TRANSACTIONS,
    UNKNOWN_ACCOUNT,
    UNKNOWN_TRANSACTION,
    code_of,
    transfer,
)

MOVEMENT = {"amount": "1", "reference": "r", "idempotency_key": "k"}
CALLS: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "/balance", None),
    ("GET", "/balance?at=2026-01-01T00:00:00Z", None),
    ("GET", "/entries", None),
    ("GET", "/entries?starting_after=cce_1", None),
    ("POST", "/freeze", None),
    ("POST", "/unfreeze", None),
    ("POST", "/close", None),
    ("PUT", "/limits/credit_limit", {"amount": "5"}),
    ("POST", "/credit", MOVEMENT),
    ("POST", "/debit", MOVEMENT),
    ("POST", "/reverse", {"transaction_id": "cct_1"}),
]


@pytest.mark.parametrize("identifier", [UNKNOWN_ACCOUNT, "cca_missing", "x", UNKNOWN_ACCOUNT.upper(), "cca_%00", "é"])
def test_an_id_that_is_none_answers_like_an_unknown_one(api: TestClient, identifier: str) -> None:
    for method, path, body in CALLS:
        answer = api.request(method, f"{ACCOUNTS}/{identifier}{path}", json=body)

        assert code_of(answer, 404) == "not_found"
        assert answer.json()["error"]["param"] == "id"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "customer_id"),
        ({"customer_id": ""}, "customer_id"),
        ({"customer_id": 5}, "customer_id"),
        ({"customer_id": "a\0b"}, "customer_id"),
        ({"customer_id": "c" * 256}, "customer_id"),
        ({"customer_id": "c", "name": " \t"}, "name"),
        ({"customer_id": "c", "name": "n" * 101}, "name"),
        ({"customer_id": "c", "unit_label": ""}, "unit_label"),
        ({"customer_id": "c", "initial_balance": 5}, "initial_balance"),
        ({"customer_id": "c", "initial_balance": "-1"}, "initial_balance"),
        ({"customer_id": "c", "initial_balance": "00"}, "initial_balance"),
        ({"customer_id": "c", "idempotency_key": "reversal:x"}, "idempotency_key"),
        ({"customer_id": "c", "metadata": {"k": 1}}, "metadata.k"),
        ({"customer_id": "c", "metadata": "x"}, "metadata"),
        ({"customer_id": "c", "initialbalance": "5"}, "initialbalance"),
        ([], None),
        (None, None),
    ],
)
def test_a_body_that_breaks_a_rule_names_the_field(api: TestClient, body: Any, param: str | None) -> None:
    answer = api.post(ACCOUNTS, json=body)

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == param
    assert api.get(ACCOUNTS).json()["data"] == []


BAD_AMOUNTS: list[Any] = [
    0,
    5,
    1.5,
    "0",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "",
    " 1",
    "01",
    "\u0661",
    "9" * 1_001,
    None,
    [],
    True,
]


@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=repr)
def test_an_amount_is_a_string_of_digits_and_nothing_else(api: TestClient, amount: Any) -> None:
    answer = api.post(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/credit", json={**MOVEMENT, "amount": amount})

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == "amount"


def test_what_an_amount_must_be_is_said_in_words(api: TestClient) -> None:
    answer = api.post(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/credit", json={**MOVEMENT, "amount": "1.5"})

    message = 'amount: must be a whole number from 1, as a string of digits such as "250"'
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"entries": []}, "entries"),
        ({"entries": [{"account_id": UNKNOWN_ACCOUNT, "side": "debit", "amount": "1"}]}, "entries"),
        ({"entries": [{"account_id": UNKNOWN_ACCOUNT, "side": "debit", "amount": "1"}] * 101}, "entries"),
        ({"entries": [{"account_id": "a", "side": "debit", "amount": 1}] * 2}, "entries.0.amount"),
        ({"entries": [{"account_id": "a", "side": "both", "amount": "1"}] * 2}, "entries.0.side"),
        ({"entries": [{"side": "debit", "amount": "1"}] * 2}, "entries.0.account_id"),
        ({"entries": None}, "entries"),
        ({"reference": ""}, "reference"),
        ({"reference": None}, "reference"),
        ({"idempotency_key": None}, "idempotency_key"),
    ],
)
def test_a_transaction_that_breaks_a_rule_names_the_field(api: TestClient, change: dict[str, Any], param: str) -> None:
    answer = api.post(TRANSACTIONS, json={**transfer({"id": "a"}, {"id": "b"}, "1", "t"), **change})

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "identifier", [UNKNOWN_TRANSACTION, "cct_missing", "x", "cct_%00", UNKNOWN_TRANSACTION[:-1] + "0"]
)
def test_an_unknown_transaction_is_not_found(api: TestClient, identifier: str) -> None:
    for answer in (api.get(f"{TRANSACTIONS}/{identifier}"), api.post(f"{TRANSACTIONS}/{identifier}/reverse")):
        assert code_of(answer, 404) == "not_found"


HOSTILE: list[bytes] = [
    b"",
    b"{",
    b"null",
    b'"text"',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"amount": ' + b"9" * 10_000 + b"}",
    b'{"amount": 1e400}',
    b'{"amount": NaN}',
    b'{"amount": "1", "amount": "2"}',
    b"\xff\xfe{}",
    b'{"amount": "\xff"}',
    b'{"amount": "1", "reference": "\\ud800", "idempotency_key": "k"}',
    b'{"amount": "1", "reference": "\\u0000", "idempotency_key": "k"}',
    b'{"amount": "1", "reference": {"a": []}, "idempotency_key": ["k"]}',
    b"x" * 100_000,
]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", "application/json; charset=utf-16"])
@pytest.mark.parametrize("path", [ACCOUNTS, f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/debit", TRANSACTIONS])
def test_a_hostile_body_is_the_clients_fault(api: TestClient, path: str, content_type: str) -> None:
    for body in HOSTILE:
        answer = api.post(path, content=body, headers={"Content-Type": content_type})

        assert code_of(answer, 400) == "validation_error"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1e1", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("customer_id=", "customer_id"),
        ("customer_id=%00", "customer_id"),
        ("starting_after=cca_1", "starting_after"),
        ("starting_after=", "starting_after"),
        (f"starting_after={UNKNOWN_ACCOUNT}", "starting_after"),
        (f"ending_before={UNKNOWN_ACCOUNT}", "ending_before"),
        ("ending_before=%ff%00", "ending_before"),
    ],
)
def test_a_list_that_breaks_a_rule_names_the_parameter(api: TestClient, query: str, param: str) -> None:
    answer = api.get(f"{ACCOUNTS}?{query}")

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "moment",
    ["", "x", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+02:00", "1767225600", "0001-01-01T00:00:00%2B14:00"],
)
def test_a_moment_that_is_none_is_refused(api: TestClient, moment: str) -> None:
    # The plus of the fourth is a space in a URL.
    answer = api.get(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/balance?at={moment}")

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == "at"


def test_a_path_or_method_that_is_none_has_the_same_body(api: TestClient) -> None:
    unknown, method = api.get("/v1/nothing"), api.delete(ACCOUNTS)

    assert code_of(unknown, 404) == "not_found"
    assert code_of(method, 405) == "method_not_allowed"
    assert method.headers["allow"] == "GET, HEAD, POST"
    assert api.put(f"{ACCOUNTS}/x/freeze").headers["allow"] == "POST"
