"""Partial reversals over HTTP: an amount and a key, at either address and in lines of a batch."""

import json
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
    UNKNOWN_TRANSACTION,
    balance,
    code_of,
    move,
    open_account,
    transfer,
)

pytestmark = pytest.mark.usefixtures("running_worker")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


@pytest.fixture
def account(api: TestClient) -> dict[str, Any]:
    return open_account(api, customer_id="ann", initial_balance="100")


@pytest.fixture
def address(api: TestClient, account: dict[str, Any]) -> str:
    """Where the reversal of a charge of 30 is asked for."""
    charge = move(api, account, "debit", "30", "charge")
    return f"{TRANSACTIONS}/{charge['id']}/reverse"


def test_parts_are_reversed_under_keys_of_their_own(api: TestClient, account: dict[str, Any], address: str) -> None:
    charge = address.split("/")[-2]
    body = {"amount": "12", "idempotency_key": "case_1"}

    part = api.post(address, json=body)
    again = api.post(address, json=body)
    by_account = api.post(
        f"{ACCOUNTS}/{account['id']}/reverse",
        json={"transaction_id": charge, "amount": "3"},
        headers={"Idempotency-Key": "case_2"},
    )
    mismatch = api.post(address, json={**body, "amount": "13"})
    exceeding = api.post(address, json={"amount": "16", "idempotency_key": "case_3"})
    rest = api.post(address)
    rest_again = api.post(address, headers={"Idempotency-Key": "of no concern"})
    used_up = api.post(address, json={"amount": "1", "idempotency_key": "case_4"})

    made = part.json()
    assert (part.status_code, made["reversal_of"], made["reference"]) == (201, charge, "ref")
    assert made["idempotency_key"] == f"reversal:{charge}:case_1"
    (entry,) = made["entries"]
    assert (entry["side"], entry["amount"], entry["balance_after"]) == ("credit", "12", "82")
    assert (again.status_code, again.json(), again.headers[REPLAY]) == (201, made, "true")
    assert (by_account.status_code, by_account.json()["entries"][0]["amount"]) == (201, "3")
    assert code_of(mismatch, 409) == "idempotency_key_mismatch"
    assert code_of(exceeding, 422) == "reversal_exceeds_original"
    assert "15 is left" in exceeding.json()["error"]["message"]
    assert (rest.status_code, rest.json()["entries"][0]["amount"]) == (201, "15")
    assert (rest_again.json(), rest_again.headers[REPLAY]) == (rest.json(), "true")
    assert code_of(used_up, 409) == "already_reversed"
    assert balance(api, account) == "100"


def test_a_whole_reversal_is_refused_at_once_only_for_what_is_left(api: TestClient, account: dict[str, Any]) -> None:
    """Given a credit of 50 of which 20 are taken back and 120 spent, when the rest is reversed, then 10 are there for
    30; and then for none, when parts have taken all."""
    bought = move(api, account, "credit", "50", "sale")
    address = f"{TRANSACTIONS}/{bought['id']}/reverse"
    assert api.post(address, json={"amount": "20", "idempotency_key": "a"}).status_code == 201
    move(api, account, "debit", "120", "spent")

    refused = api.post(address)
    part = api.post(address, json={"amount": "10", "idempotency_key": "b"})
    move(api, account, "credit", "20", "more")
    rest = api.post(address, json={"amount": "20", "idempotency_key": "c"})
    used_up = api.post(address)

    assert code_of(refused, 422) == "insufficient_balance"
    assert "10 available, and 30 is needed" in refused.json()["error"]["message"]
    assert (part.status_code, rest.status_code) == (201, 201)
    assert code_of(used_up, 409) == "already_reversed"
    assert balance(api, account) == "0"


def test_a_whole_reversal_needs_no_more_than_is_left(api: TestClient, account: dict[str, Any]) -> None:
    bought = move(api, account, "credit", "50", "sale")
    address = f"{TRANSACTIONS}/{bought['id']}/reverse"
    api.post(address, json={"amount": "20", "idempotency_key": "a"})
    move(api, account, "debit", "100", "spent")

    assert api.post(address).status_code == 201
    assert balance(api, account) == "0"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"amount": "5"}, "idempotency_key"),
        ({"idempotency_key": "case"}, "idempotency_key"),
        ({"amount": "0", "idempotency_key": "case"}, "amount"),
        ({"amount": 5, "idempotency_key": "case"}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": "5", "idempotency_key": None}, "idempotency_key"),
        ({"amount": "5", "idempotency_key": "reversal:mine"}, "idempotency_key"),
        ({"amount": "5", "idempotency_key": "case", "why": "goodwill"}, "why"),
    ],
)
def test_what_no_request_may_say_is_named(
    api: TestClient, account: dict[str, Any], address: str, body: dict[str, Any], param: str
) -> None:
    refused = api.post(address, json=body)

    assert code_of(refused, 400) == "validation_error"
    assert refused.json()["error"]["param"] == param
    assert balance(api, account) == "70"


def test_a_transaction_of_several_entries_and_one_that_is_not_there(api: TestClient, account: dict[str, Any]) -> None:
    other = open_account(api, customer_id="bob", initial_balance="10")
    posted = api.post(TRANSACTIONS, json=transfer(account, other, "30", "t")).json()
    body = {"amount": "5", "idempotency_key": "case"}

    assert code_of(api.post(f"{TRANSACTIONS}/{posted['id']}/reverse", json=body), 409) == "reversal_not_divisible"
    assert code_of(api.post(f"{TRANSACTIONS}/{UNKNOWN_TRANSACTION}/reverse", json=body), 404) == "not_found"


def test_a_batch_takes_parts_and_says_what_is_wrong_of_a_line(
    api: TestClient, account: dict[str, Any], address: str
) -> None:
    charge = address.split("/")[-2]
    lines = [
        {"kind": "reverse", "transaction_id": charge, "amount": "12", "idempotency_key": "case_1"},
        {"kind": "reverse", "transaction_id": charge, "amount": "12"},
        {"kind": "reverse", "transaction_id": charge, "idempotency_key": "case_1"},
    ]

    answer = api.post(
        COMMANDS,
        content="\n".join(map(json.dumps, lines)),
        headers={"content-type": "application/x-ndjson"},
    )

    accepted, *refused = map(json.loads, answer.text.splitlines())
    assert (accepted["status"], [line["error"]["param"] for line in refused]) == ("queued", ["idempotency_key"] * 2)
    done = api.get(f"{COMMANDS}/{accepted['id']}", params={"wait": 10}).json()
    assert (done["status"], done["transaction"]["entries"][0]["amount"]) == ("applied", "12")
    assert balance(api, account) == "82"
