"""A store never sees anything of another: a foreign id answers exactly as one that does not exist."""

import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from .requests_of import (
    ACCOUNTS,
    COMMANDS,
    DEADLINE_SECONDS,
    HOLDS,
    TRANSACTIONS,
    UNKNOWN_ACCOUNT,
    UNKNOWN_HOLD,
    UNKNOWN_TRANSACTION,
    balance,
    move,
    open_account,
    place_hold,
    transfer,
)

WEBHOOKS = "/v1/webhooks"

pytestmark = pytest.mark.usefixtures("running_worker")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


@pytest.fixture
def other(database_url: str, make_key: Callable[..., str]) -> dict[str, str]:
    """The headers of another store."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("insert into stores (public_id, name) values ('store_other', 'Other')")
    return {"x-api-key": make_key("store_other")}


def shape(answer: Any) -> tuple[int, Any]:
    """Return what an answer says, without what differs from request to request."""
    body = answer.json()
    if "error" in body:
        body = {"error": {**body["error"], "request_id": ""}, "message": body["message"], "status": body["status"]}
    return answer.status_code, body


def test_every_operation_takes_a_foreign_id_for_an_unknown_one(api: TestClient, other: dict[str, str]) -> None:
    account = open_account(api, initial_balance="10")
    credit = move(api, account, "credit", "1", "c", reference="shared")
    entry = credit["entries"][0]["id"]
    held = place_hold(api, account, "1", "h")
    own = api.post(ACCOUNTS, json={"customer_id": "o", "initial_balance": "5"}, headers=other).json()
    queued = api.post(f"{ACCOUNTS}/{account['id']}/freeze", headers={"Prefer": "respond-async"}).headers["location"]
    movement = {"amount": "1", "reference": "r", "idempotency_key": "k"}
    part = {"amount": "1", "idempotency_key": "part"}

    def calls(account_id: str, transaction_id: str, hold_id: str, command: str) -> list[tuple[str, str, Any]]:
        of_account, of_transaction = f"{ACCOUNTS}/{account_id}", f"{TRANSACTIONS}/{transaction_id}"
        of_hold = f"{HOLDS}/{hold_id}"
        return [
            ("GET", of_account, None),
            ("GET", f"{of_account}/balance", None),
            ("GET", f"{of_account}/balance?at=2030-01-01T00:00:00Z", None),
            ("GET", f"{of_account}/entries", None),
            ("GET", f"{ACCOUNTS}?starting_after={account_id}", None),
            ("GET", f"{ACCOUNTS}?ending_before={account_id}", None),
            ("GET", f"{TRANSACTIONS}?reference=shared", None),
            ("GET", f"{TRANSACTIONS}?reference=shared&starting_after={transaction_id}", None),
            ("GET", of_transaction, None),
            ("GET", f"{COMMANDS}/{command}", None),
            ("POST", f"{of_account}/credit", movement),
            ("POST", f"{of_account}/debit", movement),
            ("POST", f"{of_account}/reverse", {"transaction_id": transaction_id}),
            ("POST", f"{ACCOUNTS}/{own['id']}/reverse", {"transaction_id": transaction_id}),
            ("POST", f"{of_account}/freeze", None),
            ("POST", f"{of_account}/unfreeze", None),
            ("POST", f"{of_account}/close", None),
            ("PUT", f"{of_account}/limits/max_balance", {"amount": "5"}),
            ("POST", f"{of_transaction}/reverse", None),
            ("POST", f"{of_account}/holds", movement),
            ("GET", f"{of_account}/holds", None),
            ("GET", f"{of_account}/holds?status=open", None),
            ("GET", f"{ACCOUNTS}/{own['id']}/holds?starting_after={hold_id}", None),
            ("GET", of_hold, None),
            ("POST", f"{of_hold}/capture", {"idempotency_key": "k"}),
            ("POST", f"{of_hold}/void", None),
            ("POST", f"{of_hold}/extend", {"expires_in_seconds": 1}),
            ("POST", f"{of_transaction}/reverse", part),
            ("POST", f"{ACCOUNTS}/{own['id']}/reverse", {"transaction_id": transaction_id, **part}),
            ("POST", TRANSACTIONS, transfer(own, {"id": account_id}, "1", "t")),
            ("POST", TRANSACTIONS, transfer({"id": account_id}, own, "1", "t")),
        ]

    foreign = calls(account["id"], credit["id"], held["id"], queued.rsplit("/", 1)[1])
    unknown = calls(UNKNOWN_ACCOUNT, UNKNOWN_TRANSACTION, UNKNOWN_HOLD, "cmd_x")
    for (method, path, body), (_, unknown_path, unknown_body) in zip(foreign, unknown, strict=True):
        got = shape(api.request(method, path, json=body, headers=other))
        assert got == shape(api.request(method, unknown_path, json=unknown_body, headers=other)), path
        assert got[0] in {400, 404} or got[1] == {"object": "list", "data": [], "has_more": False}
    assert entry.startswith("cce_")
    assert balance(api, account) == "11"
    assert api.get(f"{HOLDS}/{held['id']}").json() == held


def test_every_operation_takes_a_foreign_webhook_for_an_unknown_one(
    api: TestClient, other: dict[str, str], database_url: str
) -> None:
    made = api.post(WEBHOOKS, json={"url": "https://example.com/hook", "name": "Ours"}).json()
    own = api.post(WEBHOOKS, json={"url": "https://example.com/theirs"}, headers=other).json()
    event = api.post(f"{WEBHOOKS}/{made['id']}/test").json()["event_id"]
    callback = add_callback(database_url)
    account = open_account(api, initial_balance="10")

    def calls(webhook_id: str, event_id: str, callback_id: str, account_id: str) -> list[tuple[str, str, Any]]:
        of_webhook = f"{WEBHOOKS}/{webhook_id}"
        return [
            ("GET", of_webhook, None),
            ("PATCH", of_webhook, {"name": "Theirs"}),
            ("DELETE", of_webhook, None),
            ("POST", f"{of_webhook}/rotate-secret", None),
            ("POST", f"{of_webhook}/test", None),
            ("GET", f"{of_webhook}/deliveries", None),
            ("GET", f"{of_webhook}/deliveries?status=pending", None),
            ("GET", f"{of_webhook}/deliveries/{event_id}", None),
            ("POST", f"{of_webhook}/deliveries/{event_id}/resend", None),
            ("POST", f"{of_webhook}/resend", {"since": "2020-01-01"}),
            ("GET", f"{WEBHOOKS}/{own['id']}/deliveries?starting_after={event_id}", None),
            ("GET", f"{WEBHOOKS}/{own['id']}/deliveries/{event_id}", None),
            ("POST", f"{WEBHOOKS}/{own['id']}/deliveries/{event_id}/resend", None),
            ("GET", f"{WEBHOOKS}/callbacks/deliveries", None),
            ("GET", f"{WEBHOOKS}/callbacks/deliveries?starting_after={callback_id}", None),
            ("GET", f"{WEBHOOKS}/callbacks/deliveries/{callback_id}", None),
            ("GET", f"{WEBHOOKS}/callbacks/deliveries/{event_id}", None),
            ("POST", f"{WEBHOOKS}/callbacks/deliveries/{callback_id}/resend", None),
            ("PATCH", f"{ACCOUNTS}/{account_id}", {"low_balance": "5"}),
        ]

    before = everything_of(api, made["id"])
    foreign = calls(made["id"], event, callback, account["id"])
    unknown = calls("wh_" + "0" * 32, "evt_" + "0" * 32, "evt_" + "0" * 32, UNKNOWN_ACCOUNT)
    for (method, path, body), (_, unknown_path, _) in zip(foreign, unknown, strict=True):
        got = shape(api.request(method, path, json=body, headers=other))
        assert got == shape(api.request(method, unknown_path, json=body, headers=other)), path
        assert got[0] in {400, 404} or got[1] == {"object": "list", "data": [], "has_more": False}
    assert [item["id"] for item in api.get(WEBHOOKS, headers=other).json()["items"]] == [own["id"]]
    api.post(f"{WEBHOOKS}/callbacks/rotate-secret", headers=other)
    assert everything_of(api, made["id"]) == before
    assert "low_balance" not in api.get(f"{ACCOUNTS}/{account['id']}").json()


def add_callback(database_url: str) -> str:
    """Add the delivery of a callback of the default store, and return its event's id."""
    endpoint, event = uuid.uuid4(), uuid.uuid4()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
            "values (1, %s, 2, 1, 'https://example.com', 'whsec_x')",
            [endpoint],
        )
        connection.execute(
            "insert into deliveries (store_id, endpoint_id, event_id, status, created_at) values (1, %s, %s, 3, now())",
            [endpoint, event],
        )
    return "evt_" + event.hex


def everything_of(api: TestClient, webhook_id: str) -> list[Any]:
    paths = (f"{WEBHOOKS}/{webhook_id}", f"{WEBHOOKS}/{webhook_id}/deliveries", f"{WEBHOOKS}/callbacks/deliveries")
    return [api.get(path).json() for path in paths]


def test_keys_names_and_customers_of_stores_do_not_meet(api: TestClient, other: dict[str, str]) -> None:
    body = {"customer_id": "same", "name": "same", "initial_balance": "3", "idempotency_key": "same"}

    first, second = api.post(ACCOUNTS, json=body), api.post(ACCOUNTS, json=body, headers=other)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    assert second.json()["store_id"] == "store_other"
    for headers, account in (({}, first.json()), (other, second.json())):
        assert api.get(ACCOUNTS, headers=headers).json()["data"] == [account]
        assert api.get(ACCOUNTS, params={"customer_id": "same"}, headers=headers).json()["data"] == [account]
