"""What operators' tools see: life, readiness and numbers."""

import signal
import subprocess
from collections.abc import Callable

import psycopg
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from creditlane import Client, Debit, Settings
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedRedis

MakeApi = Callable[[Settings], TestClient]
StartWorker = Callable[[], "subprocess.Popen[bytes]"]
ACCOUNT = "cca_" + "5e" * 16
AWAY = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}
READY = {"status": "ready", "problems": {}}


def numbers(api: TestClient) -> dict[tuple[str, ...], float]:
    """Return the value of every sample by its name and the values of its labels, without the ids of workers."""
    answer = api.get("/metrics", headers={"x-api-key": ""})
    assert answer.status_code == 200
    return {
        (sample.name, *(value for label, value in sample.labels.items() if label != "worker")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def is_ready(api: TestClient) -> bool:
    return api.get("/readyz").json() == READY


def test_ready_is_who_has_servers_and_a_worker_for_every_lane(api: TestClient, start_worker: StartWorker) -> None:
    before = api.get("/readyz", headers={"x-api-key": ""})
    assert before.status_code == 503
    assert before.json() == {
        "status": "not_ready",
        "problems": {
            "lanes": "8 of 8 have no living worker (0, 1, 2, 3, 4, 5, 6, 7); start `creditlane worker`",
        },
    }

    worker = start_worker()
    assert wait_until(lambda: is_ready(api), seconds=20)
    assert api.get("/readyz").status_code == 200

    worker.send_signal(signal.SIGTERM)
    assert wait_until(lambda: api.get("/readyz").status_code == 503, seconds=20)


def test_what_is_away_is_named_and_its_address_is_not(make_api: MakeApi, settings: Settings) -> None:
    answer = make_api(settings.model_copy(update=AWAY)).get("/readyz")

    assert answer.status_code == 503
    assert set(answer.json()["problems"]) == {"redis", "postgres"}
    assert "127.0.0.1" not in answer.text
    assert "nobody" not in answer.text


def test_a_schema_of_another_version_is_not_ready(api: TestClient, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update alembic_version set version_num = '0001'")

    problems = api.get("/readyz").json()["problems"]

    assert list(problems) == ["postgres"]
    assert "creditlane migrate" in problems["postgres"]


def test_redis_that_comes_back_is_ready_again(
    make_api: MakeApi, settings: Settings, own_redis: Callable[[], EmbeddedRedis], start_worker: StartWorker
) -> None:
    assert start_worker()
    server = own_redis()
    api = make_api(settings.model_copy(update={"redis_url": server.url}))
    assert wait_until(lambda: is_ready(api), seconds=20)

    server.kill()
    assert "redis" in api.get("/readyz").json()["problems"]

    server.start()
    assert wait_until(lambda: is_ready(api), seconds=20)


def test_life_depends_on_nothing(make_api: MakeApi, settings: Settings) -> None:
    answer = make_api(settings.model_copy(update=AWAY)).get("/healthz", headers={"x-api-key": ""})

    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_what_waits_on_the_lanes_is_seen(api: TestClient, settings: Settings) -> None:
    with Client(settings) as client:
        client.enqueue_many(
            [Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key=f"{n}") for n in range(3)]
        )

    assert wait_until(lambda: max_lag(numbers(api)) > 0.05, seconds=10)
    seen = numbers(api)
    backlog = [value for key, value in seen.items() if key[0] == "creditlane_lane_backlog"]
    assert sorted(backlog) == [0] * 7 + [3]
    assert sum(value for key, value in seen.items() if key[0] == "creditlane_lane_owned") == 0


def max_lag(seen: dict[tuple[str, ...], float]) -> float:
    return max(value for key, value in seen.items() if key[0] == "creditlane_lane_lag_seconds")


def test_what_workers_count_is_seen(api: TestClient, settings: Settings, start_worker: StartWorker) -> None:
    assert start_worker()
    with Client(settings) as client:
        account = client.open_account(customer_id="c", initial_balance=10).id
        client.debit(account, 4, reference="r", idempotency_key="a")
        client.debit(account, 4, reference="r", idempotency_key="a")
        tickets = client.enqueue_many(
            [Debit(account_id=account, amount=9, reference="r", idempotency_key=f"b{n}") for n in range(2)]
        )
        list(client.wait_many(tickets))

    assert wait_until(lambda: numbers(api).get(("creditlane_commands_total", "insufficient_balance")) == 2, seconds=20)
    seen = numbers(api)
    assert seen["creditlane_commands_total", "applied"] == 2
    assert seen["creditlane_commands_total", "replayed"] == 1
    assert seen[("creditlane_batch_commands_sum",)] == 5
    assert seen[("creditlane_batch_seconds_sum",)] > 0
    assert seen["creditlane_worker_lane_changes_total", "gained"] == 8
    assert sum(value for key, value in seen.items() if key[0] == "creditlane_lane_owned") == 8


def test_dead_letters_are_counted(api: TestClient, database_url: str) -> None:
    assert numbers(api)[("creditlane_dead_letters",)] == 0
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into dead_letters (store_id, dead_letter_id, partition, lane_entry, payload, code, reason) "
            "values (0, gen_random_uuid(), 0, '1-1', 'x', 'undecodable', 'r')"
        )

    assert numbers(api)[("creditlane_dead_letters",)] == 1


def test_numbers_that_can_be_had_are_shown_without_the_rest(make_api: MakeApi, settings: Settings) -> None:
    without_redis = numbers(make_api(settings.model_copy(update={"redis_url": AWAY["redis_url"]})))
    assert without_redis["creditlane_reachable", "redis"] == 0
    assert without_redis[("creditlane_dead_letters",)] == 0

    without_both = numbers(make_api(settings.model_copy(update=AWAY)))
    assert without_both["creditlane_reachable", "postgres"] == 0
    assert ("creditlane_dead_letters",) not in without_both
    assert ("creditlane_http_requests_in_flight",) in without_both
