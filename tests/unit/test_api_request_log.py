"""Every request has its id, one line in the log and its part of the metrics; streams pass as they come."""

import re
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from creditlane import Settings
from creditlane.producer.api.auth import Store
from creditlane.producer.api.errors import add_error_handlers
from creditlane.producer.api.metrics.requests import RequestMetrics
from creditlane.producer.api.middleware.request_log import RequestLog
from creditlane.producer.api.middleware.response_headers import SAFE_HEADERS
from creditlane.producer.api.middleware.stack import add_middleware
from creditlane.schemas.tickets import Ticket

Messages = list[dict[str, Any]]
KEY = "cl_0123456789abcdef_" + "5" * 48


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    add_error_handlers(app)

    @app.post("/items/{item}")
    async def take_item(item: str, request: Request) -> str:
        request.state.store = Store("store_a", 1, "0123456789abcdef")
        return item

    @app.get("/defect")
    async def meet_defect() -> None:
        raise RuntimeError("gone wrong")

    add_middleware(app, Settings())
    return app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def numbers(app: FastAPI, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(app.state.request_metrics.exposition().decode())
    return {
        tuple(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_a_request_has_one_line_with_its_id_and_no_secret(client: TestClient) -> None:
    with capture_logs() as lines:
        answer = client.post("/items/7?q=private", headers={"x-api-key": KEY}, json={"secret": "body"})

    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["log_level"] == "info"
    assert {name: line[name] for name in ("method", "path", "operation", "status", "store", "key_id")} == {
        "method": "POST",
        "path": "/items/7",
        "operation": "take_item",
        "status": 200,
        "store": "store_a",
        "key_id": "0123456789abcdef",
    }
    assert answer.headers["x-request-id"].startswith("req_")
    for secret in (KEY, "5" * 48, "private", "body"):
        assert secret not in repr(lines)


def test_a_ticket_is_not_logged_for_it_holds_the_idempotency_key(client: TestClient) -> None:
    ticket = str(Ticket("store_a", "cca_" + "0" * 32, "order-4711", "1-1", "f" * 32))
    with capture_logs() as lines:
        for path in (ticket, ticket, ticket.removeprefix("cmd_")):
            client.post(f"/items/{path}")

    first, second, without_prefix = [line["path"] for line in lines]
    assert first == second
    assert all(re.fullmatch(r"/items/cmd_[0-9a-f]{16}", path) for path in (first, without_prefix))


def test_an_id_that_a_client_sends_is_not_taken_for_ours(client: TestClient) -> None:
    answer = client.post("/items/7", headers={"x-request-id": "forged"})

    assert answer.headers.get_list("x-request-id") != ["forged"]
    assert len(answer.headers.get_list("x-request-id")) == 1


def test_an_error_body_shows_the_id_of_its_head(client: TestClient) -> None:
    answer = client.get("/nowhere")

    assert answer.status_code == 404
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


def test_a_defect_has_its_id_and_its_line(client: TestClient) -> None:
    with capture_logs() as lines:
        answer = client.get("/defect")

    (line,) = [line for line in lines if line["event"] == "request"]
    assert (answer.status_code, line["status"], line["log_level"]) == (500, 500, "error")
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
    assert "gone wrong" not in answer.text


def test_health_that_is_well_fills_no_log(client: TestClient) -> None:
    with capture_logs() as lines:
        assert client.get("/healthz").status_code == 200

    assert lines == []


def test_requests_are_counted_by_operation_and_status(app: FastAPI, client: TestClient) -> None:
    client.post("/items/1")
    client.post("/items/2")
    client.get("/items/1")
    client.get("/a/path/nobody/knows")

    assert numbers(app, "creditlane_http_requests_total") == {
        ("take_item", "200"): 2,
        ("take_item", "405"): 1,
        ("none", "404"): 1,
    }
    assert numbers(app, "creditlane_http_request_seconds_count")[("take_item",)] == 3
    assert numbers(app, "creditlane_http_requests_in_flight") == {(): 0}


def test_every_app_counts_for_itself() -> None:
    first, second = RequestMetrics(), RequestMetrics()
    first.note("x", 200, 0.1)

    assert b'operation="x"' in first.exposition()
    assert b'operation="x"' not in second.exposition()


async def test_an_answer_passes_as_it_comes_and_a_client_that_leaves_is_counted() -> None:
    seen: Messages = []
    metrics = RequestMetrics()

    async def stream(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"another")]})
        for number in range(2):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            # Each part has left before the next is made.
            assert seen[-1]["body"] == b"%d" % number

    async def leave(_scope: Any, _receive: Any, _send: Any) -> None:
        """The client has gone before there is an answer."""

    async def send(message: Any) -> None:
        seen.append(message)

    for app in (stream, leave):
        await RequestLog(app, metrics)(
            {"type": "http", "method": "GET", "path": "/", "headers": []},
            None,  # type: ignore[arg-type]
            send,
        )

    assert [name for name, _ in seen[0]["headers"]] == [*(name for name, _ in SAFE_HEADERS), b"x-request-id"]
    assert b'creditlane_http_requests_total{operation="none",status="none"} 1.0' in metrics.exposition()
