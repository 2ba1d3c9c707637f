"""The key comes first: without one that works nothing is read; who has none is slowed, counted, and learns little."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from creditlane import Settings
from creditlane.producer.api.console.pages import SWAGGER_UI_VERSION
from creditlane.producer.api.errors import MAX_NAMED_FIELDS
from creditlane.producer.api.middleware.body_fields import MAX_FIELDS

from .requests_of import ACCOUNTS, COMMANDS, DEADLINE_SECONDS, TRANSACTIONS, UNKNOWN_ACCOUNT, code_of

MakeApi = Callable[[Settings], TestClient]
UNKNOWN_KEY = "cl_" + "0" * 16 + "_" + "0" * 48
WITH_BODIES = [ACCOUNTS, f"{ACCOUNTS}/{UNKNOWN_ACCOUNT}/debit", TRANSACTIONS, COMMANDS, "/v1/webhooks", "/v1/no/such"]


@pytest.fixture
def connect(start_api: Callable[..., tuple[Any, str]]) -> Iterator[Callable[[], socket.socket]]:
    """Opens connections to an API process."""
    parts = urlsplit(start_api()[1])
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        assert parts.hostname is not None
        assert parts.port is not None
        opened.append(socket.create_connection((parts.hostname, parts.port), DEADLINE_SECONDS))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("key", [None, "wrong", UNKNOWN_KEY])
def test_no_byte_of_a_body_is_waited_for_without_a_key(connect: Callable[[], socket.socket], key: str | None) -> None:
    """Given heads that announce a body which never comes, then each is answered all the same, on either way."""
    for path in WITH_BODIES:
        lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", "content-length: 1000000"]
        if key is not None:
            lines.append(f"x-api-key: {key}")
        with closing(connect()) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())

            assert connection.makefile("rb").readline().split()[1] == b"401", path


def test_a_body_is_judged_only_with_a_key(api: TestClient) -> None:
    body = json.dumps({f"unknown_{number}": 1 for number in range(50_000)}).encode()
    json_type = {"content-type": "application/json"}
    for path in WITH_BODIES[:3]:
        assert code_of(api.post(path, content=body, headers={"x-api-key": UNKNOWN_KEY, **json_type}), 401)

        refused = api.post(path, content=body, headers=json_type)

        assert code_of(refused, 400) == "validation_error"
        assert f"more than {MAX_FIELDS} fields" in refused.json()["error"]["message"]


def test_an_answer_names_no_more_than_some_of_many_unknown_fields(api: TestClient) -> None:
    answer = api.post(ACCOUNTS, json={"x" * 1_000 + str(number): 1 for number in range(15)} | {"customer_id": 1})
    many = api.post(ACCOUNTS, json={f"unknown_{number}": 1 for number in range(700)})

    assert code_of(answer, 400) == code_of(many, 400) == "validation_error"
    message = many.json()["error"]["message"]
    assert message.count("unknown_") == MAX_NAMED_FIELDS - 1
    assert message.endswith(f"; and {701 - MAX_NAMED_FIELDS} more")
    assert max(len(answer.content), len(many.content)) < 16_000


def test_wrong_keys_are_refused_after_a_number_and_a_right_one_is_not(
    make_api: MakeApi, settings: Settings, api_key: str
) -> None:
    api = make_api(settings.model_copy(update={"api_wrong_keys_per_minute": 3}))
    wrong = {"x-api-key": UNKNOWN_KEY}

    with capture_logs() as lines:
        answers = [api.get(ACCOUNTS, headers=wrong) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert code_of(answers[-1], 429) == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert {line["key_id"] for line in lines if line["event"] == "request"} == {"0" * 16}
    # From the same address; and it takes nothing away from what is counted.
    assert api.get(ACCOUNTS, headers={"x-api-key": api_key}).status_code == 200
    assert api.get(ACCOUNTS, headers=wrong).status_code == 429
    del api.headers["x-api-key"]
    assert api.get(ACCOUNTS).status_code == 401
    shown = api.get("/metrics").text
    assert 'creditlane_http_refused_keys_total{reason="wrong"} 6.0' in shown
    assert 'creditlane_http_refused_keys_total{reason="missing"} 1.0' in shown


class SlowPace:
    """Lets everybody wait for so long."""

    seconds = 0.2

    def __init__(self) -> None:
        self.asked = 0

    def delay(self, _address: str) -> float:
        self.asked += 1
        return self.seconds


def test_who_has_no_key_waits_for_its_turn_and_who_has_one_does_not(api: TestClient) -> None:
    api.app.state.address_limits.pace = pace = SlowPace()  # type: ignore[attr-defined]
    requests = [("/healthz", ""), ("/none", ""), (ACCOUNTS, ""), (ACCOUNTS, UNKNOWN_KEY)]

    began = time.monotonic()
    statuses = [api.get(path, headers={"x-api-key": key}).status_code for path, key in requests]

    assert statuses == [200, 404, 401, 401]
    assert time.monotonic() - began >= len(requests) * SlowPace.seconds
    assert pace.asked == len(requests)
    assert api.get(ACCOUNTS).status_code == 200
    assert pace.asked == len(requests)


@pytest.mark.parametrize("path", [ACCOUNTS, "/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/none"])
def test_every_answer_is_kept_nowhere_and_is_what_its_type_says(api: TestClient, path: str) -> None:
    headers = api.get(path).headers

    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert ("script-src" in policy) == (path == "/docs")


def test_the_page_of_operations_loads_nothing_from_elsewhere(api: TestClient) -> None:
    page = api.get("/docs")
    names = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon.png")

    assert "//" not in page.text
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for name in names:
        assert f'"docs/{name}"' in page.text
        file = api.get(f"/docs/{name}")
        assert (file.status_code, file.headers["x-content-type-options"]) == (200, "nosniff")
        assert len(file.content) == int(file.headers["content-length"]) > 0
    assert b"SwaggerUIBundle" in api.get("/docs/swagger-ui-bundle.js").content
    assert api.get("/docs/no-such").status_code == 404


def test_the_licences_of_what_the_page_is_made_of_are_beside_it(api: TestClient) -> None:
    page, bundle = api.get("/docs").text, api.get("/docs/swagger-ui-bundle.js").text
    names = ("LICENSE.txt", "NOTICE.txt", "swagger-ui-bundle.js.LICENSE.txt")
    licence, notice, of_parts = (api.get(f"/docs/{name}") for name in names)

    assert all(f'href="docs/{name}"' in page for name in names)
    assert all(file.headers["content-type"].startswith("text/plain") for file in (licence, notice, of_parts))
    assert "Apache License" in licence.text
    assert "SmartBear" in notice.text
    # The bundle names this file for the licences of its parts; they change with its version.
    assert bundle.startswith(f"/*! For license information please see {names[2]} */")
    assert "Facebook" in of_parts.text
    assert f'PACKAGE_VERSION:"{SWAGGER_UI_VERSION}"' in bundle


def test_the_first_page_says_where_to_go(api: TestClient) -> None:
    page = api.get("/", headers={"x-api-key": ""})

    assert page.status_code == 200
    links = re.findall(r'href="([^"]+)"', page.text)
    assert links == ["docs", "openapi.json", "readyz"]
    assert all(api.get(f"/{link}").status_code != 404 for link in links)


def test_the_document_is_made_once(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    build = api.app.openapi  # type: ignore[attr-defined]
    monkeypatch.setattr(api.app, "openapi", lambda: made.append(1) or build())

    first, second = (api.get("/openapi.json", headers={"x-api-key": ""}) for _ in range(2))

    assert first.json()["openapi"].startswith("3.")
    assert first.content == second.content
    assert len(made) == 1


def test_the_metrics_are_made_anew_once_a_second(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    counted = api.app.state.request_metrics  # type: ignore[attr-defined]
    build = counted.exposition
    monkeypatch.setattr(counted, "exposition", lambda: made.append(1) or build())
    began = time.monotonic()

    for _ in range(50):
        assert api.get("/metrics").status_code == 200

    # One more for a second that had begun.
    assert len(made) <= time.monotonic() - began + 1
