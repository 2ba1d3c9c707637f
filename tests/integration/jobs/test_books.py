"""The books are proven as they grow and whole, at a cost that fits, and stores are counted; `status` shows both."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from creditlane.audit.findings import Judged
from creditlane.audit.recent import RECENT_CHECKS, verify_period
from creditlane.audit.whole import verify
from creditlane.cli.app import app
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs import watermark
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.scheduler import Scheduler
from creditlane.worker.jobs.watermark import read_watermark

from .ledger_rows import LATELY, add_entries, run_now

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
A_WHILE_AGO = LATELY - timedelta(days=2)


@pytest.fixture(autouse=True)
def _here(environment: dict[str, str]) -> None:
    """Jobs that are done in this process have the test's settings."""
    assert environment


def status(settings: Settings, environment_of: Callable[[Settings], dict[str, str]], *arguments: str) -> str:
    return CliRunner().invoke(app, ["status", *arguments], env=environment_of(settings)).stdout


def reconciliations(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute("select kind, rows, discrepancies from reconciliations order by run_id").fetchall()


def damage(connection: Connection, change: str, account: int, seq: int) -> None:
    """Change a row behind the back of everything that protects it."""
    connection.execute("alter table journal disable trigger all")
    connection.execute(
        f"update journal set {change} where account_id = lpad(to_hex(%s::int), 32, '0')::uuid and seq = %s".encode(),
        [account, seq],
    )
    connection.execute("alter table journal enable trigger all")


@pytest.fixture
def old_installation(connection: Connection) -> None:
    """A ledger that began a week ago, so that rows from before now are new to the first proof."""
    connection.execute("update installation set created_at = now() - interval '7 days'")


@pytest.mark.usefixtures("old_installation")
def test_rows_since_the_last_mark_are_proven(connection: Connection) -> None:
    add_entries(connection, 1, range(1, 11), A_WHILE_AGO)
    first = run_now(connection, "verify-recent")
    set_mark(connection, LATELY - HOUR)
    add_entries(connection, 1, range(11, 14), LATELY)
    second = run_now(connection, "verify-recent")
    third = run_now(connection, "verify-recent")

    assert [result["rows"] for result in (first, second, third)] == [10, 3, 0]
    assert reconciliations(connection) == [(1, 10, 0), (1, 3, 0), (1, 0, 0)]


def set_mark(connection: Connection, mark: datetime) -> None:
    """Let the last proof of new rows have ended earlier."""
    connection.execute("update reconciliations set covered_until = %s where kind = 1", [mark])


DAMAGE = [
    ("running_balance", "balance_after = 99", 1, 12),
    ("entry_sequence", "seq = 99", 1, 13),
    ("chronology", "created_at = created_at - interval '2 seconds'", 1, 13),
    ("entry_kind", "side = -1, balance_after = 11", 1, 13),
    ("account_exists", "account_id = gen_random_uuid(), seq = 1, balance_after = 1", 1, 13),
]


@pytest.mark.usefixtures("old_installation")
@pytest.mark.parametrize(("check", "change", "account", "seq"), DAMAGE, ids=[check for check, *_ in DAMAGE])
def test_damage_among_the_new_rows_is_found_kept_and_shown(
    check: str,
    change: str,
    account: int,
    seq: int,
    connection: Connection,
    settings: Settings,
    environment_of: Callable[[Settings], dict[str, str]],
) -> None:
    """Given new rows of which one is wrong, when they are proven, then it is found; and when the next proof finds
    nothing new, status still says."""
    add_entries(connection, 1, range(1, 11), A_WHILE_AGO)
    run_now(connection, "verify-recent")
    set_mark(connection, LATELY - HOUR)
    add_entries(connection, 1, range(11, 14), LATELY)
    damage(connection, change, account, seq)

    run_now(connection, "verify-recent")
    run_now(connection, "verify-recent")

    (findings,) = connection.execute("select findings from reconciliations where discrepancies > 0").fetchall()
    assert check in {found["name"] for found in findings[0]}
    report = json.loads(status(settings, environment_of, "--json"))
    assert [(proof["kind"], proof["rows"]) for proof in report["reconciliations"]] == [("recent", 13)]
    assert report["reconciliations"][0]["discrepancies"] > 0


def test_every_check_of_new_rows_is_one_of_the_whole_proof() -> None:
    assert "books" not in RECENT_CHECKS
    assert len(RECENT_CHECKS) == 22


def test_the_cost_is_that_of_the_new_rows(database_url: str, connection: Connection) -> None:
    """Given forty thousand rows of old and a hundred new ones on the same accounts, then few rows are read."""
    for account in range(1, 21):
        add_entries(connection, account, range(1, 2_001), A_WHILE_AGO)
    for account in range(1, 21):
        add_entries(connection, account, range(2_001, 2_006), LATELY)
    with psycopg.connect(database_url, autocommit=True) as plain:
        plain.execute("vacuum analyze journal")
    read = "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'journal'"

    def rows_read(opened: psycopg.Connection[Any]) -> int:
        opened.execute("select pg_stat_force_next_flush()")
        opened.execute("select pg_stat_clear_snapshot()")
        return int((opened.execute(read).fetchone() or (0,))[0])

    with psycopg.connect(database_url, autocommit=True) as opened:
        before = rows_read(opened)
        report = verify_period(opened, LATELY - HOUR, LATELY + HOUR)
        cost = rows_read(opened) - before

    assert (report.rows, report.discrepancies) == (100, 0)
    # The last pages of the period hold some older rows, too, and each statement reads them.
    assert cost < 10_000


class Interrupted(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which something happens before each statement."""

    statements = 0
    #: Is called with the number of the statement that comes next in this transaction.
    before: Callable[[int], None] = staticmethod(lambda _number: None)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        self.statements += 1
        self.before(self.statements)
        return super().cursor(*arguments, **options)


def now(connection: Connection) -> datetime:
    (moment,) = connection.execute("select clock_timestamp()").fetchone() or (None,)
    assert isinstance(moment, datetime)
    return moment


def failed(report: Judged) -> list[tuple[str, int]]:
    return [(check.name, check.discrepancies) for check in report.failed]


def test_rows_that_are_committed_while_a_period_is_proven_are_not_in_the_future(
    database_url: str, connection: Connection
) -> None:
    """Given a proof whose first statement comes late, when rows are committed before each, then none is wrong."""
    add_entries(connection, 1, range(1, 4), LATELY)

    def commit_a_row(number: int) -> None:
        if number == 1:
            connection.execute("select pg_sleep(1.1)")
        add_entries(connection, 2, range(number, number + 1), now(connection))

    with Interrupted.connect(database_url, autocommit=True) as opened:
        opened.before = commit_a_row
        report = verify_period(opened, LATELY - MINUTE, LATELY + MINUTE)
        committed = opened.statements

    assert (report.rows, failed(report)) == (3, [])
    assert committed > 5


def test_a_period_is_proven_as_it_stood_at_one_moment(database_url: str, connection: Connection) -> None:
    """Given rows that are committed while a period is proven, one of them in the future, then that proof sees none of
    them, and the next ones see them all."""
    add_entries(connection, 1, range(1, 4), LATELY)

    def commit_rows(number: int) -> None:
        if number == 3:
            add_entries(connection, 1, range(5, 6), LATELY)
            add_entries(connection, 2, range(1, 2), now(connection) + HOUR)

    period = (LATELY - MINUTE, LATELY + MINUTE)
    with Interrupted.connect(database_url, autocommit=True) as opened:
        opened.before = commit_rows
        first, second = verify_period(opened, *period), verify_period(opened, *period)

    assert (first.rows, failed(first)) == (3, [])
    assert (second.rows, dict(failed(second))["entry_sequence"], dict(failed(second))["future"]) == (4, 1, 1)
    assert dict(failed(verify(database_url)))["future"] == 1


def test_a_row_in_the_future_is_reported_once_a_proof(connection: Connection) -> None:
    """Given new rows in two pieces of time, and one in the future, then that one counts once."""
    connection.execute("update installation set created_at = %s", [LATELY - MINUTE])
    add_entries(connection, 1, range(1, 4), LATELY)
    add_entries(connection, 1, range(4, 6), LATELY + 15 * MINUTE)
    add_entries(connection, 1, range(6, 7), now(connection) + HOUR)

    run_now(connection, "verify-recent")

    assert reconciliations(connection) == [(1, 5, 1)]


def test_a_transaction_under_way_holds_the_watermark_back(database_url: str, connection: Connection) -> None:
    """Given a worker in the middle of a batch, then nothing after its beginning counts as settled."""
    with psycopg.connect(database_url, application_name="creditlane-worker x") as batch:
        (begun,) = batch.execute("select now() from leases for share").fetchone() or (None,)
        assert isinstance(begun, datetime)
        held = [read_watermark(connection) for _ in range(3)]

        assert max(held) <= begun
    assert read_watermark(connection) > begun - timedelta(seconds=watermark.LAG_SECONDS + 1)


@pytest.mark.usefixtures("old_installation")
def test_a_clock_that_went_back_takes_the_mark_along(connection: Connection) -> None:
    """Given a mark in the future, from when the clock was ahead, then rows of now are proven from the next time on."""
    run_now(connection, "verify-recent")
    set_mark(connection, datetime.now(UTC) + DAY)
    run_now(connection, "verify-recent")
    (mark,) = connection.execute(
        "select covered_until from reconciliations order by run_id desc limit 1"
    ).fetchone() or (None,)

    assert isinstance(mark, datetime)
    assert mark < datetime.now(UTC)


@pytest.mark.usefixtures("old_installation")
def test_the_whole_ledger_is_proven_and_kept(
    connection: Connection, settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    add_entries(connection, 1, range(1, 11), LATELY)
    damage(connection, "balance_after = 99", 1, 10)

    result = run_now(connection, "verify")

    assert (result["accounts"], result["rows"]) == (1, 10)
    ((kind, rows, discrepancies),) = reconciliations(connection)
    assert (kind, rows, discrepancies > 0) == (2, 10, True)
    (line,) = [line for line in status(settings, environment_of).splitlines() if line.startswith("books")]
    assert line.startswith(f"books         {discrepancies} discrepancies in 10 rows, the whole ledger ")


def test_status_says_that_nothing_was_proven_yet(
    settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    lines = status(settings, environment_of).splitlines()

    assert "books         not proven yet: no process of `creditlane jobs work` has run" in lines


def test_status_says_when_the_books_are_first_proven(
    connection: Connection, settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    """Given a process of the jobs that has counted and has yet to prove, then status says when it will; and names
    missing processes only once that time has come."""

    def status_line() -> str:
        (line,) = [line for line in status(settings, environment_of).splitlines() if line.startswith("books")]
        return line.removeprefix("books         not proven yet: ")

    def status_line_of_run(state: int) -> str:
        connection.execute("update job_runs set owner = null, owner_until = null, finished_at = null, status = 1")
        if state == 2:
            connection.execute("update job_runs set status = 2, owner = 'me', owner_until = now()")
        if state == 4:
            connection.execute("update job_runs set status = 4, finished_at = now()")
        return status_line()

    Scheduler(settings, threading.Event()).sync(connection)
    run_now(connection, "statistics")
    set_due = "update scheduled_jobs set next_due_at = %s where name = 'verify-recent'"
    connection.execute(set_due, [datetime(2100, 1, 1, 12, 10, tzinfo=UTC)])
    assert status_line() == "`verify-recent` is due at 2100-01-01 12:10:00 UTC"
    report = json.loads(status(settings, environment_of, "--json"))
    assert report["next_proof"] == {"due_at": "2100-01-01T12:10:00Z", "state": "scheduled"}

    late = "`verify-recent` is due since 2025-01-01 12:10:00 UTC, and no `creditlane jobs work --queue jobs`"
    connection.execute(set_due, [datetime(2025, 1, 1, 12, 10, tzinfo=UTC)])
    assert status_line() == f"{late} has begun it"
    connection.execute(set_due, [datetime(2100, 1, 1, 12, 20, tzinfo=UTC)])
    connection.execute("insert into job_runs (name, due_at) values ('verify-recent', '2025-01-01 12:10:00+00')")
    assert status_line_of_run(1) == f"{late} has begun it"
    assert status_line_of_run(2) == "`verify-recent`, due at 2025-01-01 12:10:00 UTC, is under way"
    assert (
        status_line_of_run(4)
        == "`verify-recent`, due at 2025-01-01 12:10:00 UTC, has failed; see `creditlane jobs list`"
    )


def statistics(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select public_id, accounts, entries, entries_last_hour, entries_last_day, outbox_rows, "
        "pending_deliveries, failed_deliveries, disabled_endpoints from statistics join stores using (store_id) "
        "where taken_at = (select max(taken_at) from statistics) order by store_id"
    ).fetchall()


def test_each_store_is_counted(connection: Connection) -> None:
    connection.execute("insert into stores (public_id, name) values ('store_other', 'Another')")
    add_entries(connection, 1, range(1, 11), A_WHILE_AGO)
    add_entries(connection, 1, range(11, 14), LATELY - 5 * HOUR)
    add_entries(connection, 2, range(1, 3), LATELY)
    connection.execute("insert into outbox (store_id, accounts, seqs, sequences) values (1, '{}', '{}', '{}')")
    connection.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "select 1, lpad(status::text, 32, '0')::uuid, 1, status, 'https://x', 'whsec_x' "
        "from generate_series(1, 3) as status"
    )
    connection.execute(
        "insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at) "
        "select 1, lpad('1', 32, '0')::uuid, gen_random_uuid(), n %% 3 + 1, now(), case n %% 3 when 0 then now() end "
        "from generate_series(1, 10) as n",
        [],
    )

    run_now(connection, "statistics")

    assert statistics(connection) == [
        ("store_default", 2, 15, 2, 5, 1, 3, 3, 1),
        ("store_other", 0, 0, 0, 0, 0, 0, 0, 0),
    ]


def test_the_next_count_adds_what_is_new(connection: Connection) -> None:
    """Given a count, when rows follow, then the next count reads those alone; and after a day all is counted anew."""
    add_entries(connection, 1, range(1, 11), A_WHILE_AGO)
    run_now(connection, "statistics")
    connection.execute("update statistics set covered_until = %s, taken_at = %s", [LATELY - HOUR, LATELY - HOUR])
    add_entries(connection, 1, range(11, 14), LATELY)
    # Behind the count's back, to see that it is not read again.
    add_entries(connection, 3, range(1, 6), A_WHILE_AGO)
    run_now(connection, "statistics")
    added = statistics(connection)[0][1:5]
    connection.execute("update statistics set recounted_at = recounted_at - interval '1 day'")
    run_now(connection, "statistics")
    recounted = statistics(connection)[0][1:5]

    assert added == (1, 13, 3, 3)
    assert recounted == (2, 18, 8, 3)


def test_status_shows_the_stores_with_their_age(
    connection: Connection, settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    add_entries(connection, 1, range(1, 11), LATELY)
    run_now(connection, "statistics")

    lines = status(settings, environment_of).splitlines()
    report = json.loads(status(settings, environment_of, "--json"))

    assert lines[-2].split() == (
        [
            "store",
            "accounts",
            "entries",
            "last",
            "hour",
            "last",
            "day",
            "outbox",
            "pending",
            "failed",
            "disabled",
        ]
    )
    assert lines[-1].split() == ["store_default", "1", "10", "10", "10", "0", "0", "0", "0"]
    (store,) = report["statistics"]
    # Accounts of a store may be in units that cannot be added up.
    assert "balance" not in store
    assert watermark.LAG_SECONDS <= store["age_seconds"] < 120
