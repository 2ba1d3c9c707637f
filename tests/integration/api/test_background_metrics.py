"""What `/metrics` shows of the work beside the lanes, and that showing it stays cheap."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from creditlane import Settings
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.producer.api.metrics import background as background_metrics
from creditlane.producer.operations.books_status import READ_RECONCILIATIONS

from ...query_plans import nodes_of

#: Endpoints: 1 works, 2 fails, 3 is disabled, 4 was deleted, 5 asked to be left alone; and one origin of callbacks.
ENDPOINTS = """
insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret, failing_since, paused_until)
select 1, lpad(n::text, 32, '0')::uuid, case n when 6 then 2 else 1 end,
    case n when 3 then 2 when 4 then 3 else 1 end, 'https://example.com/' || n, 'whsec_AAAA',
    case n when 2 then now() end, case n when 5 then now() + interval '1 hour' end
from generate_series(1, 6) as n
"""

INSERT_DELIVERIES = """
insert into deliveries (store_id, endpoint_id, event_id, status, attempts, created_at, next_attempt_at)
select 1, lpad(%(endpoint)s::text, 32, '0')::uuid, gen_random_uuid(), %(status)s, %(attempts)s,
    now() - make_interval(secs => %(age)s),
    case %(status)s when 1 then now() - make_interval(secs => %(overdue)s) end
from generate_series(1, %(count)s)
"""

INSERT_RUNS = """
insert into job_runs (name, due_at, status, owner, owner_until, finished_at)
select %(name)s, now() - make_interval(secs => %(age)s + n), %(status)s,
    case %(status)s when 2 then 'w' end, case %(status)s when 2 then now() end,
    case when %(status)s > 2 then now() - make_interval(secs => %(age)s) end
from generate_series(1, %(count)s) as n
"""

INSERT_PROOF = """
insert into reconciliations (run_id, kind, covered_until, finished_at, rows, discrepancies, findings)
values (%(run)s, %(kind)s, now(), now() - make_interval(secs => %(age)s), %(rows)s, %(discrepancies)s, '[]')
"""

Numbers = dict[tuple[str, ...], float]
ENDPOINT_STATES = ("enabled", "failing", "disabled")
PENDING, FAILED = ("creditlane_deliveries", "waiting"), ("creditlane_deliveries", "failed")
ENABLED = ("creditlane_webhook_endpoints", "endpoint", "enabled")
REFUSED = ("creditlane_refused_jobs_total", "jobs")
WHOLE = ("creditlane_proof_age_seconds", "whole")


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that may write what the jobs write."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def numbers(api: TestClient, *wanted: tuple[str, ...]) -> Numbers:
    """Return what `/metrics` shows once these are shown: on a busy machine, a read may take too long."""
    seen: list[Numbers] = []

    def read() -> bool:
        seen.append(read_once(api))
        return set(wanted or (PENDING, FAILED, ENABLED, REFUSED)) <= seen[-1].keys()

    assert wait_until(read, seconds=30)
    return seen[-1]


def read_once(api: TestClient) -> Numbers:
    answer = api.get("/metrics", headers={"x-api-key": ""})
    assert answer.status_code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def deliver(owner: psycopg.Connection[Any], endpoint: int, count: int = 1, **values: int) -> None:
    defaults = {"status": 1, "attempts": 0, "age": 10, "overdue": 0}
    owner.execute(INSERT_DELIVERIES, {**defaults, **values, "endpoint": endpoint, "count": count})


def run(owner: psycopg.Connection[Any], name: str, status: int, *, age: int, count: int = 1) -> None:
    owner.execute(INSERT_RUNS, {"name": name, "status": status, "age": age, "count": count})


def prove(owner: psycopg.Connection[Any], kind: int, *, age: int, rows: int = 5, discrepancies: int = 0) -> None:
    ((number,),) = owner.execute("select count(*) from reconciliations").fetchall()
    values = {"run": number, "kind": kind, "age": age, "rows": rows, "discrepancies": discrepancies}
    owner.execute(INSERT_PROOF, values)


def test_a_ledger_without_any_of_it_has_zeros_and_no_ages(api: TestClient) -> None:
    seen = numbers(api)

    states = ("waiting", "retrying", "held", "failed")
    assert [seen["creditlane_deliveries", state] for state in states] == [0, 0, 0, 0]
    assert seen[("creditlane_delivery_oldest_age_seconds",)] == 0
    assert seen[("creditlane_delivery_overdue_seconds",)] == 0
    assert seen["creditlane_webhook_endpoints", "endpoint", "disabled"] == 0
    assert [seen["creditlane_refused_jobs_total", queue] for queue in ("deliveries", "jobs")] == [0, 0]
    assert not [key for key in seen if key[0].startswith(("creditlane_job_", "creditlane_proof_"))]


def test_deliveries_and_endpoints_are_counted_by_their_state(api: TestClient, owner: psycopg.Connection[Any]) -> None:
    owner.execute(ENDPOINTS)
    deliver(owner, 1, 3, age=60)
    deliver(owner, 2, 2, attempts=4, age=500, overdue=30)
    deliver(owner, 3, 4, age=90_000, overdue=90_000)
    deliver(owner, 4, age=90_000, overdue=90_000)
    deliver(owner, 5, age=100, overdue=5_000)
    deliver(owner, 1, 7, status=2)
    deliver(owner, 1, 6, status=3)

    seen = numbers(api)

    states = ("waiting", "retrying", "held", "failed")
    assert [seen["creditlane_deliveries", state] for state in states] == [4, 2, 4, 6]
    assert 500 <= seen[("creditlane_delivery_oldest_age_seconds",)] < 1_000
    # Not what is held, nor what the endpoint asked to wait for.
    assert 30 <= seen[("creditlane_delivery_overdue_seconds",)] < 500
    endpoints = [seen["creditlane_webhook_endpoints", "endpoint", state] for state in ENDPOINT_STATES]
    assert endpoints == [2, 1, 1]
    assert seen["creditlane_webhook_endpoints", "callbacks", "enabled"] == 1


def test_jobs_are_shown_with_their_failures_and_the_age_of_their_last_success(
    api: TestClient, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("insert into scheduled_jobs values ('verify', '30 2 * * *', now() + interval '1 hour')")
    owner.execute("insert into scheduled_jobs values ('retention', '15 * * * *', now() - interval '10 minutes')")
    run(owner, "verify", 3, age=200_000)
    run(owner, "verify", 4, age=2_000, count=2)
    run(owner, "verify", 2, age=10)
    run(owner, "export", 4, age=100)

    seen = numbers(api, ("creditlane_job_runs", "verify", "failed"))

    counts = [seen["creditlane_job_runs", "verify", state] for state in ("due", "running", "done", "failed")]
    assert counts == [0, 1, 0, 2]
    assert 200_000 <= seen["creditlane_job_success_age_seconds", "verify"] < 210_000
    assert seen["creditlane_job_success_age_seconds", "export"] == float("inf")
    assert ("creditlane_job_success_age_seconds", "retention") not in seen
    assert seen["creditlane_job_overdue_seconds", "verify"] == 0
    assert 600 <= seen["creditlane_job_overdue_seconds", "retention"] < 1_200
    assert ("creditlane_job_overdue_seconds", "export") not in seen


def test_proofs_are_shown_with_their_ages_and_what_they_found(api: TestClient, owner: psycopg.Connection[Any]) -> None:
    prove(owner, 1, age=900, discrepancies=7)
    prove(owner, 2, age=600, rows=40)
    alone = numbers(api, WHOLE)
    assert 600 <= alone["creditlane_proof_age_seconds", "whole"] < 1_200
    assert alone["creditlane_proof_rows", "whole"] == 40
    assert alone["creditlane_proof_age_seconds", "recent"] == alone["creditlane_proof_age_seconds", "whole"]
    assert alone["creditlane_proof_discrepancies", "recent"] == 0

    prove(owner, 1, age=300, discrepancies=2)
    prove(owner, 1, age=100)
    assert wait_until(lambda: numbers(api, WHOLE)["creditlane_proof_discrepancies", "recent"] == 2, seconds=20)
    seen = numbers(api, WHOLE)
    assert 100 <= seen["creditlane_proof_age_seconds", "recent"] < 300
    assert (seen["creditlane_proof_rows", "recent"], seen["creditlane_proof_discrepancies", "whole"]) == (10, 0)


def test_jobs_of_others_are_counted(api: TestClient, settings: Settings) -> None:
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.hincrby(Keys(settings.redis_prefix).refused_jobs, "jobs", 3)

    assert numbers(api)["creditlane_refused_jobs_total", "jobs"] == 3


def test_what_cannot_be_read_hides_nothing_else(api: TestClient, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("lock table deliveries, reconciliations")
        seen = numbers(api, ENABLED, REFUSED, ("creditlane_dead_letters",))

    assert not {PENDING, FAILED, WHOLE} & seen.keys()


def test_more_deliveries_than_are_counted_cost_no_more(
    api: TestClient, owner: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_metrics, "MAX_COUNTED", 20)
    owner.execute(ENDPOINTS)
    deliver(owner, 1, 50)
    deliver(owner, 1, 50, status=3)

    seen = numbers(api)
    assert (seen["creditlane_deliveries", "waiting"], seen["creditlane_deliveries", "failed"]) == (20, 20)


STATEMENTS = {
    "pending": (background_metrics.READ_PENDING, {"deliveries"}, 200),
    "failed": (background_metrics.COUNT_FAILED, {"deliveries"}, 200),
    "endpoints": (background_metrics.COUNT_ENDPOINTS, set(), 200),
    "jobs": (background_metrics.READ_JOBS, {"job_runs"}, 400),
    "proofs": (READ_RECONCILIATIONS, {"reconciliations"}, 200),
}


@pytest.fixture(scope="module")
def grown(database_server: Any, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A ledger on which jobs and webhooks have run for long."""
    name = f"creditlane_grown_{template_database[-12:]}"
    url = database_server.create_database(name, template=template_database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(ENDPOINTS)
        deliver(connection, 1, 30_000, status=2)
        deliver(connection, 2, 50, attempts=2)
        deliver(connection, 2, 50, status=3)
        for job in ("statistics", "verify-recent", "retention"):
            run(connection, job, 3, age=100_000, count=5_000)
            run(connection, job, 3, age=100, count=50)
        connection.execute(
            "insert into reconciliations (run_id, kind, covered_until, finished_at, rows, discrepancies, findings) "
            "select n, case n when 9990 then 2 else 1 end, now(), now() - (10000 - n) * interval '1 minute', 1, 0, "
            "'[]' from generate_series(1, 10000) n"
        )
        connection.execute("vacuum analyze")
        yield connection
    database_server.drop_database(name)


@pytest.mark.parametrize("name", STATEMENTS)
def test_each_number_is_read_by_an_index_and_none_from_the_journal(grown: psycopg.Connection[Any], name: str) -> None:
    statement, large, pages = STATEMENTS[name]
    values = {"most": background_metrics.MAX_COUNTED}

    row = grown.execute(f"explain (analyze, buffers, format json) {statement}".encode(), values).fetchone()

    assert row is not None
    plan = row[0][0]["Plan"]
    reads = [node for node in nodes_of(plan) if "Relation Name" in node]
    assert "journal" not in {node["Relation Name"] for node in reads}
    walked = {node["Relation Name"] for node in reads if node["Node Type"] == "Seq Scan"}
    assert not walked & large, json.dumps(plan, indent=1)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < pages, json.dumps(plan, indent=1)
