"""A key decides the store; it is printed once, stored as a hash, and worthless as soon as it is revoked."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from click.testing import Result
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from creditlane import Settings
from creditlane.cli.app import app
from creditlane.producer.operations.api_keys import FIND_KEYS, key_id_of
from creditlane.schemas.errors import InvalidCommand

Run = Callable[..., Result]
ACCOUNTS = "/v1/customer-credits/accounts"


@pytest.fixture
def run(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Run:
    """Runs a command with this test's settings."""
    return lambda *arguments: CliRunner().invoke(app, arguments, env=environment_of(settings))


def status_with(api: TestClient, key: str) -> int:
    return api.get(ACCOUNTS, headers={"x-api-key": key}).status_code


def test_a_key_is_printed_once_and_opens_its_store(run: Run, api: TestClient, database_url: str) -> None:
    made = run("keys", "create", "--store", "store_default", "--name", "billing")
    key = made.stdout.strip()

    assert made.exit_code == 0
    assert status_with(api, key) == 200
    (listed,) = [k for k in json.loads(run("keys", "list", "--json").stdout)["keys"] if k["name"] == "billing"]
    assert listed["key_id"] == key_id_of(key)
    assert listed["revoked_at"] is None
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select api_keys::text from api_keys").fetchall()
    secret = key.rpartition("_")[2]
    assert secret not in repr(rows)
    assert secret not in run("keys", "list").stdout


def test_a_revoked_key_is_worthless_at_once(run: Run, api: TestClient) -> None:
    key = run("keys", "create", "--store", "store_default").stdout.strip()
    assert status_with(api, key) == 200

    revoked = run("keys", "revoke", key_id_of(key) or "")

    assert revoked.exit_code == 0
    assert status_with(api, key) == 401
    moment = json.loads(run("keys", "list", "--json").stdout)["keys"][-1]["revoked_at"]
    assert run("keys", "revoke", key_id_of(key) or "").exit_code == 0
    assert json.loads(run("keys", "list", "--json").stdout)["keys"][-1]["revoked_at"] == moment


def test_no_key_and_every_wrong_one_are_answered_alike(api: TestClient, api_key: str) -> None:
    wrong = ["", "x", "Bearer " + api_key, api_key[:-1], api_key[:-1] + ("0" if api_key[-1] != "0" else "1")]
    answers = [api.get(ACCOUNTS, headers={"x-api-key": key}) for key in wrong]
    del api.headers["x-api-key"]
    answers.append(api.get(ACCOUNTS))

    bodies = [answer.json()["error"] for answer in answers]
    assert {answer.status_code for answer in answers} == {401}
    assert {(body["type"], body["code"], body["message"]) for body in bodies} == {
        ("authentication_error", "unauthorized", bodies[0]["message"])
    }


def test_a_key_may_be_anything_that_fits_into_a_header(api: TestClient) -> None:
    for key in (b"\xff\xfe", b"cl_\xe9", b"k" * 8_000):
        assert api.get(ACCOUNTS, headers={b"x-api-key": key}).status_code == 401


def test_the_keys_of_a_store_that_is_not_there_are_no_empty_list(run: Run, api_key: str) -> None:
    assert api_key
    assert json.loads(run("keys", "list", "--store", "store_default", "--json").stdout)["keys"] != []
    assert isinstance(run("keys", "list", "--store", "store_nowhere").exception, InvalidCommand)


def test_two_keys_are_none(run: Run, api: TestClient, api_key: str) -> None:
    """Given the header twice, with keys of two stores, one that works or the same, then neither decides the store."""
    store = run("stores", "create", "another").stdout.strip()
    other = run("keys", "create", "--store", store).stdout.strip()
    del api.headers["x-api-key"]
    for keys in ((api_key, other), (other, api_key), (api_key, "x"), ("", api_key), (api_key, api_key)):
        answer = api.get(ACCOUNTS, headers=[("x-api-key", key) for key in keys])
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_white_space_around_a_key_is_none_of_it(api: TestClient, api_key: str) -> None:
    assert [status_with(api, text) for text in (f" {api_key}", f"{api_key} \t", f"{api_key[:5]} {api_key[5:]}")] == [
        200,
        200,
        401,
    ]


def test_each_key_opens_its_own_store(run: Run, api: TestClient, running_worker: object) -> None:
    assert running_worker
    store = run("stores", "create", "another").stdout.strip()
    key = run("keys", "create", "--store", store).stdout.strip()

    opened = api.post(ACCOUNTS, json={"customer_id": "c"}, headers={"x-api-key": key})

    assert opened.status_code == 201
    assert opened.json()["store_id"] == store
    assert api.get(f"{ACCOUNTS}/{opened.json()['id']}", headers={"x-api-key": key}).status_code == 200
    assert api.get(f"{ACCOUNTS}/{opened.json()['id']}").status_code == 404
    assert [s["store_id"] for s in json.loads(run("stores", "list", "--json").stdout)["stores"]] == [
        "store_default",
        store,
    ]


def test_keys_of_a_burst_are_read_together_and_never_mixed_up(api: TestClient, make_key: Callable[..., str]) -> None:
    keys = [make_key() for _ in range(4)]
    wrong = [key[:-1] + ("0" if key[-1] != "0" else "1") for key in keys]

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda key: status_with(api, key), (keys + wrong) * 8))

    assert statuses == ([200] * 4 + [401] * 4) * 8


def test_the_lookup_is_by_the_index(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into api_keys (store_id, key_id, key_hash, name) "
            "select 1, lpad(to_hex(n), 16, '0'), sha256(n::text::bytea), 'n' from generate_series(1, 5000) as n"
        )
        connection.execute("analyze api_keys")
        plan = connection.execute(f"explain {FIND_KEYS}", {"key_ids": ["00000000000000ff"]}).fetchall()

    assert "api_keys_key_id_idx" in repr(plan)


def test_without_postgres_a_key_cannot_be_judged(
    make_api: Callable[[Settings], TestClient], settings: Settings
) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})

    answer = make_api(away).get(ACCOUNTS)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "--store", "store_nobody"),
        ("keys", "create", "--store", "store_default", "--name", "n" * 101),
        ("keys", "revoke", "0123456789abcdef"),
        ("stores", "create", " "),
    ],
)
def test_what_an_operator_gets_wrong_is_said(run: Run, arguments: tuple[str, ...]) -> None:
    assert isinstance(run(*arguments).exception, InvalidCommand)
