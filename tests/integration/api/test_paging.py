"""Pages in both directions, and balances in time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Settings

from .requests_of import ACCOUNTS, DEADLINE_SECONDS, TRANSACTIONS, code_of, move, open_account, place_hold

pytestmark = pytest.mark.usefixtures("running_worker")

COUNT = 12


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


@pytest.fixture(params=["accounts", "accounts of a customer", "entries", "transactions", "holds"])
def listing(request: pytest.FixtureRequest, api: TestClient) -> tuple[str, dict[str, Any], list[str]]:
    """A list of twelve items: its path, its parameters, and its ids, newest first."""
    if request.param.startswith("accounts"):
        open_account(api, customer_id="before") if "customer" in request.param else None
        ids = [open_account(api, name=f"n{number}")["id"] for number in range(COUNT)]
        open_account(api, customer_id="after") if "customer" in request.param else None
        return ACCOUNTS, {"customer_id": "cust_1"} if "customer" in request.param else {}, ids[::-1]
    if request.param == "holds":
        holder = open_account(api, initial_balance=str(COUNT))
        holds = [place_hold(api, holder, "1", f"key_{number}") for number in range(COUNT)]
        return f"{ACCOUNTS}/{holder['id']}/holds", {"status": "open"}, [hold["id"] for hold in holds][::-1]
    account = open_account(api)
    moves = [move(api, account, "credit", "1", f"key_{number}", reference="r") for number in range(COUNT)]
    if request.param == "transactions":
        return TRANSACTIONS, {"reference": "r"}, [transaction["id"] for transaction in moves][::-1]
    path = f"{ACCOUNTS}/{account['id']}/entries"
    return path, {}, [transaction["entries"][0]["id"] for transaction in moves][::-1]


def page(api: TestClient, path: str, parameters: dict[str, Any]) -> tuple[list[str], bool]:
    answer = api.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"object", "data", "has_more"}
    assert body["object"] == "list"
    return [item["id"] for item in body["data"]], body["has_more"]


def test_a_list_is_walked_in_both_directions(api: TestClient, listing: tuple[str, dict[str, Any], list[str]]) -> None:
    path, fixed, ids = listing

    def get(**parameters: Any) -> tuple[list[str], bool]:
        return page(api, path, {**fixed, **parameters})

    assert get() == (ids[:10], True)
    assert get(limit=100) == (ids, False)
    assert get(limit=COUNT) == (ids, False)
    assert get(limit=COUNT - 1) == (ids[:-1], True)
    assert get(limit=5, starting_after=ids[4]) == (ids[5:10], True)
    assert get(limit=5, starting_after=ids[9]) == (ids[10:], False)
    assert get(starting_after=ids[-1]) == ([], False)
    # Backwards, next to the cursor.
    assert get(limit=5, ending_before=ids[9]) == (ids[4:9], True)
    assert get(limit=5, ending_before=ids[4]) == (ids[:4], False)
    assert get(ending_before=ids[0]) == ([], False)
    # Both: on from the one, and stopping before the other.
    assert get(limit=3, starting_after=ids[1], ending_before=ids[7]) == (ids[2:5], True)
    assert get(limit=3, starting_after=ids[4], ending_before=ids[7]) == (ids[5:7], False)
    assert get(starting_after=ids[7], ending_before=ids[1]) == ([], False)


def test_an_unknown_cursor_is_refused(api: TestClient, listing: tuple[str, dict[str, Any], list[str]]) -> None:
    path, fixed, ids = listing
    prefix, last = ids[0][:4], ids[-1]
    another = last[:-1] + ("e" if last.endswith("f") else "f")
    unknown = [prefix + "0" * 32, prefix + "0" * 32 + "1", another, last.upper(), "x", last[4:], "é", ""]

    for cursor in unknown:
        for name in ("starting_after", "ending_before"):
            answer = api.get(path, params={**fixed, name: cursor})

            assert code_of(answer, 400) == "validation_error"
            assert answer.json()["error"]["param"] == name


def test_a_cursor_of_another_list_is_refused(api: TestClient) -> None:
    first, second = open_account(api, name="first"), open_account(api, name="second")
    moved = move(api, first, "credit", "1", "key", reference="one")
    other = move(api, second, "credit", "1", "other", reference="two")

    entries = api.get(f"{ACCOUNTS}/{first['id']}/entries", params={"starting_after": other["entries"][0]["id"]})
    transactions = api.get(TRANSACTIONS, params={"reference": "one", "starting_after": other["id"]})

    assert code_of(entries, 400) == code_of(transactions, 400) == "validation_error"
    assert api.get(TRANSACTIONS, params={"reference": "one", "starting_after": moved["id"]}).json()["data"] == []


def test_a_balance_is_shown_at_every_moment(api: TestClient, database_url: str) -> None:
    account = open_account(api, initial_balance="10")
    path = f"{ACCOUNTS}/{account['id']}/balance"
    moves = [move(api, account, "credit", "1", f"key_{number}") for number in range(7)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        # A second between the entries, and two of them at one moment.
        connection.execute("alter table journal disable trigger all")
        connection.execute(
            "update journal "
            "set created_at = '2026-01-01 00:00:00.0004+00'::timestamptz + least(seq, 7) * interval '1 s'"
        )

    def at(text: str) -> str:
        answer = api.get(path, params={"at": text})
        assert set(answer.json()) == {"balance", "as_of"}
        return answer.json()["balance"]

    assert at("2026-01-01T00:00:00.999Z") == "0"
    assert at("2020-01-01") == "0"
    # Inclusive, in the milliseconds that the API shows.
    assert at("2026-01-01T00:00:01.000Z") == "10"
    assert [at(f"2026-01-01T00:00:0{second}Z") for second in range(2, 8)] == ["11", "12", "13", "14", "15", "17"]
    assert at("2026-01-01T00:00:03.999Z") == "12"
    assert at("2026-01-01T02:00:04+02:00") == at("2026-01-01T00:00:04") == "13"
    assert at("9999-12-31T23:59:59.999999Z") == "17"
    assert at((datetime.now(UTC) + timedelta(days=1)).isoformat()) == "17"
    current = api.get(path).json()
    assert current == {"balance": "17", "updated_at": "2026-01-01T00:00:07.000Z"}
    assert api.get(path, params={"at": "2026-01-01T02:00:04.5+02:00"}).json()["as_of"] == "2026-01-01T00:00:04.500Z"
    assert len(moves) == 7


def test_an_account_without_entries_has_a_balance_of_nothing(api: TestClient) -> None:
    account = open_account(api)
    path = f"{ACCOUNTS}/{account['id']}/balance"

    assert api.get(path).json() == {"balance": "0", "updated_at": account["created_at"]}
    assert api.get(path, params={"at": "2100-01-01T00:00:00Z"}).json()["balance"] == "0"
