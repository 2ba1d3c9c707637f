"""Accounts over HTTP: opened once, named uniquely, frozen, unfrozen, closed; a wrong state is a conflict."""

import json
import re

import pytest
from fastapi.testclient import TestClient

from creditlane import Client, Settings

from .requests_of import (
    ACCOUNTS,
    COMMANDS,
    DEADLINE_SECONDS,
    REPLAY,
    UNKNOWN_ACCOUNT,
    balance,
    code_of,
    move,
    open_account,
)

pytestmark = pytest.mark.usefixtures("running_worker")

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def test_an_account_is_opened_with_its_balance_and_read_back(api: TestClient) -> None:
    account = open_account(api, name=" Tokens ", unit_label="tokens", initial_balance="300", metadata={"plan": "pro"})

    assert api.get(f"{ACCOUNTS}/{account['id']}").json() == account
    assert {name: account[name] for name in account if name not in {"id", "created_at", "updated_at"}} == {
        "store_id": "store_default",
        "customer_id": "cust_1",
        "name": "Tokens",
        "unit_label": "tokens",
        "status": "active",
        "balance": "300",
        "held": "0",
        "available": "300",
        "credit_limit": "0",
        "metadata": {"plan": "pro"},
    }
    assert re.fullmatch(r"cca_[0-9a-f]{32}", account["id"])
    assert MOMENT.fullmatch(account["created_at"])
    assert account["updated_at"] == account["created_at"]


def test_what_is_left_out_has_its_default(api: TestClient) -> None:
    account = open_account(api)
    seeded = open_account(api, name="zero", initial_balance="0", metadata=None)

    assert (account["name"], account["unit_label"], account["balance"]) == ("default", "credits", "0")
    assert (seeded["balance"], seeded["metadata"]) == ("0", None)
    assert api.get(f"{ACCOUNTS}/{seeded['id']}/entries").json() == {"object": "list", "data": [], "has_more": False}


def test_an_initial_balance_is_the_first_entry(api: TestClient) -> None:
    huge = "9" * 1_000
    account = open_account(api, initial_balance=huge)

    (entry,) = api.get(f"{ACCOUNTS}/{account['id']}/entries").json()["data"]

    assert (entry["side"], entry["amount"], entry["balance_after"]) == ("credit", huge, huge)
    assert balance(api, account) == huge


@pytest.mark.parametrize("name", ["tokens", "  TOKENS ", "Tokens"])
def test_a_customer_has_one_open_account_of_a_name(api: TestClient, name: str) -> None:
    account = open_account(api, name="Tokens")

    taken = api.post(ACCOUNTS, json={"customer_id": "cust_1", "name": name})
    open_account(api, customer_id="cust_2", name=name)
    assert api.post(f"{ACCOUNTS}/{account['id']}/close").status_code == 200
    again = open_account(api, name=name)

    assert code_of(taken, 409) == "account_name_taken"
    assert taken.json()["error"]["param"] == "name"
    assert again["id"] != account["id"]


def test_a_repeated_opening_gets_the_first_answer(api: TestClient) -> None:
    body = {"customer_id": "cust_1", "initial_balance": "5", "idempotency_key": "open_1"}

    first = api.post(ACCOUNTS, json=body)
    move(api, first.json(), "debit", "5", "all")
    by_header = {name: value for name, value in body.items() if name != "idempotency_key"}
    again = api.post(ACCOUNTS, json=by_header, headers={"Idempotency-Key": "open_1"})
    other = api.post(ACCOUNTS, json={**body, "initial_balance": "6"})

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert REPLAY not in first.headers
    assert again.headers[REPLAY] == "true"
    assert code_of(other, 409) == "idempotency_key_mismatch"


def test_states_change_as_allowed_and_a_wrong_one_is_a_conflict(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api, initial_balance='7')['id']}"

    assert code_of(api.post(f"{path}/unfreeze"), 409) == "account_not_frozen"
    frozen = api.post(f"{path}/freeze")
    assert (frozen.status_code, frozen.json()["status"], frozen.json()["balance"]) == (200, "frozen", "7")
    assert code_of(api.post(f"{path}/freeze"), 409) == "account_frozen"
    assert api.get(path).json() == frozen.json()
    active = api.post(f"{path}/unfreeze")
    assert (active.status_code, active.json()["status"]) == (200, "active")
    api.post(f"{path}/freeze")
    closed = api.post(f"{path}/close")
    assert (closed.status_code, closed.json()["status"]) == (200, "closed")
    for change in ("freeze", "unfreeze", "close"):
        assert code_of(api.post(f"{path}/{change}"), 409) == "account_closed"
    assert api.get(path).json() == closed.json()
    assert api.get(f"{path}/balance").json()["balance"] == "7"
    assert len(api.get(f"{path}/entries").json()["data"]) == 1


def test_an_account_below_zero_is_not_closed(api: TestClient, settings: Settings) -> None:
    with Client(settings) as client:
        account = client.open_account(customer_id="cust_1", overdraft_limit=5)
        client.debit(account.id, 3, reference="r", idempotency_key="debit_1")
    path = f"{ACCOUNTS}/{account.id}"

    refused = api.post(f"{path}/close")
    line = {"kind": "close", "account_id": account.id, "idempotency_key": "in_batch"}
    queued = json.loads(api.post(COMMANDS, content=json.dumps(line)).text)

    assert code_of(refused, 409) == "account_overdrawn"
    reported = api.get(f"{COMMANDS}/{queued['id']}?wait=30").json()
    assert (reported["status"], reported["error"]["code"]) == ("rejected", "account_overdrawn")
    assert api.get(path).json()["status"] == "active"
    move(api, {"id": account.id}, "credit", "3", "settled")
    assert api.post(f"{path}/close").json()["status"] == "closed"


def test_a_repeated_change_of_state_gets_the_first_answer(api: TestClient) -> None:
    path, header = f"{ACCOUNTS}/{open_account(api)['id']}", {"Idempotency-Key": "freeze_1"}

    first = api.post(f"{path}/freeze", headers=header)
    api.post(f"{path}/unfreeze")
    again = api.post(f"{path}/freeze", headers=header)

    assert again.json() == first.json()
    assert (again.status_code, again.headers[REPLAY]) == (200, "true")
    assert api.get(path).json()["status"] == "active"


def test_an_unknown_account_uses_up_no_key(api: TestClient) -> None:
    body = {"amount": "1", "reference": "r", "idempotency_key": "k"}

    missing = api.post(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/credit", json=body)
    account = open_account(api)

    assert code_of(missing, 404) == "not_found"
    assert move(api, account, "credit", "1", "k")["entries"][0]["balance_after"] == "1"


def test_a_name_may_have_a_hundred_characters_besides_the_space_around(api: TestClient) -> None:
    assert open_account(api, name=f"  {'n' * 100} ")["name"] == "n" * 100
