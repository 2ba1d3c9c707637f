"""HEAD is answered wherever GET is, with the same head and no body."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.api.app import create_app

from .requests_of import ACCOUNTS, DEADLINE_SECONDS, code_of, open_account

pytestmark = pytest.mark.usefixtures("running_worker")

PAGES = ["/healthz", "/metrics", "/docs", "/docs/start.js", "/openapi.json", "/none"]
PATHS = sorted(path for path, methods in create_app(Settings()).openapi()["paths"].items() if "get" in methods)
#: Of one request alone, or of its moment.
OWN = {"x-request-id", "date"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def head_of(answer: Any) -> tuple[int, dict[str, str]]:
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    # What is counted and timed between the two requests has another length.
    return answer.status_code, {**headers, "content-length": str("content-length" in headers)}


def test_head_is_answered_as_get_on_every_path(api: TestClient) -> None:
    account = open_account(api)

    for path in (*PAGES, *(re.sub(r"\{\w+\}", account["id"], path) for path in PATHS)):
        get, head = api.get(path), api.head(path)

        assert head_of(head) == head_of(get), path
        assert (head.content, bool(get.content)) == (b"", True), path
    # Whether it is ready may change between the two.
    ready = api.head("/readyz")
    assert (ready.status_code in {200, 503}, ready.content) == (True, b"")


def test_head_needs_a_key_where_get_does(api: TestClient) -> None:
    assert api.head(ACCOUNTS, headers={"x-api-key": "none"}).status_code == 401


def test_head_where_there_is_no_get_is_answered_with_what_there_is(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}"

    head, deleted = api.head(f"{path}/freeze"), api.delete(path)

    assert (head.status_code, head.headers["allow"]) == (405, "POST")
    assert code_of(deleted, 405) == "method_not_allowed"
    assert deleted.headers["allow"] == "GET, HEAD, PATCH"
    assert api.get(path).json()["status"] == "active"


def test_head_is_counted_as_its_operation(api: TestClient) -> None:
    path = f"{ACCOUNTS}/{open_account(api)['id']}"

    api.head(path)

    assert 'creditlane_http_requests_total{operation="get_account",status="200"} 1.0' in api.get("/metrics").text
