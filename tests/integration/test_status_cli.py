"""`creditlane status` and `creditlane verify` as an operator sees them."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis
from typer.testing import CliRunner, Result

from creditlane import Client, Debit, Settings
from creditlane.audit.findings import CHECKS
from creditlane.cli import status as status_command
from creditlane.cli.app import app
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedRedis
from creditlane.producer.operations.lane_status import LanesReport, read_lanes
from creditlane.schemas.errors import NotMigrated, PartitionMismatch, Unavailable
from creditlane.schemas.schema_revision import SCHEMA_REVISION

from ..roles import settings_of

ACCOUNT = "cca_" + "5e" * 16

Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Run:
    """Runs a command with this test's settings, and others before them."""

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, env={**environment_of(settings), **environment})

    return invoke


def status(run: Run) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run("status", "--json").stdout)
    return report


def debits(count: int) -> list[Debit]:
    return [
        Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key=f"key {number}") for number in range(count)
    ]


def test_what_nobody_takes_is_seen_with_its_age(run: Run, settings: Settings) -> None:
    with Client(settings) as client:
        client.enqueue_many(debits(3))

    assert wait_until(lambda: (status(run)["lag_seconds"] or 0) > 0.05, seconds=10)
    report = status(run)

    assert report["backlog"] == 3
    assert [lane["backlog"] for lane in report["lanes"] if lane["lag_seconds"] is not None] == [3]
    assert {lane["owner"] for lane in report["lanes"]} == {None}
    lines = run("status").stdout.splitlines()
    assert lines[0] == "lanes         8, 8 of them without an owner"
    assert lines[2].startswith("backlog       3 commands, the oldest waiting ")


def test_a_worker_owns_every_lane_and_empties_it(
    run: Run, settings: Settings, running_worker: "subprocess.Popen[bytes]"
) -> None:
    with Client(settings) as client:
        results = list(client.wait_many(client.enqueue_many(debits(3)), timeout=30))

    assert wait_until(lambda: status(run)["backlog"] == 0, seconds=10)
    report = status(run)

    assert [result.status for result in results] == ["rejected"] * 3
    (worker,) = report["workers"]
    assert (worker["alive"], worker["process_id"], worker["lanes"]) == (True, running_worker.pid, 8)
    assert {lane["owner"] for lane in report["lanes"]} == {worker["worker_id"]}
    assert run("status").stdout.splitlines()[:4] == [
        "lanes         8, 0 of them without an owner",
        "workers       1 alive, 0 expired",
        "backlog       0 commands, the oldest waiting none",
        "dead letters  0",
    ]
    assert len(run("status", "--all").stdout.splitlines()) > 8


def test_a_killed_worker_owns_nothing_once_its_lease_is_over(
    run: Run, database_url: str, running_worker: "subprocess.Popen[bytes]"
) -> None:
    assert wait_until(lambda: {lane["owner"] for lane in status(run)["lanes"]} != {None}, seconds=30)
    running_worker.send_signal(signal.SIGKILL)
    running_worker.wait()
    with psycopg.connect(database_url) as connection:
        connection.execute("update workers set expires_at = clock_timestamp()")

    report = status(run)

    assert {lane["owner"] for lane in report["lanes"]} == {None}
    assert [worker["alive"] for worker in report["workers"]] == [False]
    assert "0 alive, 1 expired" in run("status").stdout


def test_what_does_not_get_on_is_named_with_its_cause(run: Run, settings: Settings, database_url: str) -> None:
    trouble = {"applier": {"cause": "Postgres does not answer", "seconds": 45.0, "failures": 2}}
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck, release) "
            "values ('w', 'h', 1, clock_timestamp() + interval '30 s', %s, 30, true, 1)",
            [json.dumps({"troubles": trouble, "standing_lanes": {"3": 61.0}})],
        )
        connection.execute("update leases set worker_id = 'w'")
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.set(Keys(settings.redis_prefix).lane(2), "text")

    report = status(run)
    lines = run("status").stdout.splitlines()

    assert {lane["partition"]: lane["problem"] for lane in report["lanes"] if lane["problem"]} == {
        2: "its key in Redis holds something that is no stream; move it away",
        3: "what was read of it is not done with since 61 s",
    }
    (worker,) = report["workers"]
    assert (worker["alive"], worker["stuck"]) == (True, True)
    assert worker["problems"] == [
        "applier has not got on for 45 s, 2 attempts failed: Postgres does not answer",
        "it does not get on, so it owns no lanes",
    ]
    assert lines[5] == "problems      4"
    assert lines[6:10] == [
        "  lane 2: its key in Redis holds something that is no stream; move it away",
        "  lane 3: what was read of it is not done with since 61 s",
        "  worker w: applier has not got on for 45 s, 2 attempts failed: Postgres does not answer",
        "  worker w: it does not get on, so it owns no lanes",
    ]


def test_lanes_that_are_handed_over_are_reported_as_that(run: Run, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into workers (worker_id, host, process_id, expires_at, lease_seconds, release) "
            "values ('w', 'h', 1, clock_timestamp() + interval '30 s', 30, 1)"
        )
        connection.execute("update leases set worker_id = 'w' where partition > 2")
        connection.execute("update leases set worker_id = 'dead' where partition = 2")

        lanes = status(run)["lanes"]
        beside_a_worker = run("status").stdout.splitlines()[0]
        connection.execute("delete from workers")
        without_a_worker = run("status").stdout.splitlines()[0]

    assert [lane["partition"] for lane in lanes if lane["owner"] is None] == [0, 1, 2]
    assert [lane["partition"] for lane in lanes if lane["between_workers"]] == [0, 1]
    assert beside_a_worker == "lanes         8, 1 of them without an owner, 2 between workers"
    assert without_a_worker == "lanes         8, 8 of them without an owner"


def own_every_lane(database_url: str, **numbers: Any) -> None:
    """Let a worker be on record that lives, owns every lane and says this of itself."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck, release) "
            "values ('w', 'h', 1, clock_timestamp() + interval '5 minutes', %s, 300, false, 1)",
            [json.dumps(numbers)],
        )
        connection.execute("update leases set worker_id = 'w'")


def test_a_check_fails_while_a_lane_has_no_living_worker(run: Run, database_url: str) -> None:
    none = run("status", "--check")
    assert (none.exit_code, run("status").exit_code) == (1, 0)
    assert "8 of 8 lanes have no living worker (0, 1, 2, 3, 4, 5, 6, 7); start `creditlane worker`" in none.stderr
    assert none.stdout.startswith("lanes         8, 8 of them without an owner")

    own_every_lane(database_url)
    all_owned = run("status", "--check")
    assert (all_owned.exit_code, all_owned.stderr) == (0, "")

    with psycopg.connect(database_url) as connection:
        connection.execute("update workers set expires_at = clock_timestamp()")
    dead = run("status", "--check", "--json")
    assert dead.exit_code == 1
    assert {lane["owner"] for lane in json.loads(dead.stdout)["lanes"]} == {None}


def test_a_check_fails_while_an_owned_lane_does_not_get_on(run: Run, database_url: str) -> None:
    own_every_lane(database_url, standing_lanes={"3": 601.0})
    checked = run("status", "--check")

    assert checked.exit_code == 1
    assert checked.stderr == "creditlane: lane 3: what was read of it is not done with since 601 s\n"


def test_a_lane_whose_lease_is_gone_is_reported_until_it_is_migrated(run: Run, database_url: str) -> None:
    """Given living owners of all lanes, when the row of one is deleted, then the lane is shown, the check fails and
    says what to do, and that mends it."""
    own_every_lane(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert run("status", "--check").exit_code == 0
        connection.execute("delete from leases where partition = 5")

        lane = status(run)["lanes"][5]
        checked = run("status", "--check")

        assert (lane["partition"], lane["owner"], lane["between_workers"]) == (5, None, False)
        assert "run `creditlane migrate`" in lane["problem"]
        assert checked.exit_code == 1
        assert run("migrate").exit_code == 0
        connection.execute(
            "update leases set worker_id = other.worker_id from leases as other "
            "where leases.partition = 5 and other.partition = 4"
        )
        assert run("status", "--check").exit_code == 0


def test_a_check_does_not_wait_for_ever_for_lanes_between_workers(run: Run, database_url: str) -> None:
    own_every_lane(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = null where partition = 5")
    checked = run("status", "--check", CREDITLANE_LEASE_SECONDS="0.5")

    assert checked.exit_code == 1
    assert "1 of 8 lanes have no living worker (5)" in checked.stderr


def test_a_check_waits_for_lanes_between_workers(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a lane that somebody takes while the check waits, then all is well."""
    own_every_lane(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = null where partition = 5")
    reports: list[LanesReport] = []

    def read(settings: Settings) -> LanesReport:
        reports.append(read_lanes(settings))
        with psycopg.connect(database_url) as connection:
            connection.execute("update leases set worker_id = 'w'")
        return reports[-1]

    monkeypatch.setattr(status_command, "read_lanes", read)
    assert run("status", "--check", CREDITLANE_LEASE_SECONDS="300").exit_code == 0
    assert [len([lane for lane in report.lanes if lane.owner is None]) for report in reports] == [1, 0]


@pytest.mark.parametrize("change", [("REPLICAOF", "127.0.0.1", "1"), ("CONFIG", "SET", "maxmemory", "100kb")])
def test_a_redis_that_takes_no_writes_is_named(
    change: tuple[str, ...], run: Run, own_redis: Callable[[], EmbeddedRedis]
) -> None:
    url = own_redis().url
    report = json.loads(run("status", "--json", CREDITLANE_REDIS_URL=url).stdout)
    assert report["redis_problem"] is None

    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.execute_command(*change)
    report = json.loads(run("status", "--json", CREDITLANE_REDIS_URL=url).stdout)
    lines = run("status", CREDITLANE_REDIS_URL=url).stdout.splitlines()

    problem = "takes no writes: it is a replica, its memory is full, or it cannot save"
    assert report["redis_problem"] == problem
    assert lines[5:7] == ["problems      1", f"  redis: {problem}"]


def test_a_redis_that_may_throw_away_lanes_is_named(run: Run, own_redis: Callable[[], EmbeddedRedis]) -> None:
    """Given a cache's policy, then it is a problem; not where there is no limit, and not where it spares the lanes."""
    url = own_redis().url
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert json.loads(run("status", "--json", CREDITLANE_REDIS_URL=url).stdout)["redis_problem"] is None
        client.config_set("maxmemory", "500mb")
        report = json.loads(run("status", "--json", CREDITLANE_REDIS_URL=url).stdout)
        client.config_set("maxmemory-policy", "volatile-lru")
        after = json.loads(run("status", "--json", CREDITLANE_REDIS_URL=url).stdout)

    assert "maxmemory-policy allkeys-lru); set maxmemory-policy to noeviction" in report["redis_problem"]
    assert after["redis_problem"] is None


def test_entries_ahead_of_the_clock_are_named(run: Run, database_url: str) -> None:
    assert (status(run)["clock_problem"], run("status").stdout.splitlines()[5]) == (None, "problems      none")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into journal (store_id, account_id, seq, kind, side, amount, balance_after, idempotency_key, "
            "created_at) values (1, %s, 1, 2, 1, 5, 5, 'k', now() + interval '1 hour')",
            [ACCOUNT[4:]],
        )

    assert "ahead: the clock of Postgres was ahead" in status(run)["clock_problem"]
    assert run("status").stdout.splitlines()[6].startswith("  journal: the latest entry lies 3")


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_share_the_lanes_and_give_them_back(
    processes: int, run: Run, settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    command = [sys.executable, "-P", "-c", "from creditlane.cli.main import main; main()", "worker"]
    environment = environment_of(settings_of("worker", settings))
    with subprocess.Popen([*command, "--processes", str(processes)], env=environment) as worker:
        shares = [8 // processes] * processes
        shared = wait_until(lambda: [each["lanes"] for each in status(run)["workers"]] == shares, seconds=40)
        worker.terminate()

    assert shared
    assert worker.returncode == 0
    assert status(run)["workers"] == []
    assert {lane["owner"] for lane in status(run)["lanes"]} == {None}


def test_what_cannot_be_reached_is_named(run: Run, empty_database_url: str) -> None:
    nowhere = "postgresql://127.0.0.1:1/none"

    assert isinstance(run("status", CREDITLANE_DATABASE_URL=nowhere).exception, Unavailable)
    assert isinstance(run("status", CREDITLANE_DATABASE_URL=empty_database_url).exception, NotMigrated)
    assert isinstance(run("status", CREDITLANE_REDIS_URL="redis://127.0.0.1:1/0").exception, Unavailable)
    assert isinstance(run("status", CREDITLANE_PARTITIONS="9").exception, PartitionMismatch)


def test_sound_books_end_with_0(run: Run) -> None:
    result = run("verify")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "0 discrepancies"
    assert json.loads(run("verify", "--json").stdout)["checks"][0] == {
        "name": "entry_sequence",
        "claim": "the entries of an account are numbered 1, 2, 3 … without a gap",
        "discrepancies": 0,
        "examples": [],
    }


def test_a_discrepancy_is_shown_and_ends_with_1(run: Run, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into accounts values (1, %s, 'ann', 'main', 'main', 'tokens', 1, 0, now(), now())", [ACCOUNT[4:]]
        )

    result = run("verify")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"Verified 1 stores, 1 accounts, 0 entries, 0 other decisions, {len(CHECKS)} checks",
        "account_opening: 1 times not so: every account was opened exactly once, before anything else moved",
        "store          account                               seq  expected   found",
        f"store_default  {ACCOUNT}  -    1 opening  0",
        "1 discrepancies",
    ]
    checks = {check["name"]: check["discrepancies"] for check in json.loads(run("verify", "--json").stdout)["checks"]}
    assert checks["account_opening"] == 1
    assert sum(checks.values()) == 1


def test_migrate_says_which_schema_it_made(run: Run, empty_database_url: str) -> None:
    first = run("migrate", "--partitions", "5", CREDITLANE_DATABASE_URL=empty_database_url)
    again = run("migrate", "--partitions", "6", CREDITLANE_DATABASE_URL=empty_database_url)

    assert (first.exit_code, first.stdout) == (0, f"The database is at schema {SCHEMA_REVISION}\n")
    assert isinstance(again.exception, PartitionMismatch)
