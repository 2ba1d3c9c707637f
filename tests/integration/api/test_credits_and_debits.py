"""Credits, debits and their reversals over HTTP: once, in exact digits, and refused where the books forbid them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from .requests_of import (
    ACCOUNTS,
    DEADLINE_SECONDS,
    REPLAY,
    TRANSACTIONS,
    UNKNOWN_TRANSACTION,
    balance,
    code_of,
    move,
    open_account,
)

pytestmark = pytest.mark.usefixtures("running_worker")

BODY = {"amount": "5", "reference": "order_1", "idempotency_key": "key_1"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def test_a_credit_and_a_debit_are_transactions_of_one_entry(api: TestClient) -> None:
    account = open_account(api)

    credit = move(api, account, "credit", "500", "c", reference="order", metadata={"zone": "eu", "a": "b"})
    debit = move(api, account, "debit", "200", "d", reference="use")

    (entry,) = credit["entries"]
    assert entry["id"] == "cce_" + credit["id"][4:]
    assert (entry["side"], entry["amount"], entry["balance_after"]) == ("credit", "500", "500")
    assert (entry["account_id"], entry["transaction_id"]) == (account["id"], credit["id"])
    assert (credit["reference"], credit["idempotency_key"], credit["reversal_of"]) == ("order", "c", None)
    assert (credit["store_id"], credit["metadata"]) == ("store_default", {"zone": "eu", "a": "b"})
    assert credit["created_at"] == entry["created_at"]
    assert debit["entries"][0]["balance_after"] == balance(api, account) == "300"
    for transaction in (credit, debit):
        assert api.get(f"{TRANSACTIONS}/{transaction['id']}").json() == transaction


def test_amounts_beyond_every_machine_number_stay_exact(api: TestClient) -> None:
    account, huge = open_account(api), "9" * 1_000

    move(api, account, "credit", huge, "1")
    move(api, account, "credit", huge, "2")

    assert balance(api, account) == "1" + "9" * 999 + "8"


def test_a_repeated_request_gets_the_first_answer_for_ever(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}"

    first = api.post(f"{path}/credit", json=BODY)
    api.post(f"{path}/freeze")
    frozen = api.post(f"{path}/credit", json=BODY)
    api.post(f"{path}/close")
    closed = api.post(f"{path}/credit", json=BODY)

    assert REPLAY not in first.headers
    for again in (frozen, closed):
        assert (again.status_code, again.json(), again.headers[REPLAY]) == (201, first.json(), "true")
    assert balance(api, account) == "5"


def test_a_refusal_is_repeated_too(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}/debit"

    first = api.post(path, json=BODY)
    move(api, account, "credit", "100", "later")
    again = api.post(path, json=BODY)

    assert code_of(first, 422) == code_of(again, 422) == "insufficient_balance"
    assert first.json()["error"]["param"] == "amount"
    assert "0 available" in first.json()["error"]["message"]
    assert (REPLAY in first.headers, again.headers[REPLAY]) == (False, "true")


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("credit", {"amount": "6"}),
        ("credit", {"reference": "other"}),
        ("credit", {"metadata": {"a": "b"}}),
        ("debit", {}),
    ],
)
def test_a_key_used_for_another_request_is_a_conflict(api: TestClient, path: str, change: dict[str, Any]) -> None:
    account = open_account(api)
    api.post(f"{ACCOUNTS}/{account['id']}/credit", json=BODY)

    answer = api.post(f"{ACCOUNTS}/{account['id']}/{path}", json={**BODY, **change})

    assert code_of(answer, 409) == "idempotency_key_mismatch"
    assert balance(api, account) == "5"


def test_a_key_used_on_another_account_is_a_conflict(api: TestClient) -> None:
    first, second = open_account(api, name="first"), open_account(api, name="second")
    api.post(f"{ACCOUNTS}/{first['id']}/credit", json=BODY)

    answer = api.post(f"{ACCOUNTS}/{second['id']}/credit", json=BODY)

    assert code_of(answer, 409) == "idempotency_key_mismatch"


def test_the_key_may_come_in_the_header(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}/credit"
    bare = {"amount": "5", "reference": "order_1"}

    first = api.post(path, json=bare, headers={"Idempotency-Key": "key_1"})
    again = api.post(path, json=BODY)
    both = api.post(path, json=BODY, headers={"Idempotency-Key": "key_1"})
    differing = api.post(path, json=BODY, headers={"Idempotency-Key": "key_2"})
    neither = api.post(path, json=bare)
    reserved = api.post(path, json=bare, headers={"Idempotency-Key": "reversal:x"})

    assert first.json() == again.json() == both.json()
    for answer in (differing, neither):
        assert code_of(answer, 400) == "validation_error"
        assert answer.json()["error"]["param"] == "idempotency_key"
    assert code_of(reserved, 400) == "validation_error"


@pytest.mark.parametrize("side", ["credit", "debit"])
def test_nothing_moves_on_a_frozen_or_closed_account(api: TestClient, side: str) -> None:
    account = open_account(api, initial_balance="10")
    path = f"{ACCOUNTS}/{account['id']}"

    api.post(f"{path}/freeze")
    frozen = api.post(f"{path}/{side}", json=BODY)
    api.post(f"{path}/close")
    closed = api.post(f"{path}/{side}", json={**BODY, "idempotency_key": "key_2"})

    assert code_of(frozen, 409) == "account_frozen"
    assert code_of(closed, 409) == "account_closed"
    assert balance(api, account) == "10"


def test_a_transaction_is_reversed_once(api: TestClient) -> None:
    account = open_account(api, initial_balance="10")
    debit = move(api, account, "debit", "4", "d", reference="use")
    by_account, by_id = f"{ACCOUNTS}/{account['id']}/reverse", f"{TRANSACTIONS}/{debit['id']}/reverse"

    first = api.post(by_account, json={"transaction_id": debit["id"]})
    api.post(f"{ACCOUNTS}/{account['id']}/freeze")
    again = api.post(by_id)

    undone = first.json()
    assert (first.status_code, again.status_code, REPLAY in first.headers) == (201, 201, False)
    assert (again.json(), again.headers[REPLAY]) == (undone, "true")
    assert (undone["reversal_of"], undone["reference"]) == (debit["id"], "use")
    assert undone["idempotency_key"] == f"reversal:{debit['id']}"
    assert (undone["entries"][0]["side"], undone["entries"][0]["amount"]) == ("credit", "4")
    assert balance(api, account) == "10"


def test_a_reversal_is_not_reversed(api: TestClient) -> None:
    account = open_account(api, initial_balance="10")
    debit = move(api, account, "debit", "4", "d")
    undone = api.post(f"{TRANSACTIONS}/{debit['id']}/reverse").json()

    answer = api.post(f"{TRANSACTIONS}/{undone['id']}/reverse")

    assert code_of(answer, 409) == "reversal_not_reversible"


def test_a_reversal_that_the_books_forbid_can_be_made_when_they_allow_it(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}"
    credit = move(api, account, "credit", "10", "c")
    move(api, account, "debit", "4", "d")

    spent = api.post(f"{TRANSACTIONS}/{credit['id']}/reverse")
    move(api, account, "credit", "4", "top up")
    api.post(f"{path}/freeze")
    frozen = api.post(f"{path}/reverse", json={"transaction_id": credit["id"]})
    api.post(f"{path}/unfreeze")
    done = api.post(f"{path}/reverse", json={"transaction_id": credit["id"]})

    assert code_of(spent, 422) == "insufficient_balance"
    assert code_of(frozen, 409) == "account_frozen"
    assert (done.status_code, done.json()["reversal_of"]) == (201, credit["id"])
    assert balance(api, account) == "0"


@pytest.mark.parametrize("identifier", [UNKNOWN_TRANSACTION, "cct_missing", "x", "", "cca_" + "0" * 32])
def test_what_is_no_transaction_of_the_account_is_not_reversed(api: TestClient, identifier: str) -> None:
    account = open_account(api, initial_balance="1")

    answer = api.post(f"{ACCOUNTS}/{account['id']}/reverse", json={"transaction_id": identifier})

    assert code_of(answer, 404) == "not_found"
    assert answer.json()["error"]["param"] == "transaction_id"


def test_another_accounts_transaction_is_not_reversed(api: TestClient) -> None:
    first, second = open_account(api, name="first"), open_account(api, name="second")
    credit = move(api, first, "credit", "1", "c")

    answer = api.post(f"{ACCOUNTS}/{second['id']}/reverse", json={"transaction_id": credit["id"]})

    assert code_of(answer, 404) == "not_found"
    assert api.post(f"{TRANSACTIONS}/{credit['id']}/reverse").status_code == 201


def test_concurrent_debits_take_exactly_what_is_there(api: TestClient) -> None:
    account = open_account(api, initial_balance="30")
    path = f"{ACCOUNTS}/{account['id']}/debit"

    def take(number: int) -> int:
        # Every fifth is a repetition of the one before.
        key = f"key_{number - number % 5 // 4}"
        return api.post(path, json={"amount": "1", "reference": "r", "idempotency_key": key}).status_code

    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(take, range(100)))

    entries = api.get(f"{ACCOUNTS}/{account['id']}/entries?limit=100").json()["data"]
    assert set(statuses) == {201, 422}
    assert (balance(api, account), len(entries)) == ("0", 31)
