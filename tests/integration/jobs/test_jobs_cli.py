"""`creditlane jobs` as an operator sees it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from creditlane.cli.app import app
from creditlane.local.processes import wait_until
from creditlane.schemas.errors import ConfigurationError, NotMigrated
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.registry import KINDS, SCHEDULED

from ...redis_users import as_redis_user
from .conftest import DEADLINE_SECONDS, StartJobs

Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings, environment_of: Callable[[Settings], dict[str, str]]) -> Run:
    """Runs `creditlane jobs` with this test's settings, and others before them."""

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            app, ["jobs", *arguments], env={**environment_of(as_redis_user("operator", settings)), **environment}
        )

    return invoke


def report_of(run: Run) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run("list", "--json").stdout)
    return report


def wait_for_process(run: Run, queue: str = "jobs") -> None:
    assert wait_until(lambda: run("alive", "--queue", queue).exit_code == 0, seconds=DEADLINE_SECONDS)


def test_before_any_process_ran_the_list_shows_what_there_is(run: Run, settings: Settings) -> None:
    report = report_of(run)
    lines = run("list").stdout.splitlines()

    assert [(job["name"], job["schedule"], job["latest"]) for job in report["jobs"]] == [
        (name, kind.schedule, None) for name, kind in KINDS.items()
    ]
    assert [(queue["queue"], queue["rq_name"], queue["waiting"]) for queue in report["queues"]] == [
        (queue, f"{settings.redis_prefix}-{queue}", 0) for queue in ("deliveries", "jobs")
    ]
    assert lines[len(KINDS)].split() == ["export", "on", "request", "-", "-", "-", "-", "-"]


def test_a_job_is_run_now_and_listed(run: Run, start_jobs: StartJobs) -> None:
    start_jobs(tried=False)
    wait_for_process(run)

    done = run("run", "retention")
    as_json = json.loads(run("run", "verify", "--json").stdout)
    report = report_of(run)

    assert (done.exit_code, done.stdout.startswith("retention done: ")) == (0, True)
    assert (as_json["status"], as_json["outcome"]["discrepancies"], as_json["attempts"]) == ("done", 0, 1)
    jobs = {job["name"]: job for job in report["jobs"]}
    assert {name for name, job in jobs.items() if job["next_due_at"]} == set(SCHEDULED)
    assert jobs["retention"]["latest"]["status"] == "done"
    (queue,) = [queue for queue in report["queues"] if queue["queue"] == "jobs"]
    assert (len(queue["processes"]), queue["failed"]) == (1, 0)


def test_a_job_that_fails_says_why(run: Run, start_jobs: StartJobs, connection: Connection) -> None:
    start_jobs(tried=False)
    wait_for_process(run)
    connection.execute("alter table outbox rename to outbox_away")

    failed = run("run", "retention")

    assert failed.exit_code == 1
    assert failed.stdout.startswith('retention failed: UndefinedTable: 42P01: relation "outbox" does not exist')
    queues = {queue["queue"]: queue for queue in report_of(run)["queues"]}
    # At a full minute the statistics fail of it, too.
    assert wait_until(lambda: report_of(run)["queues"][1]["failed"] >= 1, seconds=DEADLINE_SECONDS)
    assert queues["deliveries"]["failed"] == 0


def test_without_a_process_a_job_is_not_run(run: Run, connection: Connection) -> None:
    refused = run("run", "verify")

    assert isinstance(refused.exception, ConfigurationError)
    assert "start `creditlane jobs work --queue jobs`" in str(refused.exception)
    assert connection.execute("select count(*) from job_runs").fetchone() == (0,)


def test_a_job_that_there_is_not_is_refused(run: Run) -> None:
    refused = run("run", "nonsense")

    assert refused.exit_code == 2
    assert "there is no such job" in refused.output


def test_alive_is_of_one_queue(run: Run, start_jobs: StartJobs) -> None:
    start_jobs("deliveries", tried=False)
    wait_for_process(run, "deliveries")

    dead = run("alive", "--queue", "jobs")

    assert (dead.exit_code, dead.stdout) == (1, "Processes of this host on the queue jobs: 0\n")


def test_a_database_without_a_ledger_says_so(run: Run, empty_database_url: str) -> None:
    assert isinstance(run("list", CREDITLANE_DATABASE_URL=empty_database_url).exception, NotMigrated)


def test_a_queue_that_there_is_not_is_refused(run: Run) -> None:
    assert run("work", "--queue", "default").exit_code == 2
