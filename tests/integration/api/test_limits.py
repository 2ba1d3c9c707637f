"""Over HTTP: what is too much is refused with what to do, and nothing of it was accepted."""

from collections.abc import Callable

from fastapi.testclient import TestClient

from creditlane import Settings

MakeApi = Callable[[Settings], TestClient]
ACCOUNTS = "/v1/customer-credits/accounts"


def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    make_api: MakeApi, settings: Settings, make_key: Callable[..., str]
) -> None:
    api = make_api(settings.model_copy(update={"api_requests_per_second": 0.01, "api_burst": 2}))
    assert [api.get(ACCOUNTS).status_code for _ in range(2)] == [200, 200]

    refused = api.get(ACCOUNTS)

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 100
    assert (refused.json()["error"]["type"], refused.json()["error"]["code"]) == ("rate_limit_error", "rate_limited")
    assert api.get(ACCOUNTS, headers={"x-api-key": make_key()}).status_code == 200
    assert api.get("/healthz").status_code == 200


def test_a_body_may_be_as_large_as_the_setting_says(make_api: MakeApi, settings: Settings) -> None:
    api = make_api(settings.model_copy(update={"api_body_bytes": 1_024}))

    refused = api.post(ACCOUNTS, content=b"x" * 1_025)
    taken = api.post(ACCOUNTS, content=b"x" * 1_024)

    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert taken.status_code == 400


def test_a_wait_without_a_place_is_refused_before_anything_is_accepted(
    make_api: MakeApi, settings: Settings, running_worker: object
) -> None:
    assert running_worker
    api = make_api(settings)
    account = api.post(ACCOUNTS, json={"customer_id": "c", "initial_balance": "10"}).json()["id"]
    body = {"amount": "1", "reference": "r", "idempotency_key": "k"}
    room = api.app.state.limits.waiting_room  # type: ignore[attr-defined]
    room._free = 0

    refused = api.post(f"{ACCOUNTS}/{account}/debit", json=body)
    room._free = 1
    taken = api.post(f"{ACCOUNTS}/{account}/debit", json=body)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert taken.status_code == 201
    assert "x-idempotent-replay" not in taken.headers
    assert room._free == 1
