"""Endpoints over HTTP: their fields, what may be said of them, and when their changes count."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.schemas.webhooks import MAX_ENDPOINTS

from .requests_of import code_of

WEBHOOKS = "/v1/webhooks"
URL = "https://example.com/hook"
UNKNOWN = f"{WEBHOOKS}/wh_{'0' * 32}"
FIELDS = [
    *("id", "object", "mode", "store_id", "name", "url", "delivery_mode", "status", "events", "disabled_reason"),
    *("failing_since", "created_at", "updated_at"),
]


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def version(database: psycopg.Connection[Any]) -> Callable[[], int]:
    """Says how often what is subscribed to has changed."""

    def read() -> int:
        row = database.execute("select subscriptions_version from installation").fetchone()
        assert row is not None
        return int(row[0])

    return read


def create(api: TestClient, **fields: Any) -> dict[str, Any]:
    answer = api.post(WEBHOOKS, json={"url": URL, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_endpoint_is_shown_as_official_clients_know_it(api: TestClient) -> None:
    made = create(api, name="Billing", events=["credits.granted", "account.closed"])

    assert list(made) == [*FIELDS, "secret"]
    assert made["id"].startswith("wh_")
    assert made["secret"].startswith("whsec_")
    expected = {"object": "webhook", "mode": "prod", "store_id": "store_default", "delivery_mode": "http"}
    assert {name: made[name] for name in expected} == expected
    assert (made["url"], made["name"], made["status"]) == (URL, "Billing", "enabled")
    assert made["events"] == ["credits.granted", "account.closed"]
    assert (made["disabled_reason"], made["failing_since"]) == (None, None)


def test_the_secret_is_shown_once(api: TestClient) -> None:
    made = create(api)

    shown = [
        api.get(f"{WEBHOOKS}/{made['id']}"),
        api.get(WEBHOOKS),
        api.patch(f"{WEBHOOKS}/{made['id']}", json={"name": "x"}),
    ]

    assert [answer.status_code for answer in shown] == [200, 200, 200]
    assert "whsec_" not in "".join(answer.text for answer in shown)
    assert list(shown[0].json()) == FIELDS


def test_a_list_has_pages(api: TestClient) -> None:
    ids = [create(api, name=f"n{number}")["id"] for number in range(5)]

    pages = [api.get(WEBHOOKS, params={"page_number": number, "page_size": 2}).json() for number in (1, 2, 3, 4)]

    assert [[item["id"] for item in page["items"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    assert pages[0]["pagination"] == {
        "total_records": 5,
        "total_pages": 3,
        "current_page": 1,
        "next_page": 2,
        "prev_page": None,
    }
    assert (pages[2]["pagination"]["next_page"], pages[2]["pagination"]["prev_page"]) == (None, 2)
    assert len(api.get(WEBHOOKS).json()["items"]) == 5


def test_only_what_is_given_changes(api: TestClient) -> None:
    made = create(api, name="Billing", events=["balance.low"])
    path = f"{WEBHOOKS}/{made['id']}"

    moved = api.patch(path, json={"url": "https://example.com/other"}).json()
    unnamed = api.patch(path, json={"name": None, "events": []}).json()
    disabled = api.patch(path, json={"status": "disabled"}).json()
    same = api.patch(path, json={}).json()

    assert (moved["url"], moved["name"], moved["events"]) == ("https://example.com/other", "Billing", ["balance.low"])
    assert (unnamed["name"], unnamed["events"], unnamed["url"]) == (None, [], moved["url"])
    assert (disabled["status"], same["status"], same["url"]) == ("disabled", "disabled", moved["url"])
    assert made["updated_at"] <= moved["updated_at"] <= same["updated_at"]


def test_enabling_forgets_why_it_was_disabled(api: TestClient, database: psycopg.Connection[Any]) -> None:
    made = create(api)
    database.execute(
        "update webhook_endpoints set status = 2, disabled_reason = 'it failed for a day', "
        "failing_since = now() - interval '1 day', paused_until = now() + interval '1 hour'"
    )
    path = f"{WEBHOOKS}/{made['id']}"

    shown = api.get(path).json()
    renamed = api.patch(path, json={"name": "still"}).json()
    enabled = api.patch(path, json={"status": "enabled"}).json()

    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "it failed for a day")
    assert shown["failing_since"].endswith("Z")
    assert (renamed["status"], renamed["disabled_reason"]) == ("disabled", "it failed for a day")
    assert (enabled["status"], enabled["disabled_reason"], enabled["failing_since"]) == ("enabled", None, None)
    assert database.execute("select paused_until from webhook_endpoints").fetchone() == (None,)


def test_a_deleted_endpoint_is_gone(api: TestClient) -> None:
    made, kept = create(api), create(api)
    path = f"{WEBHOOKS}/{made['id']}"

    deleted = api.delete(path)

    assert (deleted.status_code, deleted.json()["id"], deleted.json()["status"]) == (200, made["id"], "disabled")
    for answer in (api.get(path), api.delete(path), api.patch(path, json={"name": "x"}), api.post(f"{path}/test")):
        assert code_of(answer, 404) == "not_found"
    assert [item["id"] for item in api.get(WEBHOOKS).json()["items"]] == [kept["id"]]


def test_a_rotated_secret_leaves_the_old_one_valid_for_a_day(
    api: TestClient, database: psycopg.Connection[Any]
) -> None:
    made = create(api)

    rotated = api.post(f"{WEBHOOKS}/{made['id']}/rotate-secret").json()

    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    row = database.execute(
        "select secret, previous_secret, previous_secret_until - now() between interval '23 hours' and '24 hours' "
        "from webhook_endpoints"
    ).fetchone()
    assert row == (rotated["secret"], made["secret"], True)


def test_every_change_of_what_is_subscribed_is_counted(api: TestClient, version: Callable[[], int]) -> None:
    path = f"{WEBHOOKS}/{create(api)['id']}"
    after_creation = version()
    api.patch(path, json={"events": ["balance.low"]})
    after_change = version()
    api.delete(path)
    after_deletion = version()
    api.delete(path)

    assert [after_creation, after_change, after_deletion, version()] == [1, 2, 3, 3]


def test_a_store_has_so_many_endpoints_and_no_more(api: TestClient, database: psycopg.Connection[Any]) -> None:
    first = create(api)
    database.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "select 1, gen_random_uuid(), 1, 1, 'https://example.com', 'whsec_x' from generate_series(2, %s)",
        [MAX_ENDPOINTS],
    )

    refused = api.post(WEBHOOKS, json={"url": URL})
    api.delete(f"{WEBHOOKS}/{first['id']}")

    assert code_of(refused, 409) == "webhook_limit_reached"
    assert create(api)["status"] == "enabled"
    assert code_of(api.post(WEBHOOKS, json={"url": URL}), 409) == "webhook_limit_reached"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": 7}, "url"),
        ({"url": "example.com"}, "url"),
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://user@example.com/"}, "url"),
        ({"url": "https://example.com/#here"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://example.com/" + "a" * 2_000}, "url"),
        ({"url": URL, "name": "n" * 101}, "name"),
        ({"url": URL, "name": ""}, "name"),
        ({"url": URL, "name": "\0"}, "name"),
        ({"url": URL, "events": ["checkout.completed"]}, "events.0"),
        ({"url": URL, "events": "balance.low"}, "events"),
        ({"url": URL, "delivery_mode": "cli"}, "delivery_mode"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_field_s_name(api: TestClient, body: dict[str, Any], param: str) -> None:
    answer = api.post(WEBHOOKS, json=body)

    assert code_of(answer, 400) == "validation_error"
    assert answer.json()["error"]["param"] == param
    assert api.get(WEBHOOKS).json()["pagination"]["total_records"] == 0


@pytest.mark.parametrize(
    "body",
    [{"url": None}, {"url": ""}, {"status": "gone"}, {"status": None}, {"events": None}, {"url": "https://10.0.0.1/"}],
)
def test_a_change_keeps_to_the_same_rules(api: TestClient, body: dict[str, Any]) -> None:
    made = create(api)

    assert code_of(api.patch(f"{WEBHOOKS}/{made['id']}", json=body), 400) == "validation_error"
    assert api.get(f"{WEBHOOKS}/{made['id']}").json()["url"] == URL


def test_http_goes_where_the_operator_allows(make_api: Callable[[Settings], TestClient], settings: Settings) -> None:
    api = make_api(settings.model_copy(update={"webhook_allowed_networks": "loopback"}))

    for url in ("http://127.0.0.1:9000/hook", "http://localhost:9000/hook", "http://[::1]/", "https://localhost/"):
        assert create(api, url=url)["url"] == url
    for url in ("http://example.com/", "https://10.0.0.1/", "http://10.0.0.1/"):
        assert code_of(api.post(WEBHOOKS, json={"url": url}), 400) == "validation_error"


@pytest.mark.parametrize("identifier", ["wh_" + "0" * 32, "wh_x", "x", "evt_" + "0" * 32])
def test_an_id_of_nothing_is_not_found(api: TestClient, identifier: str) -> None:
    path = f"{WEBHOOKS}/{identifier}"
    answers = [
        api.get(path),
        api.patch(path, json={"name": "x"}),
        api.delete(path),
        api.post(f"{path}/rotate-secret"),
        api.post(f"{path}/test"),
        api.get(f"{path}/deliveries"),
        api.get(f"{path}/deliveries/evt_{'0' * 32}"),
        api.post(f"{path}/deliveries/evt_{'0' * 32}/resend"),
        api.post(f"{path}/resend", json={"since": "2026-01-01"}),
    ]

    assert {code_of(answer, 404) for answer in answers} == {"not_found"}
