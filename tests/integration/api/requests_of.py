"""The requests that most tests of the API make, and what they expect of every error."""

from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient

ACCOUNTS = "/v1/customer-credits/accounts"
TRANSACTIONS = "/v1/customer-credits/transactions"
COMMANDS = "/v1/customer-credits/commands"
HOLDS = "/v1/customer-credits/holds"
UNKNOWN_ACCOUNT = "cca_" + "0" * 32
UNKNOWN_TRANSACTION = "cct_" + "0" * 32 + "1"
UNKNOWN_HOLD = "cch_" + "0" * 32 + "1"
REPLAY = "x-idempotent-replay"
#: How long a test waits for what must come, in seconds; a worker has to start first.
DEADLINE_SECONDS = 60.0


def open_account(api: TestClient, **fields: Any) -> dict[str, Any]:
    answer = api.post(ACCOUNTS, json={"customer_id": "cust_1", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def move(api: TestClient, account: dict[str, Any], side: str, amount: str, key: str, **fields: Any) -> dict[str, Any]:
    body = {"amount": amount, "reference": "ref", "idempotency_key": key, **fields}
    answer = api.post(f"{ACCOUNTS}/{account['id']}/{side}", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def place_hold(api: TestClient, account: dict[str, Any], amount: str, key: str, **fields: Any) -> dict[str, Any]:
    body = {"amount": amount, "reference": "ref", "idempotency_key": key, **fields}
    answer = api.post(f"{ACCOUNTS}/{account['id']}/holds", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def transfer(source: dict[str, Any], target: dict[str, Any], amount: str, key: str) -> dict[str, Any]:
    """Return the body of a transaction between two accounts."""
    entries = [
        {"account_id": source["id"], "side": "debit", "amount": amount},
        {"account_id": target["id"], "side": "credit", "amount": amount},
    ]
    return {"reference": "ref", "idempotency_key": key, "entries": entries}


def balance(api: TestClient, account: dict[str, Any]) -> str:
    return api.get(f"{ACCOUNTS}/{account['id']}/balance").json()["balance"]


def code_of(answer: Any, status: int) -> str:
    """Return the code of an error, after checking that its body is the one body of all errors."""
    body = answer.json()
    assert answer.status_code == body["status"] == status, answer.text
    assert set(body) == {"error", "message", "status", "trace_id", "timestamp"}
    error = body["error"]
    assert set(error) - {"command_id"} == {"type", "code", "message", "param", "request_id"}
    assert body["message"] == [error["message"]]
    assert error["request_id"] == answer.headers["x-request-id"] == "req_" + UUID(body["trace_id"]).hex
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    assert error["type"] == kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return error["code"]
