"""What operators' tools see: life, readiness and numbers."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from creditlane import Client, Debit, Settings
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedRedis
from creditlane.producer.api.connections import Connections
from creditlane.producer.api.routes.monitoring import LANES_GOOD_SECONDS
from creditlane.producer.operations.lane_problems import READ_LEASES
from creditlane.producer.operations.lane_status import content_calls, contents_of

from ...faults.worker_processes import StartWorker as StartFaultyWorker
from ...faults.worker_processes import start_worker as start_faulty_worker

__all__ = ["start_faulty_worker"]

MakeApi = Callable[[Settings], TestClient]
StartWorker = Callable[[], "subprocess.Popen[bytes]"]
ACCOUNT = "cca_" + "5e" * 16
AWAY = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}
READY = {"status": "ready", "problems": {}, "warnings": {}}


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
        "warnings": {},
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

    # The check at the start may still be under way, and whoever asks meanwhile is given what it finds.
    assert wait_until(lambda: list(api.get("/readyz").json()["problems"]) == ["postgres"], seconds=20)
    assert "creditlane migrate" in api.get("/readyz").json()["problems"]["postgres"]


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


def test_what_waits_is_read_without_the_commands_themselves(settings: Settings) -> None:
    """Given a large command at the head of a lane, when lanes are read, then its age comes and its bytes stay."""
    keys = Keys(settings.redis_prefix)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.xadd(keys.lane(1), {"c": b"x" * 200_000})
        calls = content_calls(keys, [0, 1])
        with client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*call)
            answers = pipeline.execute()
            time_call = calls.index(("TIME",))
            answers[time_call] = [str(part).encode() for part in answers[time_call]]

    contents = contents_of(answers, [0, 1])
    assert (contents[0].backlog, contents[0].lag_seconds) == (0, None)
    assert contents[1].backlog == 1
    assert 0 <= (contents[1].lag_seconds or -1) < 60
    assert len(repr(answers)) < 1_000


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

    assert wait_until(lambda: numbers(api)[("creditlane_dead_letters",)] == 1, seconds=10)


def test_dead_letters_that_take_long_to_count_hide_nothing_else(api: TestClient, database_url: str) -> None:
    forge_worker(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("lock table dead_letters")

        assert problems_of(api) == {}
        seen = numbers(api)

    assert ("creditlane_dead_letters",) not in seen
    assert seen["creditlane_lane_owned", "3"] == 1


def test_many_who_ask_at_once_cost_one_read(
    api: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge_worker(database_url)
    asked: list[str] = []
    under_way: list[str] = []
    most_under_way = 0
    read = Connections.read

    async def counted(connections: Connections, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        nonlocal most_under_way
        asked.append(statement)
        under_way.append(statement)
        most_under_way = max(most_under_way, len(under_way))
        try:
            return await read(connections, statement, values)
        finally:
            under_way.remove(statement)

    monkeypatch.setattr(Connections, "read", counted)
    begun = time.monotonic()
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: api.get("/readyz").status_code, range(40)))
    seconds = time.monotonic() - begun

    assert answers == [200] * 40
    assert asked.count(READ_LEASES) <= 1 + seconds / LANES_GOOD_SECONDS
    assert most_under_way <= 2


def test_numbers_that_can_be_had_are_shown_without_the_rest(make_api: MakeApi, settings: Settings) -> None:
    without_redis = numbers(make_api(settings.model_copy(update={"redis_url": AWAY["redis_url"]})))
    assert without_redis["creditlane_reachable", "redis"] == 0
    assert without_redis[("creditlane_dead_letters",)] == 0

    without_both = numbers(make_api(settings.model_copy(update=AWAY)))
    assert without_both["creditlane_reachable", "postgres"] == 0
    assert ("creditlane_dead_letters",) not in without_both
    assert ("creditlane_http_requests_in_flight",) in without_both


def forge_worker(database_url: str, *, expires_in: float = 30.0, stuck: bool = False, **numbers: Any) -> None:
    """Let a worker be on record that owns every lane and says this of itself."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck, release) "
            "values ('w', 'h', 1, clock_timestamp() + make_interval(secs => %s), %s, 30, %s, 1)",
            [expires_in, json.dumps(numbers), stuck],
        )
        connection.execute("update leases set worker_id = 'w'")


def problems_of(api: TestClient) -> dict[str, str]:
    answer = api.get("/readyz")
    problems: dict[str, str] = answer.json()["problems"]
    assert answer.status_code == (503 if problems else 200)
    return problems


def warnings_of(api: TestClient) -> dict[str, str]:
    """Return what is wrong and keeps nothing from being served."""
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["problems"]) == (200, "ready", {})
    warnings: dict[str, str] = answer.json()["warnings"]
    return warnings


#: Answers as a full disk does.
REFUSE_ROWS = """
create function refuse_rows() returns trigger language plpgsql as $$
begin raise exception using errcode = 'disk_full'; end $$;
create trigger refuse_rows before insert on journal execute function refuse_rows()
"""
TROUBLE = {"applier": {"cause": "Postgres answers 57014 (QueryCanceled)", "seconds": 31.0, "failures": 4}}


def test_a_worker_that_owns_every_lane_and_says_nothing_bad_is_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, seconds_since_commit=3_600.0)

    assert problems_of(api) == {}


def test_a_stage_that_does_not_get_on_is_not_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, troubles=TROUBLE)

    assert problems_of(api) == {
        "workers": "w: applier has not got on for 31 s, 4 attempts failed: Postgres answers 57014 (QueryCanceled)"
    }
    assert numbers(api)["creditlane_worker_trouble_seconds", "applier"] == 31
    assert numbers(api)["creditlane_worker_trouble_seconds", "reader"] == 0


def test_pages_without_a_key_name_no_host(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, troubles=TROUBLE)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = null")
        connection.execute("update workers set worker_id = 'secret-host-123-0a1b', host = 'secret-host'")
        connection.execute("update leases set worker_id = 'secret-host-123-0a1b'")

    problems = problems_of(api)
    metrics = api.get("/metrics", headers={"x-api-key": ""}).text

    assert problems["workers"].startswith("123-0a1b: applier has not got on")
    assert 'creditlane_worker_stuck{worker="123-0a1b"}' in metrics
    assert "secret-host" not in metrics


def test_a_stage_that_failed_a_moment_ago_is_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, troubles={"applier": {**TROUBLE["applier"], "seconds": 0.5}})

    assert problems_of(api) == {}


def test_a_worker_that_is_stuck_is_not_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, stuck=True)

    assert problems_of(api) == {"workers": "w: it does not get on, so it owns no lanes"}
    assert numbers(api)[("creditlane_worker_stuck",)] == 1


def test_a_stuck_worker_beside_one_that_has_every_lane_is_shown_and_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, stuck=True)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = null")
        connection.execute("update workers set worker_id = 'stuck'")
    forge_worker(database_url)

    assert warnings_of(api) == {"workers": "stuck: it does not get on, so it owns no lanes"}


def test_a_stuck_worker_says_why_lanes_have_no_owner(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, stuck=True)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = null")

    assert problems_of(api)["workers"] == "w: it does not get on, so it owns no lanes"


def test_a_lane_of_which_nothing_gets_done_is_not_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, standing_lanes={3: 61.0, 4: 59.0})

    assert problems_of(api) == {"lanes": "1 of 8 do not get on (3: what was read of it is not done with since 61 s)"}


def test_a_lane_with_a_fault_of_its_own_is_not_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url, lane_faults={"6": "it is read again without progress"}, lanes_read_again=7)

    assert problems_of(api) == {"lanes": "1 of 8 do not get on (6: it is read again without progress)"}
    assert numbers(api)[("creditlane_lanes_read_again_total",)] == 7


def test_a_command_that_waits_while_nothing_is_committed_is_not_ready(
    api: TestClient, settings: Settings, database_url: str
) -> None:
    forge_worker(database_url, seconds_since_commit=61.0)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.xadd(Keys(settings.redis_prefix).lane(5), {"c": "x"}, id="1-1")

    problem = problems_of(api)["lanes"]
    assert problem.startswith("1 of 8 do not get on (5: a command waits for ")
    assert problem.endswith(" s, and its owner has committed nothing for 61 s)")
    assert numbers(api)["creditlane_lane_standing", "5"] == 1
    assert numbers(api)["creditlane_lane_standing", "4"] == 0


def test_a_backlog_that_is_worked_on_is_ready(api: TestClient, settings: Settings, database_url: str) -> None:
    forge_worker(database_url, seconds_since_commit=0.1)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.xadd(Keys(settings.redis_prefix).lane(5), {"c": "x"}, id="1-1")

    assert problems_of(api) == {}


def test_a_lane_whose_key_is_something_else_is_not_ready_and_hides_no_other(
    api: TestClient, settings: Settings, database_url: str
) -> None:
    forge_worker(database_url)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.set(Keys(settings.redis_prefix).lane(2), "text")
        client.xadd(Keys(settings.redis_prefix).lane(5), {"c": "x"})

    assert problems_of(api) == {
        "lanes": "1 of 8 do not get on (2: its key in Redis holds something that is no stream; move it away)"
    }
    seen = numbers(api)
    assert (seen["creditlane_lane_backlog", "5"], seen["creditlane_lane_standing", "2"]) == (1, 1)


def test_a_lease_that_ends_hours_ahead_is_nobodys_and_not_ready(api: TestClient, database_url: str) -> None:
    """Given a worker that was killed while the clock was an hour ahead, then its lanes have no living worker."""
    forge_worker(database_url, expires_in=3_600.0)

    problems = problems_of(api)

    assert problems["lanes"].startswith("8 of 8 have no living worker")
    assert re.fullmatch(r"w: its lease ends 35\d\d s too late: the clock of Postgres was ahead", problems["workers"])


def test_lanes_that_are_handed_over_are_ready_and_those_that_nobody_takes_are_not(
    api: TestClient, database_url: str
) -> None:
    """Given lanes that were given back beside a living worker, then they are a problem once that lasts for a lease."""
    forge_worker(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update leases set worker_id = null, epoch = epoch + 1 where partition in (1, 2)")

        assert problems_of(api) == {}
        assert (numbers(api)["creditlane_lane_owned", "1"], numbers(api)["creditlane_lane_owned", "3"]) == (0, 1)

        connection.execute("update workers set lease_seconds = 0.5, expires_at = clock_timestamp() + interval '2 s'")
        heartbeat = "update workers set expires_at = clock_timestamp() + interval '2 s'"
        assert wait_until(lambda: connection.execute(heartbeat) and problems_of(api) != {}, seconds=10)
        assert problems_of(api) == {"lanes": "2 of 8 have no living worker (1, 2); start `creditlane worker`"}


def test_a_lane_of_a_dead_worker_beside_a_living_one_is_not_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = 'dead' where partition = 4")

    assert problems_of(api) == {"lanes": "1 of 8 have no living worker (4); start `creditlane worker`"}


def test_workers_that_join_and_leave_are_ready_all_the_while(
    make_api: MakeApi,
    settings: Settings,
    database_url: str,
    start_faulty_worker: StartFaultyWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a worker with every lane, and an API that reads them whenever it is asked
    monkeypatch.setattr("creditlane.producer.api.routes.monitoring.LANES_GOOD_SECONDS", 0.0)
    api = make_api(settings)
    settings = settings.model_copy(update={"lease_seconds": 3.0})
    first = start_faulty_worker(settings)
    assert wait_until(lambda: is_ready(api), seconds=30)
    reported: list[dict[str, str]] = []

    def is_shared(*shares: int) -> bool:
        reported.append(problems_of(api))
        return lanes_by_owner(database_url) == sorted(shares)

    # When another one joins, and later the first one leaves
    start_faulty_worker(settings)
    assert wait_until(lambda: is_shared(4, 4), seconds=30)
    first.signal(signal.SIGTERM)
    assert wait_until(lambda: is_shared(8) and first.has_ended, seconds=30)

    # Then no request was kept away
    assert [problems for problems in reported if problems] == []


def lanes_by_owner(database_url: str) -> list[int]:
    """Return the number of lanes of each owner, and of those without one."""
    with psycopg.connect(database_url) as connection:
        return sorted(count for (count,) in connection.execute("select count(*) from leases group by worker_id"))


def test_an_entry_that_lies_ahead_of_the_clock_is_shown_and_ready(api: TestClient, database_url: str) -> None:
    forge_worker(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into journal (store_id, account_id, seq, kind, side, amount, balance_after, idempotency_key, "
            "created_at) values (1, %s, 1, 2, 1, 5, 5, 'k', now() + interval '1 hour')",
            [ACCOUNT[4:]],
        )

    assert re.fullmatch(
        r"the latest entry lies 3[56]\d\d s ahead: the clock of Postgres was ahead", warnings_of(api)["clock"]
    )
    assert numbers(api)[("creditlane_journal_ahead_seconds",)] == pytest.approx(3_600, abs=60)


def test_batches_that_fail_again_and_again_are_seen_everywhere_and_forgotten_afterwards(
    api: TestClient, settings: Settings, database_url: str, start_faulty_worker: StartFaultyWorker
) -> None:
    # Given a worker at work
    worker = start_faulty_worker(settings.model_copy(update={"lease_seconds": 1.0}))
    assert wait_until(lambda: is_ready(api), seconds=30)
    with psycopg.connect(database_url, autocommit=True) as connection, Client(settings) as client:
        # When Postgres refuses whatever it writes, and no command is to blame for that
        connection.execute(REFUSE_ROWS)
        client.enqueue_many([Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key="k")])
        # Then that is said, with the cause
        assert wait_until(lambda: "DiskFull" in problems_of(api).get("workers", ""), seconds=30)
        worker.wait_for_log("a stage does not get on, giving all partitions back", stage="applier")
        connection.execute("drop trigger refuse_rows on journal")
    # And when it can write again, everything is as it should be
    assert wait_until(lambda: is_ready(api), seconds=30)
    worker.wait_for_log("all stages get on again")
