"""A plain credit or debit goes past the framework and is answered as if it had not."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.api.middleware import fast_path

from .requests_of import ACCOUNTS, DEADLINE_SECONDS, REPLAY, UNKNOWN_ACCOUNT, move, open_account

pytestmark = pytest.mark.usefixtures("running_worker")

BODY = {"amount": "5", "reference": "order_1", "idempotency_key": "key_1"}
#: The same media type, written so that only the framework reads it.
LONG_WAY = {"content-type": "application/json; charset=UTF-8"}
#: What is of the one request alone.
OWN = ("request_id", "trace_id", "timestamp")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of what took the fast path, as it comes."""
    seen: list[str] = []
    go = fast_path._move

    async def note(request: Any, target: Any, body: Any) -> Any:
        seen.append(target.kind)
        return await go(request, target, body)

    monkeypatch.setattr(fast_path, "_move", note)
    return seen


def what_is_answered(answer: Any) -> tuple[Any, ...]:
    body = answer.json()
    for part in (body, body.get("error", {})):
        for name in OWN:
            part.pop(name, None)
    return answer.status_code, body, answer.headers["content-type"], answer.headers.get(REPLAY)


@pytest.mark.parametrize(
    ("kind", "change", "status"),
    [
        ("credit", {}, 201),
        ("debit", {}, 201),
        ("debit", {"metadata": {"b": "1", "a": "é"}}, 201),
        ("debit", {"amount": "11"}, 422),
        ("credit", {"idempotency_key": "used"}, 409),
        ("debit", {"idempotency_key": None}, 400),
        ("debit", {"idempotency_key": "reversal:x"}, 400),
    ],
)
def test_both_paths_answer_the_same(
    api: TestClient, taken: list[str], kind: str, change: dict[str, Any], status: int
) -> None:
    account = open_account(api)
    move(api, account, "credit", "10", "used")
    path, body = f"{ACCOUNTS}/{account['id']}/{kind}", {**BODY, **change}
    taken.clear()

    first = api.post(path, json=body)
    again = api.post(path, json=body)
    long = api.post(path, json=body, headers=LONG_WAY)

    assert first.status_code == status
    assert what_is_answered(again) == what_is_answered(long)
    assert what_is_answered(first)[:3] == what_is_answered(long)[:3]
    assert taken in ([kind, kind], [])
    assert (taken == []) == (change.get("idempotency_key") == "reversal:x")


@pytest.mark.parametrize("key", ["", "cl_x", "cl_" + "0" * 16 + "_" + "0" * 48])
def test_both_paths_refuse_a_wrong_key(api: TestClient, taken: list[str], key: str) -> None:
    path = f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/debit"

    short = api.post(path, json=BODY, headers={"x-api-key": key})
    long = api.post(path, json=BODY, headers={"x-api-key": key, **LONG_WAY})

    assert what_is_answered(short) == what_is_answered(long)
    assert (short.status_code, taken) == (401, [])


def test_both_paths_find_no_unknown_account(api: TestClient, taken: list[str]) -> None:
    path = f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/debit"

    short, long = api.post(path, json=BODY), api.post(path, json=BODY, headers=LONG_WAY)

    assert what_is_answered(short) == what_is_answered(long)
    assert (short.status_code, taken) == (404, ["debit"])


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"idempotency-key": "key_1"}, b'{"amount":"5","reference":"r","idempotency_key":"key_1"}'),
        ({"prefer": "respond-async"}, b'{"amount":"5","reference":"r","idempotency_key":"key_1"}'),
        ({}, b'{"amount":5,"reference":"r","idempotency_key":"key_1"}'),
        ({}, b'{"amount":"5","reference":"r","idempotency_key":"key_1","more":1}'),
        ({}, b'{"amount":"5","reference":"\xff","idempotency_key":"key_1"}'),
        ({"content-type": "text/plain"}, b'{"amount":"5","reference":"r","idempotency_key":"key_1"}'),
        ({}, b""),
    ],
)
def test_what_is_not_plain_is_left_to_the_framework(
    api: TestClient, taken: list[str], headers: dict[str, str], content: bytes
) -> None:
    account = open_account(api)

    answer = api.post(
        f"{ACCOUNTS}/{account['id']}/credit",
        content=content,
        headers={"content-type": "application/json", **headers},
    )

    assert answer.status_code in {201, 202, 400}
    assert taken == []


def test_the_fast_path_is_counted_as_its_operation(api: TestClient, taken: list[str]) -> None:
    account = open_account(api)

    move(api, account, "credit", "5", "1")
    move(api, account, "debit", "5", "2")

    assert taken == ["credit", "debit"]
    for operation in ("credit_account", "debit_account"):
        counted = f'creditlane_http_requests_total{{operation="{operation}",status="201"}} 1.0'
        assert counted in api.get("/metrics").text
