"""The benchmark runs with one command, measures what it says, fails when it did not, and leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from creditlane.benchmarks.hold_capture import holds_and_captures
from creditlane.benchmarks.ledger_check import check_kept_results, check_ledger
from creditlane.benchmarks.load import account_ids
from creditlane.benchmarks.outbox_cost import WebhookCost, check_outbox
from creditlane.benchmarks.plan import STANDARD_SCENARIOS, BenchmarkFailed
from creditlane.benchmarks.scenarios import Measurement
from creditlane.benchmarks.waiting_producer import count_results
from creditlane.benchmarks.worker_processes import WorkerProcesses
from creditlane.lanes.keys import ANNOUNCEMENT_FIELD, VERSION_FIELD, Keys
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedPostgres
from creditlane.schemas.journal import ANNOUNCEMENT_VERSION, Announcement, JournalRow, encode_announcements
from creditlane.schemas.settings import Settings

pytestmark = pytest.mark.timeout(300)

RATES = [name for name in STANDARD_SCENARIOS if not name.startswith(("latency", "http", "reads", "webhooks"))]
TINY = ["--commands=300", "--accounts=20", "--latency-seconds=0.2", "--rq-commands=10", "--copy-rows=2000"]
PROC = Path("/proc")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A temporary directory for one run: its path is in the environment or arguments of all that the run starts."""
    path = Path(tempfile.mkdtemp(prefix="creditlane-test-bench-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def start(directory: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "creditlane.benchmarks", *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(directory), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(directory: Path, *arguments: str, **environment: str) -> tuple[str, str, int]:
    process = start(directory, *arguments, **environment)
    try:
        out, err = process.communicate(timeout=240)
    finally:
        # SIGTERM, so that a run that hangs takes its servers along.
        process.terminate()
        process.wait()
    return out, err, process.returncode


def processes_of(directory: Path) -> list[str]:
    """What still runs with this directory in its environment or arguments."""
    mark = str(directory)
    if not PROC.exists():
        listed = subprocess.run(["/bin/ps", "axeww", "-o", "command"], capture_output=True, check=True, text=True)
        return [line for line in listed.stdout.splitlines() if mark in line]
    return [
        seen for path in PROC.iterdir() if path.name.isdigit() and mark in (seen := described(path)) and "\0" in seen
    ]


def described(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace") + (process / "environ").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # It has ended, or it is another user's.
        return ""


def assert_nothing_is_left(directory: Path) -> None:
    assert processes_of(directory) == []
    assert list(directory.iterdir()) == []


def test_pairs_of_hold_and_capture_go_round_the_accounts() -> None:
    accounts = account_ids(2)

    load = [(command.kind, command.account_id) for command in holds_and_captures(accounts, 3)]

    first, second = accounts
    assert load == [
        ("hold", first), ("hold", second), ("capture", first), ("capture", second), ("hold", first), ("capture", first),
    ]  # fmt: skip


def test_a_tiny_run_measures_everything_and_leaves_nothing_behind(directory: Path) -> None:
    out, err, code = run(directory, "--json", *TINY, "--growth", "--grown-entries=50", "--backlog=400")

    assert code == 0, err
    report: dict[str, Any] = json.loads(out)
    for name in [*RATES, "backlog"]:
        measured = report[name]
        assert measured["commands_per_second"] > 0
        assert measured["ratio"] == pytest.approx(
            measured["commands"] / measured["seconds"] / report["copy_rows_per_second"], rel=0.05, abs=1e-5
        )
    assert report["drain_many"]["commands"] == report["concurrent_kept"]["commands"] == report["commands"] == 300
    pairs, debits = report["hold_capture"], report["drain_many"]
    assert pairs["commands"] == 300
    ratio = pairs["commands_per_second"] / debits["commands_per_second"]
    assert pairs["ratio_to_drain_many"] == pytest.approx(ratio, rel=0.05)
    assert report["rq_per_command"]["commands"] == 10
    assert report["backlog"]["commands"] == 400
    assert len(report["copy_samples"]) == len(STANDARD_SCENARIOS) + 3
    assert min(report["copy_samples"]) <= report["copy_rows_per_second"] <= max(report["copy_samples"])
    for name in ("latency_ms", "latency_ms_kept"):
        assert 0 < report[name]["p50"] <= report[name]["p99"] <= report[name]["max"]
    assert_http_is_measured(report)
    assert report["growth"]["entries"] == 60
    assert report["growth"]["after_scattered_keys"]["commands"] == 300
    assert_webhooks_are_measured(report)
    assert report["cores"] == os.cpu_count()
    assert report["worker_memory_mb"] is None or 10 < report["worker_memory_mb"] < 500
    assert_nothing_is_left(directory)


def assert_http_is_measured(report: dict[str, Any]) -> None:
    client, debits, batch = (report[name] for name in ("client_enqueue_many", "http_debits", "http_batch"))
    assert debits["commands"] == batch["lines"] == client["commands"] == 300
    assert 0 < debits["p50"] <= debits["p99"] <= debits["max"]
    for measured, rate in ((debits, debits["requests_per_second"]), (batch, batch["lines_per_second"])):
        assert rate == pytest.approx(300 / measured["seconds"], rel=0.05)
        assert measured["ratio"] == pytest.approx(rate / report["copy_rows_per_second"], rel=0.05, abs=1e-5)
        assert measured["ratio_to_client"] == pytest.approx(rate / client["commands_per_second"], rel=0.05, abs=1e-4)
    reads = report["reads"]
    assert (reads.pop("entries"), reads.pop("requests")) == (1_501, 50)
    assert {"balance_at", "entries_starting_after", "entries_ending_before", "reference_newest"} < reads.keys()
    assert all(0 < times["median_ms"] <= times["max_ms"] for times in reads.values())


def assert_webhooks_are_measured(report: dict[str, Any]) -> None:
    sides = report["webhooks"]
    for measured in (sides["with"], sides["without"]):
        assert measured["commands"] == 300
        assert measured["commands_per_second"] == pytest.approx(300 / measured["seconds"], rel=0.05)
    rates = sides["with"]["commands_per_second"] / sides["without"]["commands_per_second"]
    assert sides["cost_percent"] == pytest.approx(100 * (1 - rates), abs=1)


def test_an_endpoint_that_subscribes_to_everything_costs_a_small_part_of_the_rate(directory: Path) -> None:
    """Given enough commands that the batches are full, then the cost of writing the outbox is printed, and small."""
    arguments = ["--only=webhooks", "--commands=25000", "--accounts=2500", "--copy-rows=2000"]

    out, err, code = run(directory, "--json", *arguments)

    assert code == 0, err
    assert json.loads(out)["webhooks"]["cost_percent"] < 30
    assert_nothing_is_left(directory)


def test_two_workers_share_the_lanes_of_given_servers_which_keep_nothing_of_it(
    directory: Path, postgres_server: EmbeddedPostgres, redis_url: str
) -> None:
    given = {"CREDITLANE_DATABASE_URL": postgres_server.superuser_url, "CREDITLANE_REDIS_URL": redis_url}

    out, err, code = run(directory, *TINY, "--workers=2", "--only=drain_many_kept", **given)

    assert code == 0, err
    assert re.search(r"^drain_many_kept +\d+ +\d+\.\d{3} +300 ", out, re.MULTILINE), out
    with redis.Redis.from_url(redis_url) as client, psycopg.connect(postgres_server.superuser_url) as connection:
        left = connection.execute("select count(*) from pg_database where datname like 'bench-%'").fetchone()
        assert left == (0,)
        assert list(client.scan_iter(match="bench-*")) == []
    assert_nothing_is_left(directory)


def test_a_role_that_may_not_make_databases_is_one_clear_line(
    directory: Path, postgres_server: EmbeddedPostgres
) -> None:
    out, err, code = run(directory, *TINY, CREDITLANE_DATABASE_URL=postgres_server.url)

    assert (out, code) == ("", 1)
    assert "CREATEDB" in err
    assert "Traceback" not in err
    assert_nothing_is_left(directory)


def test_an_unknown_scenario_is_refused_before_anything_starts(directory: Path) -> None:
    out, err, code = run(directory, "--only=drain_few")

    assert (out, code) == ("", 1)
    assert "drain_few" in err
    assert "drain_many" in err
    assert_nothing_is_left(directory)


def test_a_run_that_is_stopped_takes_everything_along(directory: Path) -> None:
    process = start(directory, "--json", *TINY, "--latency-seconds=200", "--only=latency_ms")
    try:
        assert wait_until(lambda: any("creditlane.worker" in seen for seen in processes_of(directory)), seconds=120)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)

    assert (out, process.returncode) == ("", 128 + signal.SIGTERM), err
    assert_nothing_is_left(directory)


def test_a_ledger_without_the_debits_fails_the_check(settings: Settings) -> None:
    with pytest.raises(BenchmarkFailed, match="debits"):
        check_ledger(settings, [], Counter({"cca_" + "0" * 32: 1}))


def test_an_account_that_was_not_opened_fails_the_check(settings: Settings) -> None:
    with pytest.raises(BenchmarkFailed, match="balances"):
        check_ledger(settings, account_ids(1), Counter())


def test_events_that_are_not_written_fail_the_check(settings: Settings) -> None:
    with pytest.raises(BenchmarkFailed, match="the outbox has"):
        check_outbox(settings, 1)


def test_what_webhooks_cost_is_shown_against_the_rate_without_them() -> None:
    assert WebhookCost(Measurement(80, 1.0), Measurement(100, 1.0)).cost_percent == pytest.approx(20)
    assert WebhookCost(Measurement(100, 1.0), Measurement(80, 1.0)).cost_percent == pytest.approx(-25)


def test_commands_that_are_left_on_a_lane_fail_the_check(settings: Settings, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(Keys(settings.redis_prefix).lane(3), {"c": "{}"})

    with pytest.raises(BenchmarkFailed, match="1 commands are still on the lanes"):
        check_ledger(settings, [], Counter())


def test_results_that_are_not_kept_fail_the_check(settings: Settings) -> None:
    with pytest.raises(BenchmarkFailed, match="0 results"):
        check_kept_results(settings, 1)


@pytest.mark.parametrize(("rejection", "replayed"), [("insufficient_balance", False), (None, True)])
def test_a_command_that_was_not_applied_now_fails_the_count(
    settings: Settings, redis_url: str, rejection: str | None, replayed: bool
) -> None:
    row = JournalRow(1, "cca_" + "0" * 32, 1, 3, -1, 1, 5, 0, "key", "ref", None, 0, rejection, None)
    announced = encode_announcements([Announcement(1, row, replayed)])
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(Keys(settings.redis_prefix).replies("p"), {ANNOUNCEMENT_FIELD: announced})

    with pytest.raises(BenchmarkFailed, match="command 1 was not applied"):
        count_results(settings, "p", 1, check_workers=lambda: None, progress=lambda _done, _total: None)


def test_a_result_that_is_announced_twice_counts_once(settings: Settings, redis_url: str) -> None:
    row = JournalRow(1, "cca_" + "0" * 32, 1, 3, -1, 1, 5, 0, "key", "ref", None, 0, None, None)
    counts: list[int] = []
    with redis.Redis.from_url(redis_url) as client:
        for number in (1, 1, 2):
            announced = encode_announcements([Announcement(number, row)])
            client.xadd(
                Keys(settings.redis_prefix).replies("p"),
                {ANNOUNCEMENT_FIELD: announced, VERSION_FIELD: ANNOUNCEMENT_VERSION},
            )

    count_results(settings, "p", 2, check_workers=lambda: None, progress=lambda done, _total: counts.append(done))

    assert counts[-1] == 2


def test_a_worker_that_ends_by_itself_fails_the_run_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDITLANE_PARTITIONS", "3")

    with pytest.raises(BenchmarkFailed, match="CREDITLANE_PARTITIONS is 3"), WorkerProcesses(settings, 1):
        pytest.fail("it became ready")
