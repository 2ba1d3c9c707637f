"""What was sent to an endpoint is listed by index, however much it is, and sent again; callbacks too."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane.producer.client._async import ledger_reader
from creditlane.producer.ledger.statement import Statement

from ...described_events import assert_described
from .requests_of import ACCOUNTS, UNKNOWN_ACCOUNT, code_of, open_account

WEBHOOKS = "/v1/webhooks"
URL = "https://example.com/hook"
#: Of the busy endpoint; every thousandth failed, none is pending.
DELIVERIES = 40_000
ORIGINS = 50
#: Pages that one statement may touch. The tables have thousands.
MAX_PAGES = 1_000


def event(number: int) -> str:
    return f"evt_{number:032x}"


def callback_event(number: int) -> str:
    return f"evt_d{number:031x}"


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def busy(api: TestClient, database: psycopg.Connection[Any]) -> str:
    """An endpoint with many deliveries, and callbacks to many origins."""
    made = api.post(WEBHOOKS, json={"url": URL}).json()["id"]
    database.execute(
        "insert into deliveries (store_id, endpoint_id, event_id, status, attempts, created_at) "
        "select 1, %(endpoint)s, lpad(to_hex(n), 32, '0')::uuid, case when n %% 1000 = 0 then 3 else 2 end, 1, "
        "'2026-01-01'::timestamptz + n * interval '1 s' from generate_series(1, %(n)s) n",
        {"endpoint": made[3:], "n": DELIVERIES},
    )
    database.execute(
        "insert into events (store_id, event_id, event_type, created_at, body) "
        "select 1, event_id, 'balance.low', created_at, '{}' from deliveries"
    )
    database.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "select 1, lpad(to_hex(n), 32, 'c')::uuid, 2, 1, 'https://' || n, 'whsec_x' from generate_series(1, %s) n",
        [ORIGINS],
    )
    database.execute(
        "insert into deliveries (store_id, endpoint_id, event_id, status, created_at) select 1, "
        "lpad(to_hex(1 + n %% %(o)s), 32, 'c')::uuid, ('d' || lpad(to_hex(n), 31, '0'))::uuid, 2, "
        "'2026-01-01'::timestamptz + n * interval '1 s' from generate_series(1, %(n)s) n",
        {"o": ORIGINS, "n": DELIVERIES // 4},
    )
    database.execute("vacuum analyze")
    return str(made)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement[Any]]:
    """Everything that is asked of Postgres about webhooks, as it comes."""
    seen: list[Statement[Any]] = []
    run = ledger_reader.AsyncLedgerReader.run

    async def note(self: ledger_reader.AsyncLedgerReader, statement: Statement[Any]) -> Any:
        seen.append(statement)
        return await run(self, statement)

    monkeypatch.setattr(ledger_reader.AsyncLedgerReader, "run", note)
    return seen


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def test_every_list_walks_indexes_and_touches_few_pages(
    api: TestClient, busy: str, statements: list[Statement[Any]], database: psycopg.Connection[Any]
) -> None:
    of_webhook, middle = f"{WEBHOOKS}/{busy}/deliveries", event(DELIVERIES // 2)
    callbacks, callback = f"{WEBHOOKS}/callbacks/deliveries", callback_event(5_000)
    paths = [
        f"{of_webhook}?limit=100",
        f"{of_webhook}?limit=100&starting_after={middle}",
        f"{of_webhook}?limit=100&status=failed",
        f"{of_webhook}?limit=100&status=failed&starting_after={middle}",
        f"{of_webhook}?limit=100&status=pending",
        f"{of_webhook}?limit=100&status=delivered&starting_after={middle}",
        f"{of_webhook}/{middle}",
        callbacks,
        f"{callbacks}?starting_after={callback}",
        f"{callbacks}/{callback}",
    ]
    for path in paths:
        statements.clear()
        answer = api.get(path)
        assert answer.status_code == 200, answer.text
        for statement in statements:
            (text,) = statement.texts
            explain = f"explain (analyze, buffers, format json) {text}"
            record = database.execute(explain.encode(), statement.values).fetchone()
            assert record is not None
            plan = record[0][0]["Plan"]
            scans = {node["Node Type"] for node in nodes(plan) if node.get("Relation Name") in {"deliveries", "events"}}
            pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert scans <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, json.dumps(plan, indent=1)
            assert pages < MAX_PAGES, f"{path} touches {pages} pages: {json.dumps(plan, indent=1)}"


def test_pages_meet_without_gap_or_overlap(api: TestClient, busy: str) -> None:
    def pages(path: str, **parameters: Any) -> list[str]:
        seen: list[str] = []
        while True:
            page = api.get(path, params=parameters).json()
            seen += [item["event_id"] for item in page["data"]]
            if not page["has_more"]:
                return seen
            parameters["starting_after"] = seen[-1]

    failed = pages(f"{WEBHOOKS}/{busy}/deliveries", status="failed", limit=7)
    assert failed == [event(number) for number in range(DELIVERIES, 0, -1_000)]
    first = api.get(f"{WEBHOOKS}/callbacks/deliveries", params={"limit": 100}).json()["data"]
    assert [item["event_id"] for item in first] == [
        callback_event(number) for number in range(DELIVERIES // 4, DELIVERIES // 4 - 100, -1)
    ]


def test_a_delivery_shows_how_it_went(api: TestClient, database: psycopg.Connection[Any]) -> None:
    made = api.post(WEBHOOKS, json={"url": URL}).json()
    sent = api.post(f"{WEBHOOKS}/{made['id']}/test").json()
    database.execute(
        "update deliveries set attempts = 2, response_status = 503, latency_ms = 35, response_body = 'busy', "
        "last_attempt_at = now(), next_attempt_at = now() + interval '5 min'"
    )

    shown = api.get(f"{WEBHOOKS}/{made['id']}/deliveries/{sent['event_id']}").json()
    listed = api.get(f"{WEBHOOKS}/{made['id']}/deliveries").json()

    body = json.loads(shown.pop("body"))
    assert_described([body])
    assert (body["id"], body["eventType"]) == (sent["event_id"], "webhook.test")
    assert body["object"] == {"object": "webhook_test", "webhook_id": made["id"], "store_id": "store_default"}
    assert listed == {"object": "list", "data": [shown], "has_more": False}
    names = ("status", "attempts", "response_status", "latency_ms", "response_body", "error", "url")
    assert [shown[name] for name in names] == ["pending", 2, 503, 35, "busy", None, None]
    assert shown["next_attempt_at"] > shown["last_attempt_at"] >= shown["created_at"]


def test_what_failed_is_sent_again(api: TestClient, busy: str) -> None:
    path = f"{WEBHOOKS}/{busy}"

    since = "2026-01-01T00:00:00Z"
    one = api.post(f"{path}/deliveries/{event(1_000)}/resend").json()
    rest = api.post(f"{path}/resend", json={"since": since}).json()

    assert (one["event_id"], one["status"], one["attempts"]) == (event(1_000), "pending", 0)
    assert rest == {"object": "webhook_resend", "count": DELIVERIES // 1_000 - 1, "has_more": False}
    assert api.post(f"{path}/resend", json={"since": since}).json()["count"] == 0
    assert code_of(api.post(f"{path}/resend", json={"since": "soon"}), 400) == "validation_error"


def test_a_disabled_endpoint_is_sent_nothing(api: TestClient) -> None:
    made = api.post(WEBHOOKS, json={"url": URL}).json()
    sent = api.post(f"{WEBHOOKS}/{made['id']}/test").json()["event_id"]
    path = f"{WEBHOOKS}/{made['id']}"
    api.patch(path, json={"status": "disabled"})

    answers = [
        api.post(f"{path}/test"),
        api.post(f"{path}/deliveries/{sent}/resend"),
        api.post(f"{path}/resend", json={"since": "2026-01-01"}),
    ]

    assert [code_of(answer, 409) for answer in answers] == ["webhook_disabled"] * 3


def test_a_given_up_origin_gets_another_chance_when_a_callback_is_sent_again(
    api: TestClient, database: psycopg.Connection[Any], busy: str
) -> None:
    assert busy
    database.execute("update webhook_endpoints set status = 2, disabled_reason = 'it failed' where kind = 2")

    again = api.post(f"{WEBHOOKS}/callbacks/deliveries/{callback_event(1)}/resend").json()

    assert (again["status"], again["attempts"]) == ("pending", 0)
    rows = database.execute("select status, count(*) from webhook_endpoints where kind = 2 group by 1 order by 1")
    assert rows.fetchall() == [(1, 1), (2, ORIGINS - 1)]


@pytest.mark.usefixtures("running_worker")
def test_an_account_shows_its_threshold_only_where_there_is_one(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}"

    answers = [api.patch(path, json={"low_balance": threshold}) for threshold in ("100", None)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["low_balance"] == "100"
    assert "low_balance" not in answers[1].json()
    assert "low_balance" not in api.get(ACCOUNTS).json()["data"][0]
    for wrong in ({}, {"low_balance": 100}, {"low_balance": "1.5"}, {"low_balance": "1", "name": "x"}):
        assert code_of(api.patch(path, json=wrong), 400) == "validation_error"
    assert code_of(api.patch(f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}", json={"low_balance": "1"}), 404) == "not_found"
    api.post(f"{path}/close")
    assert code_of(api.patch(path, json={"low_balance": "1"}), 409) == "account_closed"
