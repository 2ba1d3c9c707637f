"""Limits over HTTP: set and taken away, judged in their turn, shown on the account, refused with what is used."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from .requests_of import ACCOUNTS, COMMANDS, DEADLINE_SECONDS, REPLAY, code_of, open_account

pytestmark = pytest.mark.usefixtures("running_worker")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def limits_of(body: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(body.get(name) for name in ("credit_limit", "max_balance", "low_balance", "available"))


def test_limits_are_set_shown_and_taken_away(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api, initial_balance='10')['id']}"

    def put(limit: str, amount: str | None, **fields: Any) -> Any:
        return api.put(f"{path}/limits/{limit}", json={"amount": amount, **fields})

    def move(side: str, amount: str, key: str) -> Any:
        return api.post(f"{path}/{side}", json={"amount": amount, "reference": "r", "idempotency_key": key})

    answers = [put("credit_limit", "5", idempotency_key="k"), put("max_balance", "12"), put("low_balance", "3")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert limits_of(answers[2].json()) == ("5", "12", "3", "15")
    assert api.get(path).json() == answers[2].json()
    again = put("credit_limit", "5", idempotency_key="k")
    assert (again.status_code, again.headers[REPLAY]) == (200, "true")
    assert code_of(put("credit_limit", "6", idempotency_key="k"), 409) == "idempotency_key_mismatch"

    refused = move("credit", "3", "above")
    assert code_of(refused, 422) == "max_balance_exceeded"
    assert "room for 2" in refused.json()["error"]["message"]
    assert move("debit", "14", "below zero").status_code == 201
    in_use = put("credit_limit", "3")
    assert code_of(in_use, 409) == "credit_limit_in_use"
    assert in_use.json()["error"]["message"].startswith("4 of the credit limit")
    assert api.post(f"{path}/freeze").status_code == 200
    assert put("credit_limit", "4").json()["credit_limit"] == "4"
    assert api.post(f"{path}/unfreeze").status_code == 200

    assert limits_of(put("max_balance", None).json()) == ("4", None, "3", "0")
    assert move("credit", "100", "a lot").status_code == 201
    assert [put(limit, None).status_code for limit in ("low_balance", "credit_limit")] == [200, 200]
    assert limits_of(api.get(path).json()) == ("0", None, None, "96")
    tried = put("max_balance", "1", dry_run=True)
    assert (tried.json()["dry_run"], limits_of(tried.json())[1], "max_balance" in api.get(path).json()) == (
        True,
        "1",
        False,
    )
    assert api.post(f"{path}/close").status_code == 200
    assert code_of(put("credit_limit", "4"), 409) == "account_closed"


@pytest.mark.parametrize(
    ("limit", "body", "param"),
    [
        ("spend_limit", {"amount": "1"}, "limit"),
        ("max_balance", {}, "amount"),
        ("max_balance", {"amount": 1}, "amount"),
        ("max_balance", {"amount": "-1"}, "amount"),
        ("max_balance", {"amount": "1", "limit": "low_balance"}, "limit"),
    ],
)
def test_what_is_no_limit_is_refused_by_name(api: TestClient, limit: str, body: dict[str, Any], param: str) -> None:
    answer = api.put(f"{ACCOUNTS}/{open_account(api)['id']}/limits/{limit}", json=body)

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == param


def test_a_line_of_a_batch_sets_a_limit_and_its_result_shows_the_account(api: TestClient) -> None:
    account = open_account(api)["id"]
    line = {"kind": "set_limit", "account_id": account, "limit": "max_balance", "amount": "7"}

    (queued,) = [api.post(COMMANDS, json=line, headers={"content-type": "application/x-ndjson"}).json()]

    result = api.get(f"{COMMANDS}/{queued['id']}?wait=20").json()
    assert (result["status"], result["kind"], result["account"]["max_balance"]) == ("applied", "set_limit", "7")
