"""What waits for the end of an upgrade says so to who asks for it, and to the operator, until the end."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Client, UpgradeUnfinished
from creditlane.local.processes import wait_until
from creditlane.producer.api.errors import problem_of_rejection
from creditlane.producer.operations.lane_status import read_lanes
from creditlane.schemas.commands import Hold
from creditlane.schemas.results import ErrorDetail
from creditlane.schemas.settings import Settings

from .requests_of import ACCOUNTS, COMMANDS, code_of
from .test_monitoring import numbers

ACCOUNT = "cca_" + "5e" * 16
HOLD = Hold(account_id=ACCOUNT, amount=5, reference="r", idempotency_key="hold")
#: One that takes no share of the lanes, since it does not get on.
OLD_WORKER = """
insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck)
values ('secret-host-1-0a1b', 'secret-host', 1, clock_timestamp() + interval '300 s', '{}', 300, true)
"""


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def ledger(
    database_url: str, client: Client, start_worker: Callable[[], object]
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A ledger of the release before, just migrated, with a worker of each release."""
    start_worker()
    client.open_account(account_id=ACCOUNT, customer_id="c", initial_balance=5, idempotency_key="open")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update installation set required_release = 0")
        connection.execute(OLD_WORKER)
        yield connection


def test_who_asks_for_what_is_new_hears_of_the_upgrade_and_so_does_the_operator(
    api: TestClient, client: Client, settings: Settings, ledger: psycopg.Connection[tuple[Any, ...]]
) -> None:
    assert "upgrade" not in api.get("/readyz").json()["warnings"]
    assert read_lanes(settings).upgrade_problem is None

    ticket = client.enqueue(HOLD)
    result = client.wait(ticket)
    with pytest.raises(UpgradeUnfinished, match="under the same key"):
        result.raise_for_rejection()
    polled = api.get(f"{COMMANDS}/{ticket}").json()
    assert (polled["status"], polled["error"]["code"]) == ("rejected", "upgrade_unfinished")

    body = {"amount": "5", "reference": "r", "idempotency_key": "over HTTP"}
    answer = api.post(f"{ACCOUNTS}/{ACCOUNT}/holds", json=body)
    assert (code_of(answer, 503), answer.headers["retry-after"]) == ("upgrade_unfinished", "10")

    # The worker says with its next heartbeat what it has refused.
    assert wait_until(lambda: "2 commands" in api.get("/readyz").json()["warnings"].get("upgrade", ""), seconds=30)
    assert api.get("/readyz").status_code == 200
    report = read_lanes(settings)
    assert report.upgrade_problem is not None
    assert report.faults == []
    assert f"upgrade: {report.upgrade_problem}" in report.problems
    assert wait_until(lambda: numbers(api)["creditlane_older_workers",] == 1, seconds=30)
    assert numbers(api)["creditlane_commands_total", "upgrade_unfinished"] == 2

    ledger.execute("delete from workers where worker_id like 'secret%'")
    assert client.wait(client.enqueue(HOLD)).status == "applied"
    assert wait_until(lambda: api.get("/readyz").json()["warnings"] == {}, seconds=30)
    assert wait_until(lambda: numbers(api)["creditlane_older_workers",] == 0, seconds=30)


def test_it_is_worth_trying_again_a_little_later() -> None:
    problem = problem_of_rejection(ErrorDetail(code="upgrade_unfinished", message="stop the old ones"))

    assert (problem.status, problem.code, problem.headers) == (503, "upgrade_unfinished", {"Retry-After": "10"})
    assert "stop" not in problem.message
