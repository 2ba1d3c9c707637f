"""Servers go away and come back: never a false success, no request hangs, and the API recovers by itself."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.audit.whole import verify
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.producer.api.app import create_app
from creditlane.producer.operations.api_keys import create_key

from ...roles import migrate_with_roles
from .requests_of import ACCOUNTS, COMMANDS, DEADLINE_SECONDS, balance, code_of, open_account

#: How long the API waits for a result here, in seconds.
WAIT_SECONDS = 1.0
#: How long any request may take while a server is down, in seconds.
MAX_ANSWER_SECONDS = 25.0
#: By how much an answer may be later than its wait on a busy machine, in seconds.
MARGIN_SECONDS = 5.0
BODY = {"amount": "1", "reference": "r"}


@pytest.fixture
def postgres(own_postgres: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
    return own_postgres()


@pytest.fixture
def redis_of_test(own_redis: Callable[[], EmbeddedRedis]) -> EmbeddedRedis:
    return own_redis()


@pytest.fixture
def settings(postgres: EmbeddedPostgres, redis_of_test: EmbeddedRedis) -> Settings:
    """Settings that reach servers of this test's own."""
    url = postgres.create_database("outages")
    migrate_with_roles(url, 8)
    return Settings(redis_url=redis_of_test.url, database_url=url, wait_timeout_seconds=WAIT_SECONDS)


@pytest.fixture
def api(settings: Settings, start_worker: Callable[[], object]) -> Iterator[TestClient]:
    start_worker()
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        key = create_key(connection, settings.store, "test")
    with TestClient(create_app(settings), headers={"x-api-key": key}, raise_server_exceptions=False) as client:
        yield client


def until(attempt: Callable[[], Any], *statuses: int) -> Any:
    """Return the first answer of one of these statuses, within the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (answer := attempt()).status_code not in statuses:
        assert time.monotonic() < deadline, answer.text
    return answer


def quick(attempt: Callable[[], Any]) -> Any:
    started = time.monotonic()
    answer = attempt()
    assert time.monotonic() - started < MAX_ANSWER_SECONDS
    return answer


def timed(attempt: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return attempt(), time.monotonic() - started


def opened(api: TestClient) -> dict[str, Any]:
    # The worker may need longer to start than the API waits.
    body = {"customer_id": "c", "initial_balance": "100", "idempotency_key": "open"}
    account: dict[str, Any] = until(lambda: api.post(ACCOUNTS, json=body), 201).json()
    return account


def test_without_postgres_nothing_is_claimed_and_everything_comes_back(
    api: TestClient, postgres: EmbeddedPostgres, settings: Settings
) -> None:
    account = opened(api)
    path = f"{ACCOUNTS}/{account['id']}"

    postgres.stop(immediate=True)
    read = quick(lambda: api.get(path))
    writes = [
        quick(lambda number=number: api.post(f"{path}/debit", json={**BODY, "idempotency_key": f"{number}"}))
        for number in range(2)
    ]
    postgres.start()
    after = [
        until(lambda n=number: api.post(f"{path}/debit", json={**BODY, "idempotency_key": f"{n}"}), 201)
        for number in range(2)
    ]

    assert code_of(read, 503) == "unavailable"
    assert read.headers["retry-after"]
    assert {answer.status_code for answer in writes} == {503}
    assert len({answer.json()["id"] for answer in after}) == 2
    assert balance(api, account) == "98"
    assert verify(settings.require_database_url()).discrepancies == 0


def test_without_redis_writes_are_refused_and_reads_go_on(api: TestClient, redis_of_test: EmbeddedRedis) -> None:
    account = opened(api)
    path = f"{ACCOUNTS}/{account['id']}"
    body = {**BODY, "idempotency_key": "1"}

    redis_of_test.kill()
    write = quick(lambda: api.post(f"{path}/debit", json=body))
    at_once = quick(lambda: api.post(f"{path}/debit", json=body, headers={"Prefer": "respond-async"}))
    read = api.get(path)
    redis_of_test.start()
    done = until(lambda: api.post(f"{path}/debit", json=body), 201)

    assert code_of(write, 503) in {"unavailable", "timeout"}
    assert code_of(at_once, 503) in {"unavailable", "timeout"}
    assert (read.status_code, read.json()["balance"]) == (200, "100")
    assert done.json()["entries"][0]["balance_after"] == "99"
    assert balance(api, account) == "99"


def test_while_redis_is_stopped_every_write_is_answered_within_its_wait(
    api: TestClient, redis_of_test: EmbeddedRedis
) -> None:
    account = opened(api)
    path = f"{ACCOUNTS}/{account['id']}"
    assert redis_of_test.pid is not None

    os.kill(redis_of_test.pid, signal.SIGSTOP)
    try:
        writes = [
            timed(
                lambda headers=headers: api.post(
                    f"{path}/debit", json={**BODY, "idempotency_key": "1"}, headers=headers
                )
            )
            for headers in ({}, {"Prefer": "respond-async"})
        ]
        lines, line_seconds = timed(
            lambda: api.post(COMMANDS, content=b'{"kind": "freeze", "account_id": "%s"}' % account["id"].encode())
        )
        ready, ready_seconds = timed(lambda: api.get("/readyz"))
    finally:
        os.kill(redis_of_test.pid, signal.SIGCONT)
    done = until(lambda: api.post(f"{path}/debit", json={**BODY, "idempotency_key": "1"}), 201)

    # What was written on an open connection may have been accepted; where none could be made, nothing was.
    assert {code_of(answer, 503) for answer, _seconds in writes} <= {"timeout", "unavailable"}
    assert max(seconds for _answer, seconds in writes) < WAIT_SECONDS + MARGIN_SECONDS
    assert code_of(lines, 503) in {"timeout", "unavailable"}
    assert line_seconds < WAIT_SECONDS + MARGIN_SECONDS
    assert (ready.status_code, list(ready.json()["problems"])) == (503, ["redis"])
    assert ready_seconds < 3 + MARGIN_SECONDS
    assert done.json()["entries"][0]["balance_after"] == "99"


@pytest.mark.parametrize("change", [("REPLICAOF", "127.0.0.1", "1"), ("CONFIG", "SET", "maxmemory", "1")])
def test_a_redis_that_takes_no_writes_is_not_ready(
    api: TestClient, redis_of_test: EmbeddedRedis, change: tuple[str, ...]
) -> None:
    opened(api)
    with redis.Redis.from_url(redis_of_test.url) as connection:
        connection.execute_command(*change)

        problems = api.get("/readyz").json()["problems"]
        write = quick(lambda: api.post(ACCOUNTS, json={"customer_id": "d", "idempotency_key": "d"}))
        for undo in (("REPLICAOF", "NO", "ONE"), ("CONFIG", "SET", "maxmemory", "0")):
            connection.execute_command(*undo)

    assert "takes no writes" in problems["redis"]
    assert code_of(write, 503) == "unavailable"
    until(lambda: api.post(ACCOUNTS, json={"customer_id": "d", "idempotency_key": "d"}), 201)
    assert "redis" not in api.get("/readyz").json()["problems"]


def test_the_api_starts_before_its_servers(
    settings: Settings, postgres: EmbeddedPostgres, redis_of_test: EmbeddedRedis, start_worker: Callable[[], object]
) -> None:
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        key = create_key(connection, settings.store, "test")
    postgres.stop(immediate=True)
    redis_of_test.kill()

    with TestClient(create_app(settings), headers={"x-api-key": key}, raise_server_exceptions=False) as api:
        down = quick(lambda: api.get(ACCOUNTS))
        postgres.start()
        redis_of_test.start()
        start_worker()
        up = until(lambda: api.get(ACCOUNTS), 200)
        until(lambda: api.post(ACCOUNTS, json={"customer_id": "c", "idempotency_key": "k"}), 201)

        assert code_of(down, 503) == "unavailable"
        assert up.json()["data"] == []
        assert open_account(api, name="second")["status"] == "active"
