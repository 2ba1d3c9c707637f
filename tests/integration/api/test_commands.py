"""The queue shows through: 202 for who asks for it, 503 when a result is slow, and the result to be asked for."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient

from creditlane import Settings, Unavailable
from creditlane.producer.api.reads import Reads
from creditlane.producer.api.writes import Writes

from .requests_of import (
    ACCOUNTS,
    COMMANDS,
    DEADLINE_SECONDS,
    TRANSACTIONS,
    balance,
    code_of,
    open_account,
    transfer,
)

AT_ONCE = {"Prefer": "respond-async"}
BODY = {"amount": "5", "reference": "order_1", "idempotency_key": "key_1"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def queued(answer: Any) -> str:
    assert (answer.status_code, answer.json()["object"], answer.json()["status"]) == (202, "command", "queued")
    assert answer.headers["location"] == f"{COMMANDS}/{answer.json()['id']}"
    return answer.headers["location"]


def overdue(answer: Any) -> str:
    """Return where to ask for the result of a command that is accepted."""
    assert code_of(answer, 503) == "timeout"
    command_id = answer.json()["error"]["command_id"]
    assert answer.headers["location"] == f"{COMMANDS}/{command_id}"
    assert int(answer.headers["retry-after"]) > 0
    return answer.headers["location"]


def outcome(api: TestClient, location: str) -> dict[str, Any]:
    """Return what became of the command, waited for as long as one request may and as often as it takes."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        body = api.get(location, params={"wait": 5}).json()
        if body["status"] != "queued" or time.monotonic() > deadline:
            return body


@pytest.mark.usefixtures("running_worker")
def test_a_write_can_be_answered_at_once_and_its_result_asked_for(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}"

    moved = outcome(api, queued(api.post(f"{path}/credit", json=BODY, headers=AT_ONCE)))
    frozen = outcome(api, queued(api.post(f"{path}/freeze", headers={"Prefer": "wait=5, Respond-Async"})))
    refused = outcome(api, queued(api.post(f"{path}/debit", json={**BODY, "idempotency_key": "2"}, headers=AT_ONCE)))
    opened = outcome(
        api, queued(api.post(ACCOUNTS, json={"customer_id": "c", "initial_balance": "1"}, headers=AT_ONCE))
    )

    assert (moved["status"], moved["kind"], moved["account"], moved["error"]) == ("applied", "credit", None, None)
    assert moved["transaction"] == api.get(f"{TRANSACTIONS}/{moved['transaction']['id']}").json()
    assert (frozen["status"], frozen["account"]["status"]) == ("applied", "frozen")
    assert (refused["status"], refused["error"]["code"], refused["transaction"]) == ("rejected", "account_frozen", None)
    assert (opened["status"], opened["account"]["balance"], opened["transaction"]) == ("applied", "1", None)


@pytest.mark.usefixtures("running_worker")
def test_posts_and_reversals_can_be_asked_for(api: TestClient) -> None:
    ann, bob = open_account(api, name="ann", initial_balance="9"), open_account(api, name="bob")

    posted = outcome(api, queued(api.post(TRANSACTIONS, json=transfer(ann, bob, "4", "t"), headers=AT_ONCE)))
    path = f"{TRANSACTIONS}/{posted['transaction']['id']}/reverse"
    undone = outcome(api, queued(api.post(path, headers=AT_ONCE)))

    assert [len(body["transaction"]["entries"]) for body in (posted, undone)] == [2, 2]
    assert undone["transaction"]["reversal_of"] == posted["transaction"]["id"]


@pytest.mark.usefixtures("running_worker")
def test_a_key_of_another_request_is_answered_by_the_poll_too(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}/credit"
    api.post(path, json=BODY)

    answer = outcome(api, queued(api.post(path, json={**BODY, "amount": "6"}, headers=AT_ONCE)))

    assert (answer["status"], answer["error"]["code"]) == ("rejected", "idempotency_key_mismatch")


def test_a_slow_result_is_a_503_that_says_where_to_ask_and_nothing_is_lost(
    make_api: Callable[[Settings], TestClient], settings: Settings, start_worker: Callable[[], object]
) -> None:
    api = make_api(settings.model_copy(update={"wait_timeout_seconds": 0.2}))
    body = {"customer_id": "c", "initial_balance": "7", "idempotency_key": "open_1"}

    location = overdue(api.post(ACCOUNTS, json=body))
    waiting = api.get(location).json()
    waited = api.get(location, params={"wait": 0.1}).json()
    again = overdue(api.post(ACCOUNTS, json=body))
    start_worker()
    done = outcome(api, location)

    assert waiting["status"] == waited["status"] == "queued"
    assert (done["status"], outcome(api, again)["account"]["id"]) == ("applied", done["account"]["id"])
    assert balance(api, done["account"]) == "7"
    # The result is there now: the same request gets it as if it had been in time.
    longer = make_api(settings)
    assert longer.post(ACCOUNTS, json=body).json() == done["account"]


@pytest.mark.usefixtures("running_worker")
def test_what_is_applied_and_cannot_be_read_back_is_answered_with_where_to_ask(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = open_account(api, name="ann", initial_balance="9"), open_account(api, name="bob")
    first = api.post(TRANSACTIONS, json=transfer(ann, bob, "1", "t1")).json()

    async def away(*_arguments: object) -> None:
        raise Unavailable

    # Given a Postgres that goes away between the decision and the reading back
    with monkeypatch.context() as broken:
        broken.setattr(Reads, "_perform", away)
        posted = overdue(api.post(TRANSACTIONS, json=transfer(ann, bob, "4", "t2")))
    seen = api.get(f"{TRANSACTIONS}/{first['id']}").json()
    with monkeypatch.context() as broken:
        decide = Writes.decide

        async def decide_and_go_away(*arguments: Any, **fields: Any) -> Any:
            # The reads before the reversal work, those after it do not.
            decided = await decide(*arguments, **fields)
            broken.setattr(Reads, "_perform", away)
            return decided

        broken.setattr(Writes, "decide", decide_and_go_away)
        undone = overdue(api.post(f"{TRANSACTIONS}/{first['id']}/reverse"))

    assert seen == first
    assert outcome(api, posted)["transaction"]["entries"][0]["amount"] == "4"
    assert outcome(api, undone)["transaction"]["reversal_of"] == first["id"]
    assert balance(api, bob) == "4"


@pytest.mark.usefixtures("running_worker")
def test_a_threshold_that_is_set_needs_no_reading_back(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    account = open_account(api)
    decide = Writes.decide

    async def away(*_arguments: object) -> None:
        raise Unavailable

    with monkeypatch.context() as broken:

        async def decide_and_go_away(*arguments: Any, **fields: Any) -> object:
            decided = await decide(*arguments, **fields)
            broken.setattr(Reads, "_perform", away)
            return decided

        broken.setattr(Writes, "decide", decide_and_go_away)
        answer = api.patch(f"{ACCOUNTS}/{account['id']}", json={"low_balance": "5"})

    assert (answer.status_code, answer.json()["low_balance"]) == (200, "5")
    assert api.get(f"{ACCOUNTS}/{account['id']}").json()["low_balance"] == "5"


def test_a_command_that_redis_has_lost_differs_from_an_id_that_is_none(api: TestClient, settings: Settings) -> None:
    location = queued(api.post(ACCOUNTS, json={"customer_id": "c"}, headers=AT_ONCE))
    with redis.Redis.from_url(settings.require_redis_url()) as connection:
        for lane in connection.scan_iter(match=f"{settings.redis_prefix}:*:commands"):
            connection.delete(lane)

    answer = api.get(location)

    assert code_of(answer, 404) == "not_found"
    assert "Send the request again" in answer.json()["error"]["message"]


def test_what_is_no_command_is_not_found(api: TestClient, make_key: Callable[..., str]) -> None:
    location = queued(api.post(ACCOUNTS, json={"customer_id": "c"}, headers=AT_ONCE))
    never_sent = location[:-8] + "AAAAAAA="

    for path in (f"{COMMANDS}/cmd_x", f"{COMMANDS}/x", f"{COMMANDS}/cmd_", f"{COMMANDS}/%00", never_sent):
        assert code_of(api.get(path), 404) == "not_found"
    assert api.get(location, headers={"x-api-key": make_key()}).json()["status"] == "queued"


@pytest.mark.parametrize("wait", ["-1", "31", "x", "nan", "inf", ""])
def test_a_wait_has_bounds(api: TestClient, wait: str) -> None:
    answer = api.get(f"{COMMANDS}/cmd_x", params={"wait": wait})

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == "wait"
