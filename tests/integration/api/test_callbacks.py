"""A callback over HTTP: taken by every operation that moves money or opens an account, and refused by name."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from ..outbox_reading import read_outbox
from .requests_of import ACCOUNTS, COMMANDS, DEADLINE_SECONDS, TRANSACTIONS, code_of, move, open_account, transfer

pytestmark = pytest.mark.usefixtures("running_worker")

URL = "https://example.com/hook"
#: The same media type, written so that only the framework reads it.
LONG_WAY = {"content-type": "application/json; charset=UTF-8"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def keys_sent(settings: Settings) -> list[str]:
    rows = read_outbox(settings.require_database_url())
    sent = [each for row in rows for each in row.callbacks or ()]
    assert {each["url"] for each in sent} <= {URL}
    return [each["idempotency_key"] for each in sent]


def test_every_operation_takes_a_callback(api: TestClient, settings: Settings) -> None:
    account = open_account(api, initial_balance="9", idempotency_key="open", callback_url=URL)
    other = open_account(api, name="other")
    move(api, account, "credit", "5", "credit", callback_url=URL)
    move(api, account, "debit", "5", "debit", callback_url=URL)
    path, body = f"{ACCOUNTS}/{account['id']}/debit", {"amount": "1", "reference": "r", "callback_url": URL}
    assert api.post(path, json={**body, "idempotency_key": "long way"}, headers=LONG_WAY).status_code == 201
    assert api.post(path, json={**body, "amount": "99", "idempotency_key": "refused"}).status_code == 422
    posted = api.post(TRANSACTIONS, json={**transfer(account, other, "2", "post"), "callback_url": URL})
    assert posted.status_code == 201, posted.text

    assert keys_sent(settings) == ["open", "credit", "debit", "long way", "refused", "post"]


def test_a_repetition_with_another_callback_gets_the_first_answer(api: TestClient, settings: Settings) -> None:
    account = open_account(api, initial_balance="9")
    first = move(api, account, "debit", "5", "d")

    again = move(api, account, "debit", "5", "d", callback_url=URL)

    assert again == first
    assert keys_sent(settings) == ["d"]


def test_lines_of_a_batch_take_callbacks(api: TestClient, settings: Settings) -> None:
    account = open_account(api, initial_balance="9")
    common = {"account_id": account["id"], "callback_url": URL}
    lines: list[dict[str, Any]] = [
        {**common, "kind": "debit", "amount": "1", "reference": "r", "idempotency_key": "d"},
        {**common, "kind": "freeze", "idempotency_key": "f"},
        {**common, "kind": "debit", "amount": "1", "reference": "r", "idempotency_key": "x", "callback_url": "nowhere"},
    ]

    answers = [
        json.loads(line)
        for line in api.post(COMMANDS, content="\n".join(map(json.dumps, lines)).encode()).text.splitlines()
    ]

    assert [answer["status"] for answer in answers] == ["queued", "queued", "refused"]
    assert answers[2]["error"]["param"] == "callback_url"

    assert move_is_refused(api, account)
    assert keys_sent(settings) == ["d", "f"]


def move_is_refused(api: TestClient, account: dict[str, Any]) -> bool:
    """Whether the account is frozen; its lane has then decided all that came before this."""
    body = {"amount": "1", "reference": "r", "idempotency_key": "probe"}
    return code_of(api.post(f"{ACCOUNTS}/{account['id']}/debit", json=body), 409) == "account_frozen"


@pytest.mark.parametrize("url", ["", "ftp://example.com/", "https://u:p@example.com/", "https://a b/", 5])
@pytest.mark.parametrize("headers", [{}, LONG_WAY], ids=["fast path", "long way"])
def test_a_bad_callback_is_refused_by_name(api: TestClient, url: object, headers: dict[str, str]) -> None:
    account = open_account(api)
    body = {"amount": "1", "reference": "r", "idempotency_key": "k", "callback_url": url}

    answer = api.post(f"{ACCOUNTS}/{account['id']}/credit", json=body, headers=headers)

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == "callback_url"
