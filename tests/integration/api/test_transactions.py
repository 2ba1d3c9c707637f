"""Transactions of several entries over HTTP: all or nothing, found by their reference, reversed as a whole."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from .requests_of import (
    ACCOUNTS,
    DEADLINE_SECONDS,
    REPLAY,
    TRANSACTIONS,
    UNKNOWN_ACCOUNT,
    balance,
    code_of,
    open_account,
    transfer,
)

pytestmark = pytest.mark.usefixtures("running_worker")

Accounts = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


@pytest.fixture
def accounts(api: TestClient) -> Accounts:
    """Two accounts of different customers and units, with 100 and 10."""
    first = open_account(api, customer_id="ann", unit_label="tokens", initial_balance="100")
    return first, open_account(api, customer_id="bob", unit_label="gems", initial_balance="10")


def test_a_transfer_moves_on_both_accounts_and_is_read_back(api: TestClient, accounts: Accounts) -> None:
    ann, bob = accounts
    body = {**transfer(ann, bob, "30", "t"), "metadata": {"why": "gift"}}

    answer = api.post(TRANSACTIONS, json=body)
    again = api.post(TRANSACTIONS, json=body)

    posted = answer.json()
    assert (answer.status_code, again.status_code, again.json()) == (201, 201, posted)
    assert (REPLAY in answer.headers, again.headers[REPLAY]) == (False, "true")
    sides = [(entry["account_id"], entry["side"], entry["amount"]) for entry in posted["entries"]]
    assert sides == [(ann["id"], "debit", "30"), (bob["id"], "credit", "30")]
    assert [entry["balance_after"] for entry in posted["entries"]] == ["70", "40"]
    assert {entry["transaction_id"] for entry in posted["entries"]} == {posted["id"]}
    assert (posted["metadata"], posted["idempotency_key"], posted["reference"]) == ({"why": "gift"}, "t", "ref")
    assert api.get(f"{TRANSACTIONS}/{posted['id']}").json() == posted
    assert api.get(f"{ACCOUNTS}/{bob['id']}/entries").json()["data"][0] == posted["entries"][1]
    assert (balance(api, ann), balance(api, bob)) == ("70", "40")


def test_an_account_may_appear_more_than_once_in_the_order_given(api: TestClient, accounts: Accounts) -> None:
    ann, bob = accounts
    back_and_forth = [
        {"account_id": bob["id"], "side": "credit", "amount": "90"},
        {"account_id": bob["id"], "side": "debit", "amount": "95"},
        {"account_id": ann["id"], "side": "credit", "amount": "5"},
    ]
    body = {"reference": "r", "idempotency_key": "1", "entries": back_and_forth}

    done = api.post(TRANSACTIONS, json=body)
    refused = api.post(
        TRANSACTIONS,
        json={**body, "idempotency_key": "2", "entries": [back_and_forth[1], back_and_forth[0], *back_and_forth[2:]]},
    )

    assert [entry["balance_after"] for entry in done.json()["entries"]] == ["100", "5", "105"]
    assert code_of(refused, 422) == "insufficient_balance"
    assert (balance(api, ann), balance(api, bob)) == ("105", "5")


def test_what_does_not_balance_is_refused(api: TestClient, accounts: Accounts) -> None:
    ann, bob = accounts
    body = transfer(ann, bob, "1", "t")
    body["entries"][1]["amount"] = "2"

    answer = api.post(TRANSACTIONS, json=body)

    assert code_of(answer, 422) == "unbalanced_transaction"
    assert (balance(api, ann), balance(api, bob)) == ("100", "10")


@pytest.mark.parametrize("state", ["freeze", "close"])
def test_one_account_that_may_not_move_stops_all(api: TestClient, accounts: Accounts, state: str) -> None:
    ann, bob = accounts
    api.post(f"{ACCOUNTS}/{bob['id']}/{state}")

    answer = api.post(TRANSACTIONS, json=transfer(ann, bob, "1", "t"))

    assert code_of(answer, 409) == {"freeze": "account_frozen", "close": "account_closed"}[state]
    assert bob["id"] in answer.json()["error"]["message"]
    assert balance(api, ann) == "100"


@pytest.mark.parametrize("account_id", [UNKNOWN_ACCOUNT, "cca_missing", "é"])
def test_an_unknown_account_is_named_and_uses_up_no_key(api: TestClient, accounts: Accounts, account_id: str) -> None:
    ann, bob = accounts

    answer = api.post(TRANSACTIONS, json=transfer(ann, {"id": account_id}, "1", "t"))

    assert code_of(answer, 404) == "not_found"
    assert answer.json()["error"]["param"] == "entries.1.account_id"
    assert api.post(TRANSACTIONS, json=transfer(ann, bob, "1", "t")).status_code == 201


def test_a_transaction_is_reversed_whole_by_any_of_its_accounts(api: TestClient, accounts: Accounts) -> None:
    ann, bob = accounts
    posted = api.post(TRANSACTIONS, json=transfer(ann, bob, "30", "t")).json()

    undone = api.post(f"{ACCOUNTS}/{bob['id']}/reverse", json={"transaction_id": posted["id"]})
    again = api.post(f"{TRANSACTIONS}/{posted['id']}/reverse")

    assert (undone.status_code, undone.json()["reversal_of"]) == (201, posted["id"])
    assert [(entry["account_id"], entry["side"]) for entry in undone.json()["entries"]] == [
        (ann["id"], "credit"),
        (bob["id"], "debit"),
    ]
    assert (again.json(), again.headers[REPLAY]) == (undone.json(), "true")
    assert (balance(api, ann), balance(api, bob)) == ("100", "10")


def test_what_passed_through_an_empty_account_is_reversed(api: TestClient, accounts: Accounts) -> None:
    """Given a post through an account that is empty before and after it, then its reversal is made, and lists its
    entries as the original does."""
    ann, bob = accounts
    middle = open_account(api, customer_id="clearing")
    through = {
        "reference": "order",
        "idempotency_key": "through",
        "entries": [
            {"account_id": ann["id"], "side": "debit", "amount": "5"},
            {"account_id": middle["id"], "side": "credit", "amount": "5"},
            {"account_id": middle["id"], "side": "debit", "amount": "5"},
            {"account_id": bob["id"], "side": "credit", "amount": "5"},
        ],
    }
    posted = api.post(TRANSACTIONS, json=through).json()

    undone = api.post(f"{TRANSACTIONS}/{posted['id']}/reverse")

    assert undone.status_code == 201
    sides = [(entry["account_id"], entry["side"]) for entry in undone.json()["entries"]]
    assert sides == [
        (ann["id"], "credit"),
        (middle["id"], "debit"),
        (middle["id"], "credit"),
        (bob["id"], "debit"),
    ]
    assert (balance(api, ann), balance(api, middle), balance(api, bob)) == ("100", "0", "10")


def test_a_transfer_that_was_spent_cannot_be_reversed_until_it_is_back(api: TestClient, accounts: Accounts) -> None:
    ann, bob = accounts
    posted = api.post(TRANSACTIONS, json=transfer(ann, bob, "30", "t")).json()
    api.post(TRANSACTIONS, json=transfer(bob, ann, "40", "spent"))

    refused = api.post(f"{TRANSACTIONS}/{posted['id']}/reverse")
    api.post(TRANSACTIONS, json=transfer(ann, bob, "30", "back"))
    done = api.post(f"{TRANSACTIONS}/{posted['id']}/reverse")

    assert code_of(refused, 422) == "insufficient_balance"
    assert done.status_code == 201
    assert (balance(api, ann), balance(api, bob)) == ("110", "0")


def test_the_id_of_a_further_entry_is_none_of_a_transaction(api: TestClient, accounts: Accounts) -> None:
    posted = api.post(TRANSACTIONS, json=transfer(*accounts, "1", "t")).json()
    further = "cct_" + posted["entries"][1]["id"][4:]

    assert code_of(api.get(f"{TRANSACTIONS}/{further}"), 404) == "not_found"
    assert code_of(api.post(f"{TRANSACTIONS}/{further}/reverse"), 404) == "not_found"


def test_transactions_are_found_by_their_exact_reference(api: TestClient, accounts: Accounts) -> None:
    ann, bob = accounts
    posted = api.post(TRANSACTIONS, json={**transfer(ann, bob, "1", "t"), "reference": "order 1/é"}).json()
    undone = api.post(f"{TRANSACTIONS}/{posted['id']}/reverse").json()
    api.post(TRANSACTIONS, json={**transfer(ann, bob, "999", "refused"), "reference": "order 1/é"})

    found = api.get(TRANSACTIONS, params={"reference": "order 1/é"}).json()

    assert found == {"object": "list", "data": [undone, posted], "has_more": False}
    assert api.get(TRANSACTIONS, params={"reference": "order 1"}).json()["data"] == []
    for query in ({}, {"reference": ""}, {"reference": "\0"}, {"reference": "r" * 256}):
        assert code_of(api.get(TRANSACTIONS, params=query), 400) == "validation_error"
