"""Whatever an operation does not take is refused by name: query parameters, fields, bodies, and codings of bodies."""

import gzip
import json
import re
import zlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.api.app import create_app

from .requests_of import ACCOUNTS, COMMANDS, DEADLINE_SECONDS, TRANSACTIONS, balance, code_of, open_account

JSON = {"content-type": "application/json"}
BODY = {"amount": "5", "reference": "order_1", "idempotency_key": "key_1"}
DEBIT = json.dumps(BODY).encode()
BOM = b"\xef\xbb\xbf"
CODINGS = {"gzip": gzip.compress(DEBIT), "deflate": zlib.compress(DEBIT), "br": DEBIT, "identity, GZIP": DEBIT}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def operations() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return the method, a path and the description of every operation, by its name."""
    return {
        operation["operationId"]: (method, re.sub(r"\{\w+\}", "cca_" + "0" * 32, path), operation)
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        for method, operation in methods.items()
    }


OPERATIONS = operations()
WRITING = [name for name, (method, _, _) in OPERATIONS.items() if method != "get"]
WITHOUT_BODY = [name for name in WRITING if "requestBody" not in OPERATIONS[name][2]]
WITH_JSON = [
    name
    for name, (_, _, each) in OPERATIONS.items()
    if "application/json" in each.get("requestBody", {}).get("content", {})
]


def ask(api: TestClient, name: str, query: str = "", **parts: Any) -> Any:
    method, path, _ = OPERATIONS[name]
    return api.request(method, f"{path}{query}", **parts)


def refused_fields(answers: dict[Any, Any]) -> dict[Any, str]:
    """Return the field that each refusal is about, after checking that all are refusals of input."""
    assert {code_of(answer, 400) for answer in answers.values()} == {"validation_error"}
    return {tried: answer.json()["error"]["param"] for tried, answer in answers.items()}


def test_an_unknown_query_parameter_is_named_by_every_operation(api: TestClient) -> None:
    answers = {
        name: ask(api, name, "?none_such=1&Limit=3", **({"json": {}} if name in WITH_JSON else {}))
        for name in OPERATIONS
    }

    assert refused_fields(answers) == dict.fromkeys(OPERATIONS, "none_such")
    for answer in answers.values():
        assert "none_such: is no query parameter here" in answer.json()["error"]["message"]
        assert "Limit: is no query parameter here" in answer.json()["error"]["message"]


def test_a_filter_that_is_not_there_is_answered_with_what_is(api: TestClient) -> None:
    refused = api.get(f"{ACCOUNTS}?status=frozen")

    assert code_of(refused, 400) == "validation_error"
    assert "there are customer_id, limit, starting_after, ending_before" in refused.json()["error"]["message"]
    assert api.get(f"{ACCOUNTS}?customer_id=cust_1&limit=5").json()["data"] == []


def test_a_parameter_that_is_given_twice_is_named(api: TestClient) -> None:
    pages = {"limit": f"{ACCOUNTS}?limit=1&limit=2", "reference": f"{TRANSACTIONS}?reference=a&reference=b"}

    answers = {name: api.get(path) for name, path in pages.items()}

    assert refused_fields(answers) == {name: name for name in pages}


@pytest.mark.usefixtures("running_worker")
def test_a_plain_debit_with_a_query_moves_nothing(api: TestClient) -> None:
    account = open_account(api, initial_balance="7")

    answer = api.post(f"{ACCOUNTS}/{account['id']}/debit?dry_run=true", json=BODY)

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == "dry_run"
    assert balance(api, account) == "7"


def test_a_field_is_named_by_every_operation_that_takes_none(api: TestClient) -> None:
    answers = {name: ask(api, name, json={"reason": "fraud"}) for name in WITHOUT_BODY}

    assert refused_fields(answers) == dict.fromkeys(WITHOUT_BODY, "reason")


@pytest.mark.usefixtures("running_worker")
def test_a_body_for_an_operation_that_takes_none_changes_nothing(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}"

    for body in (b"fraud", b'"fraud"', b"[]", b"0", b"false", b"reason=fraud", b"\xff", b"[" * 9_000):
        assert code_of(api.post(f"{path}/freeze", content=body), 400) == "validation_error"
    keyed = api.post(f"{path}/freeze", json={"idempotency_key": "k"})

    assert code_of(keyed, 400) == "validation_error"
    assert "header Idempotency-Key" in keyed.json()["error"]["message"]
    assert api.get(path).json()["status"] == "active"


@pytest.mark.usefixtures("running_worker")
def test_a_body_that_says_nothing_is_none(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}"

    for body in (b"", b"{}", b"null", b" \r\n"):
        assert api.post(f"{path}/freeze", content=body, headers=JSON).json()["status"] == "frozen"
        assert api.post(f"{path}/unfreeze", content=body).json()["status"] == "active"


def test_a_field_that_stands_twice_is_named_by_every_operation_that_writes(api: TestClient) -> None:
    twice = b'{"amount": "5", "amount": "5"}'
    names = [name for name in WRITING if not OPERATIONS[name][1].endswith("/commands")]

    answers = {name: ask(api, name, content=twice, headers=JSON) for name in names}

    assert refused_fields(answers) == dict.fromkeys(names, "amount")


@pytest.mark.usefixtures("running_worker")
def test_a_debit_of_two_amounts_moves_nothing_alone_or_in_a_batch(api: TestClient) -> None:
    account = open_account(api, initial_balance="7")
    line = {"kind": "debit", "account_id": account["id"], **BODY}

    single = api.post(f"{ACCOUNTS}/{account['id']}/debit", content=DEBIT[:-1] + b',"amount":"1"}', headers=JSON)
    batch = api.post(COMMANDS, content=json.dumps(line).encode()[:-1] + b',"amount":"1"}')

    for error in (single.json()["error"], batch.json()["error"]):
        assert error["param"] == "amount"
        assert "more than once" in error["message"]
    assert balance(api, account) == "7"


def test_half_a_character_in_the_name_of_a_field_is_answered_in_an_escape(api: TestClient) -> None:
    answers = [ask(api, name, content=b'{"\\ud800": 1}', headers=JSON) for name in WITHOUT_BODY]

    assert {code_of(answer, 400) for answer in answers} == {"validation_error"}
    assert {answer.json()["error"]["param"] for answer in answers} == {r"\ud800"}


def test_json_in_another_encoding_is_answered_with_which_to_send(api: TestClient) -> None:
    answers = [ask(api, name, content=DEBIT.decode().encode("utf-16"), headers=JSON) for name in WITH_JSON]

    assert {code_of(answer, 400) for answer in answers} == {"validation_error"}
    assert {answer.json()["error"]["message"] for answer in answers} == {"The body is not UTF-8; send JSON in UTF-8."}


def test_what_is_no_json_is_answered_with_where(api: TestClient) -> None:
    for name in WITH_JSON:
        message = ask(api, name, content=b'{"amount": 5 "reference"', headers=JSON).json()["error"]["message"]

        assert message.startswith("body: is no JSON: ")
        assert message.endswith(" at character 14")


def test_a_whole_number_is_written_in_digits(api: TestClient) -> None:
    numbers = ("limit=1_0", "limit=1.0", "limit=%201", "limit=%2B1", "limit=", "limit=\u0661")

    answers = {number: api.get(f"{ACCOUNTS}?{number}") for number in numbers}

    assert set(refused_fields(answers).values()) == {"limit"}
    assert {answer.json()["error"]["message"] for answer in answers.values()} == {
        "limit: must be a whole number in digits"
    }
    assert api.get("/v1/webhooks?page_number=1_0").status_code == 400
    assert api.get(f"{ACCOUNTS}?limit=-1").json()["error"]["message"].endswith("greater than or equal to 1")


def test_json_that_is_not_said_to_be_json_is_answered_with_what_to_send(api: TestClient) -> None:
    answers = {
        (name, content_type): ask(api, name, content=b"{}", headers=content_type and {"content-type": content_type})
        for name in WITH_JSON
        for content_type in (None, "text/plain", "application/x-www-form-urlencoded")
    }

    assert refused_fields(answers) == dict.fromkeys(answers, "content-type")
    for answer in answers.values():
        assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("running_worker")
def test_json_may_be_called_as_it_is_called_elsewhere(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api, initial_balance='7')['id']}/debit"

    for content_type in ("Application/JSON", "application/json;charset=utf-8", "application/a+json"):
        assert api.post(path, content=DEBIT, headers={"content-type": content_type}).status_code == 201


def test_a_compressed_body_is_refused_by_every_operation_that_writes(api: TestClient) -> None:
    answers = {
        (name, coding): ask(api, name, content=body, headers={**JSON, "content-encoding": coding})
        for name in WRITING
        for coding, body in CODINGS.items()
    }

    assert {code_of(answer, 415) for answer in answers.values()} == {"unsupported_encoding"}
    assert {answer.headers["accept-encoding"] for answer in answers.values()} == {"identity"}


@pytest.mark.usefixtures("running_worker")
def test_a_body_that_is_coded_as_itself_is_taken(api: TestClient) -> None:
    account = open_account(api, initial_balance="7")

    answer = api.post(
        f"{ACCOUNTS}/{account['id']}/debit", content=DEBIT, headers={**JSON, "content-encoding": "identity"}
    )

    assert (answer.status_code, balance(api, account)) == (201, "2")


@pytest.mark.usefixtures("running_worker")
def test_a_byte_order_mark_is_no_part_of_a_body(api: TestClient) -> None:
    account = open_account(api, initial_balance="17")
    line = json.dumps({"kind": "debit", "account_id": account["id"], **BODY, "idempotency_key": "in_batch"}).encode()

    single = api.post(f"{ACCOUNTS}/{account['id']}/debit", content=BOM + DEBIT, headers=JSON)
    batch = api.post(COMMANDS, content=BOM + line + b"\n" + BOM + line)
    first, second = (json.loads(each) for each in batch.text.splitlines())

    assert single.status_code == 201
    assert (first["status"], second["status"]) == ("queued", "refused")
    applied = api.get(f"{COMMANDS}/{first['id']}?wait=30").json()
    assert (applied["status"], balance(api, account)) == ("applied", "7")
