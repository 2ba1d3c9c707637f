"""Dry runs and partial debits over HTTP: the answer is that of the request itself, and there is nothing afterwards."""

from __future__ import annotations

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
    balance,
    code_of,
    move,
    open_account,
)

pytestmark = pytest.mark.usefixtures("running_worker")

BODY = {"amount": "40", "reference": "order_1", "idempotency_key": "key_1"}
#: What only what exists has.
OWN = ("id", "transaction_id", "created_at", "updated_at", "dry_run")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def without_own(body: Any) -> Any:
    """Return a body without ids and moments."""
    if isinstance(body, dict):
        return {name: without_own(value) for name, value in body.items() if name not in OWN}
    return [without_own(item) for item in body] if isinstance(body, list) else body


def outcome(api: TestClient, location: str) -> dict[str, Any]:
    answer = api.get(location, params={"wait": 30})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_each_operation_answers_what_it_would_and_leaves_nothing(api: TestClient) -> None:
    """Given requests of each kind, when each is tried and then made, then status and body are the same but for ids."""
    account, other = open_account(api, initial_balance="100"), open_account(api, name="other")
    path = f"{ACCOUNTS}/{account['id']}"
    paid = move(api, account, "credit", "7", "paid")
    entries = [
        {"account_id": account["id"], "side": "debit", "amount": "5"},
        {"account_id": other["id"], "side": "credit", "amount": "5"},
    ]
    post = {"reference": "r", "idempotency_key": "p", "entries": entries, "metadata": {"a": "b"}}
    requests: list[tuple[str, dict[str, Any] | None]] = [
        (ACCOUNTS, {"customer_id": "new", "initial_balance": "3", "idempotency_key": "o", "metadata": {"a": "b"}}),
        (f"{path}/credit", BODY | {"idempotency_key": "c", "metadata": {"a": "b"}}),
        (f"{path}/debit", BODY),
        (f"{path}/debit", BODY | {"idempotency_key": "d", "amount": "1000", "allow_partial": True}),
        (f"{path}/credit", BODY | {"idempotency_key": "e"}),
        (TRANSACTIONS, post),
        (f"{path}/reverse", {"transaction_id": paid["id"]}),
        (f"{path}/freeze", None),
        (f"{path}/unfreeze", None),
    ]
    for url, body in requests:
        before = balance(api, account), balance(api, other), api.get(ACCOUNTS).json()
        if body is None:
            tried, made = api.post(url, params={"dry_run": "true"}), api.post(url)
        else:
            tried = api.post(url, json=body | {"dry_run": True})
            assert (balance(api, account), balance(api, other), api.get(ACCOUNTS).json()) == before
            made = api.post(url, json=body)
        assert (tried.status_code, tried.json()["dry_run"]) == (made.status_code, True), tried.text
        assert without_own(tried.json()) == without_own(made.json())
        assert "dry_run" not in made.json()
        assert REPLAY not in made.headers
        ids = {tried.json()["id"], *(entry["id"] for entry in tried.json().get("entries", ()))}
        assert ids == ({"dry_run"} if body else {account["id"]})


def test_what_is_tried_on_holds_leaves_them_as_they_are(api: TestClient) -> None:
    """Given requests on a hold, when each is tried and then made, then status and body are the same but for ids."""
    account = open_account(api, initial_balance="100")
    place = {
        "amount": "60",
        "reference": "r",
        "idempotency_key": "h",
        "expires_in_seconds": 900,
        "metadata": {"a": "b"},
    }
    url = f"{ACCOUNTS}/{account['id']}/holds"
    tried, made = api.post(url, json=place | {"dry_run": True}), api.post(url, json=place)
    assert tried.json()["id"] == "dry_run"
    hold = made.json()["id"]
    path = f"/v1/customer-credits/holds/{hold}"
    pairs = [(tried, made)]
    for name, body in (
        ("capture", {"amount": "10", "final": False, "idempotency_key": "c"}),
        ("extend", {"expires_at": "2027-06-01T00:00:00Z", "idempotency_key": "e"}),
    ):
        before = api.get(path).json()
        answer = api.post(f"{path}/{name}", json=body | {"dry_run": True})
        assert api.get(path).json() == before
        pairs.append((answer, api.post(f"{path}/{name}", json=body)))
    before = api.get(path).json()
    answer = api.post(f"{path}/void", params={"dry_run": True})
    assert api.get(path).json() == before
    pairs.append((answer, api.post(f"{path}/void")))
    moments = ("expires_at", "ended_at")
    for tried, made in pairs:
        assert (tried.status_code, tried.json()["dry_run"]) == (made.status_code, True), tried.text
        of_tried, of_made = without_own(tried.json()), without_own(made.json())
        own = [[body.pop(name, None) is None for name in moments] for body in (of_tried, of_made)]
        assert (of_tried, own[0]) == (of_made, own[1])


def test_a_refusal_is_that_of_the_request_itself(api: TestClient) -> None:
    account = open_account(api, initial_balance="10")
    path = f"{ACCOUNTS}/{account['id']}"
    move(api, account, "debit", "1", "used", reference="order_1")
    for body, status, code in (
        (BODY, 422, "insufficient_balance"),
        (BODY | {"idempotency_key": "used"}, 409, "idempotency_key_mismatch"),
        (BODY | {"dry_run": "yes"}, 400, "validation_error"),
    ):
        tried = api.post(f"{path}/debit", json={"dry_run": True, **body})
        assert code_of(tried, status) == code
    replay = api.post(f"{path}/debit", json=BODY | {"idempotency_key": "used", "amount": "1", "dry_run": True})
    assert (replay.status_code, replay.headers[REPLAY], replay.json()["dry_run"]) == (201, "true", True)
    assert replay.json()["id"].startswith("cct_")
    assert balance(api, account) == "9"
    # What was refused dry has used up no key.
    assert api.post(f"{path}/credit", json=BODY).status_code == 201


def test_its_result_can_be_asked_for_by_the_id_of_its_command(api: TestClient) -> None:
    """Given a dry run and its request under one key, both not waited for, then each id gives its own result."""
    account = open_account(api, initial_balance="100")
    path = f"{ACCOUNTS}/{account['id']}"
    headers = {"Prefer": "respond-async"}
    answers = [
        api.post(f"{path}/debit", json=BODY | {"dry_run": dry_run}, headers=headers) for dry_run in (True, False, True)
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    first, made, again = (outcome(api, answer.headers["location"]) for answer in answers)
    assert [body.get("dry_run") for body in (first, made, again)] == [True, None, True]
    assert first["transaction"]["id"] == "dry_run"
    assert first["transaction"]["entries"][0]["balance_after"] == "60"
    assert made["transaction"]["id"] == again["transaction"]["id"]
    frozen = api.post(f"{path}/freeze", params={"dry_run": True}, headers=headers)
    body = outcome(api, frozen.headers["location"])
    assert (body["account"]["status"], body["account"]["dry_run"]) == ("frozen", True)
    assert api.get(path).json()["status"] == "active"


def test_lines_of_a_batch_may_be_dry_runs(api: TestClient) -> None:
    """Given a batch of which a line is a dry run, and one a partial debit, then each id gives its own result."""
    account = open_account(api, initial_balance="100")
    line = {"kind": "debit", "account_id": account["id"], "reference": "r"}
    lines = [
        line | {"amount": "60", "idempotency_key": "a"},
        line | {"amount": "60", "idempotency_key": "b", "dry_run": True},
        line | {"amount": "60", "idempotency_key": "c", "allow_partial": True},
        {"kind": "freeze", "account_id": account["id"], "dry_run": True},
        {"kind": "credit", "account_id": account["id"], "reference": "r", "amount": "1", "idempotency_key": "d"}
        | {"allow_partial": True},
    ]
    answer = api.post(COMMANDS, content="\n".join(map(json.dumps, lines)))
    *queued, refused = [json.loads(text) for text in answer.text.splitlines()]
    assert (refused["status"], refused["error"]["param"]) == ("refused", "allow_partial")
    made, tried, partial, frozen = (outcome(api, f"{COMMANDS}/{item['id']}") for item in queued)
    assert (made["status"], made["transaction"]["entries"][0]["balance_after"]) == ("applied", "40")
    assert (tried["status"], tried["dry_run"], tried["error"]["code"]) == ("rejected", True, "insufficient_balance")
    assert (partial["transaction"]["shortfall"], partial["transaction"]["entries"][0]["amount"]) == ("20", "40")
    assert (frozen["dry_run"], frozen["account"]["status"]) == (True, "frozen")
    assert balance(api, account) == "0"


def test_a_partial_debit_says_what_is_missing_wherever_it_is_read(api: TestClient) -> None:
    account = open_account(api, initial_balance="30")
    path = f"{ACCOUNTS}/{account['id']}"
    body = BODY | {"allow_partial": True}
    answer = api.post(f"{path}/debit", json=body)
    assert (answer.status_code, answer.json()["shortfall"], answer.json()["entries"][0]["amount"]) == (201, "10", "30")
    assert api.get(f"{TRANSACTIONS}/{answer.json()['id']}").json() == answer.json()
    listed = api.get(TRANSACTIONS, params={"reference": "order_1"}).json()["data"]
    assert listed == [answer.json()]
    again = api.post(f"{path}/debit", json=body)
    assert (again.json(), again.headers[REPLAY]) == (answer.json(), "true")
    assert api.post(f"{path}/debit", json=body | {"amount": "30"}).status_code == 409
    assert api.post(f"{path}/debit", json=BODY).status_code == 409
    assert api.post(f"{path}/debit", json=body | {"idempotency_key": "next"}).status_code == 422
    move(api, account, "credit", "5", "c")
    assert "shortfall" not in move(api, account, "debit", "1", "plain")
    whole = api.post(f"{path}/debit", json=body | {"idempotency_key": "whole", "amount": "4"})
    assert whole.json()["shortfall"] == "0"
    assert api.post(f"{path}/credit", json=body | {"idempotency_key": "x"}).status_code == 400
