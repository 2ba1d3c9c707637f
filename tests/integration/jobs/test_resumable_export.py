"""An export has every entry of its period, exactly, and the same bytes whether it was interrupted or not."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from creditlane.cli.app import app
from creditlane.local.processes import wait_until
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.export_request import ExportRequest
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.runs import request_run
from creditlane.worker.jobs.tasks import resumable_export
from creditlane.worker.jobs.tasks.export_files import Row, open_files
from creditlane.worker.jobs.tasks.resumable_export import READ_ENTRIES, start_export, write_export

from .conftest import DEADLINE_SECONDS, StartJobs
from .tried_work import NOTE_PIECES, PIECE_ROWS

DAY = datetime(2026, 3, 1, tzinfo=UTC)
#: Enough for some parts, with small pieces.
ENTRIES = 3_000

#: Entries over a day, some at the same moment, on a hundred accounts, of which one has no row and one a hostile name;
#: beside them refusals, and another store's entries.
FILL = f"""
insert into stores (public_id, name) values ('store_other', 'Another');
insert into accounts
select store, lpad(to_hex(n), 32, '0')::uuid, 'customer "' || n || '",' || chr(10) || 'x', 'main', 'main', 'credits', 1,
    0, '2026-03-01', '2026-03-01'
from generate_series(1, 2) as store, generate_series(1, 99) as n;
insert into journal
    (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key, reference)
select store, 2, 1, 1 + n / 100, '2026-03-01'::timestamptz + (n / 7) * interval '200 seconds 1 microsecond',
    lpad(to_hex(n % 100), 32, '0')::uuid, 10::numeric ^ 40 + n, 10::numeric ^ 50 + n, 'key ' || n, 'reference ' || n
from generate_series(1, 2) as store, generate_series(0, {ENTRIES - 1}) as n;
insert into journal
    (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key, rejection)
select 1, 3, -1, -1 - n, '2026-03-01 06:00'::timestamptz, lpad('1', 32, '0')::uuid, 1, 0, 'no ' || n,
    'insufficient_balance'
from generate_series(1, 50) as n;
"""

#: Writes an export in a process that ends without a word when it has noted its position so many times.
WRITE_AND_DIE = """
import os, signal, sys
from uuid import UUID
from creditlane.schemas.settings import load_settings
from creditlane.worker.jobs.tasks import resumable_export
resumable_export.PIECE_ROWS, resumable_export.NOTE_PIECES = int(sys.argv[4]), int(sys.argv[5])
pieces = [0]
def progress(_rows, _share):
    pieces[0] += 1
    if pieces[0] == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
resumable_export.write_export(load_settings(), resumable_export.Started(int(sys.argv[1]), UUID(sys.argv[2])), progress)
"""

FORMATS = pytest.mark.parametrize("form", ["csv", "parquet"])


@pytest.fixture(autouse=True)
def _filled(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.transaction():
        connection.execute(FILL.encode())
    monkeypatch.setattr(resumable_export, "PIECE_ROWS", PIECE_ROWS)
    monkeypatch.setattr(resumable_export, "NOTE_PIECES", NOTE_PIECES)


def request_of(directory: Path, form: str, **fields: Any) -> ExportRequest:
    values = {"store": "store_default", "since": DAY, "until": DAY + timedelta(days=1), "format": form, **fields}
    return ExportRequest(directory=directory, **values)


def export(settings: Settings, connection: Connection, request: ExportRequest) -> int:
    return write_export(settings, start_export(connection, request), lambda _rows, _share: None).rows


def digests(target: Path) -> dict[str, str]:
    """Return what is in each file of an export."""
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(target: Path) -> list[dict[str, Any]]:
    if target.suffix == ".csv":
        with target.open(newline="") as file:
            return list(csv.DictReader(file))
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(target).to_pylist()
    return [{**row, "created_at": f"{row['created_at']:%Y-%m-%dT%H:%M:%S.%fZ}"} for row in rows]


@FORMATS
def test_every_entry_of_the_period_is_there_exactly(
    form: str, settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    request = request_of(tmp_path, form)

    assert export(settings, connection, request) == ENTRIES
    rows = rows_of(request.target)

    expected = connection.execute(
        "select account_id::text, seq, amount::text, balance_after::text, reference, created_at from journal "
        "where store_id = 1 and seq > 0 order by created_at, account_id, seq"
    ).fetchall()
    assert [tuple(row[name] for name in ("account_id", "amount", "balance_after", "reference")) for row in rows] == [
        ("cca_" + account.replace("-", ""), amount, balance, reference)
        for account, _, amount, balance, reference, _ in expected
    ]
    assert [row["created_at"] for row in rows] == [
        f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" for *_, moment in expected
    ]
    assert rows[1] == {
        "entry_id": "cce_" + f"{1:032x}" + "1",
        "account_id": "cca_" + f"{1:032x}",
        "customer_id": 'customer "1",\nx',
        "name": "main",
        "unit_label": "credits",
        "transaction_id": "cct_" + f"{1:032x}" + "1",
        "side": "credit",
        "amount": str(10**40 + 1),
        "balance_after": str(10**50 + 1),
        "reference": "reference 1",
        "created_at": "2026-03-01T00:00:00.000000Z",
    }


@FORMATS
@pytest.mark.parametrize("pieces", [1, NOTE_PIECES, 2 * NOTE_PIECES + 1, ENTRIES // PIECE_ROWS])
def test_an_export_that_was_killed_goes_on_and_equals_one_that_was_not(
    form: str,
    pieces: int,
    settings: Settings,
    connection: Connection,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """Given an export that is killed after some pieces, when it is started again, then what it makes is, byte for byte,
    what an export without an interruption makes, and what was noted was not written again."""
    whole, interrupted = request_of(tmp_path / "whole", form), request_of(tmp_path / "interrupted", form)
    export(settings, connection, whole)
    started = start_export(connection, interrupted)
    arguments = [str(started.store_id), str(started.export_id), str(pieces), str(PIECE_ROWS), str(NOTE_PIECES)]
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, *arguments], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not interrupted.target.exists()

    again = start_export(connection, interrupted)
    reported: list[int] = []
    written = write_export(settings, again, lambda rows, _share: reported.append(rows))

    assert (again, written.rows) == (started, ENTRIES)
    assert digests(interrupted.target) == digests(whole.target)
    noted = pieces // NOTE_PIECES * NOTE_PIECES
    assert reported == [PIECE_ROWS * piece for piece in range(noted + 1, ENTRIES // PIECE_ROWS + 1)]
    assert [path.name for path in (tmp_path / "interrupted").iterdir()] == [interrupted.target.name]


@FORMATS
def test_an_export_by_the_jobs_survives_its_process(
    form: str, settings: Settings, connection: Connection, start_jobs: StartJobs, tmp_path: Path
) -> None:
    """Given an export that a process of the jobs writes, when that is killed in the middle, then the next process goes
    on, and what it makes equals an export without an interruption."""
    whole, request = request_of(tmp_path / "whole", form), request_of(tmp_path / "jobs", form)
    export(settings, connection, whole)
    started = start_export(connection, request)
    arguments = {"store_id": started.store_id, "export_id": str(started.export_id)}
    run_id = request_run(connection, "export", arguments)
    killed = start_jobs("jobs", "kill", "export noted", "3")
    assert killed.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert not request.target.exists()
    start_jobs("jobs")

    done = "select status, attempts, outcome ->> 'rows' from job_runs where run_id = %s"
    expected = (3, 2, str(ENTRIES))
    assert wait_until(lambda: connection.execute(done, [run_id]).fetchone() == expected, seconds=DEADLINE_SECONDS)
    assert digests(request.target) == digests(whole.target)


@FORMATS
def test_a_partial_export_that_is_shorter_than_noted_is_made_from_the_beginning(
    form: str, settings: Settings, connection: Connection, environment: dict[str, str], tmp_path: Path
) -> None:
    """Given an export that was begun on another disk, then it is made anew, whole."""
    request = request_of(tmp_path, form)
    started = start_export(connection, request)
    arguments = [str(started.store_id), str(started.export_id), "9", str(PIECE_ROWS), str(NOTE_PIECES)]
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, *arguments], env=environment, check=False)
    (partial,) = tmp_path.iterdir()
    for path in sorted(partial.iterdir())[:1] if form == "parquet" else []:
        path.unlink()
    if form == "csv":
        os.truncate(partial, 10)

    assert export(settings, connection, request) == ENTRIES
    assert len(rows_of(request.target)) == ENTRIES


@FORMATS
def test_a_period_without_entries_has_a_header_and_no_rows(
    form: str, settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    request = request_of(tmp_path, form, since=DAY - timedelta(days=400), until=DAY)

    assert export(settings, connection, request) == 0
    if form == "csv":
        assert request.target.read_text() == ",".join(Row._fields) + "\n"
    else:
        assert pyarrow.parquet.read_table(request.target).schema.names == list(Row._fields)
    assert rows_of(request.target) == []


def test_the_bounds_are_inclusive_and_exclusive(settings: Settings, connection: Connection, tmp_path: Path) -> None:
    step = timedelta(seconds=200, microseconds=1)
    request = request_of(tmp_path, "csv", since=DAY + step, until=DAY + 3 * step)

    assert export(settings, connection, request) == 14
    moments = {row["created_at"] for row in rows_of(request.target)}
    assert moments == {"2026-03-01T00:03:20.000001Z", "2026-03-01T00:06:40.000002Z"}


def test_a_period_that_has_not_ended_is_refused(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must have ended"):
        start_export(connection, request_of(tmp_path, "csv", until=datetime.now(UTC)))


def test_a_store_that_is_not_there_is_refused(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no store store_missing"):
        start_export(connection, request_of(tmp_path, "csv", store="store_missing"))


@FORMATS
def test_what_is_there_is_not_written_over(
    form: str, settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    request = request_of(tmp_path, form)
    export(settings, connection, request)
    before = digests(request.target)

    with pytest.raises(ConfigurationError, match="is there already"):
        start_export(connection, request)

    assert digests(request.target) == before


@FORMATS
def test_one_process_at_a_time_writes(form: str, settings: Settings, connection: Connection, tmp_path: Path) -> None:
    request = request_of(tmp_path, form)
    started = start_export(connection, request)

    with (
        open_files(form, request.target),
        pytest.raises(ConfigurationError, match="Another process writes"),
    ):
        write_export(settings, started, lambda _rows, _share: None)


@FORMATS
@pytest.mark.parametrize("trap", ["link", "hard link", "link to nowhere", "writable by all", "another user's"])
def test_nothing_is_written_to_what_somebody_else_has_put_there(
    form: str, trap: str, settings: Settings, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a folder in which others may write, when the export's name is taken there by a trap, then it is refused and
    what the trap leads to stays."""
    request = request_of(tmp_path / "shared", form)
    partial = request.target.with_name(request.target.name + ".partial")
    partial.parent.mkdir(mode=0o777)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if trap == "link":
        if form == "parquet":
            victim = tmp_path / "folder" / "part-000001.parquet"
            victim.parent.mkdir()
            victim.write_text("precious")
            partial.symlink_to(victim.parent)
        else:
            partial.symlink_to(victim)
    elif trap == "link to nowhere":
        partial.symlink_to(tmp_path / "nowhere")
    elif trap == "hard link":
        os.link(victim, partial)
    else:
        partial.mkdir() if form == "parquet" else partial.write_text("")
        partial.chmod(0o777 if trap == "writable by all" else 0o700)
    if trap == "another user's":
        monkeypatch.setattr("creditlane.worker.jobs.tasks.export_files.os.geteuid", lambda: os.getuid() + 1)
    started = start_export(connection, request)

    with pytest.raises(ConfigurationError, match="remove it"):
        write_export(settings, started, lambda _rows, _share: None)

    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert not request.target.exists()


@FORMATS
def test_a_folder_that_is_exchanged_while_it_is_written_gets_no_name(
    form: str, settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    """Given somebody who may rename what is in the folder, then what is not ours is not passed off as the export."""
    request = request_of(tmp_path, form)
    partial = request.target.with_name(request.target.name + ".partial")
    aside = tmp_path / "aside"

    def exchange(_rows: int, _share: float) -> None:
        if not aside.exists():
            partial.rename(aside)
            partial.mkdir() if form == "parquet" else partial.write_text("forged")

    with pytest.raises(ConfigurationError, match="is not what was written"):
        write_export(settings, start_export(connection, request), exchange)

    # Nothing of ours went into what was put there instead.
    assert list(request.target.iterdir()) == [] if form == "parquet" else request.target.read_text() == "forged"


def test_a_link_where_the_export_goes_is_not_written_to(connection: Connection, tmp_path: Path) -> None:
    request = request_of(tmp_path, "csv")
    request.target.symlink_to(tmp_path / "nowhere")

    with pytest.raises(ConfigurationError, match="is there already"):
        start_export(connection, request)


@pytest.mark.parametrize("is_safe", [False, True])
def test_texts_are_exact_unless_they_are_for_spreadsheets(
    is_safe: bool, settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    formulas = ["=cmd|'/C calc'!A0", "@SUM(1)", "+1", "-2+3", "\t=1", "\r=1", "  =1", "\uff1d1"]
    harmless = ["'quoted", "5=5", "a-b", "x\n=1"]
    texts = [*formulas, *harmless]
    connection.execute(
        "insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, "
        "overdraft_limit, idempotency_key, reference) "
        "select 1, 3, -1, 1000 + n, '2026-03-01 23:59'::timestamptz + n * interval '1 second', "
        "lpad('1', 32, '0')::uuid, 1, -5, 5, 'text ' || n, text from unnest(%s::text[]) with ordinality as t (text, n)",
        [texts],
    )
    request = request_of(tmp_path, "csv", safe_for_spreadsheets=is_safe)
    export(settings, connection, request)

    rows = rows_of(request.target)[-len(texts) :]
    mark = "'" if is_safe else ""
    assert [row["reference"] for row in rows] == [*(mark + text for text in formulas), *harmless]
    assert {row["balance_after"] for row in rows} == {"-5"}
    assert request.target.name.endswith("-spreadsheet.csv") is is_safe


def test_only_csv_is_for_spreadsheets(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only a CSV file"):
        request_of(tmp_path, "parquet", safe_for_spreadsheets=True)


def test_an_export_that_was_killed_before_it_was_noted_as_finished_is(
    settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    request = request_of(tmp_path, "parquet")
    started = start_export(connection, request)
    write_export(settings, started, lambda _rows, _share: None)
    before = digests(request.target)
    connection.execute("update exports set finished_at = null")

    assert write_export(settings, started, lambda _rows, _share: None).rows == ENTRIES
    assert digests(request.target) == before
    assert connection.execute("select finished_at is not null from exports").fetchall() == [(True,)]


def test_parquet_without_its_package_says_what_to_install(
    settings: Settings, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start_export(connection, request_of(tmp_path, "parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'creditlane\[parquet\]'"):
        write_export(settings, started, lambda _rows, _share: None)


def test_a_stretch_of_time_is_read_by_its_index(settings: Settings, connection: Connection) -> None:
    """Given a journal of many pages, then a minute of it reads few of them."""
    connection.execute(
        "insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, "
        "idempotency_key, reference) select 1, 2, 1, n, '2026-04-01'::timestamptz + n * interval '1 second', "
        "lpad('7', 32, '0')::uuid, 1, 1, 'more ' || n, repeat('x', 200) from generate_series(1000, 60000) as n"
    )
    with psycopg.connect(settings.require_database_url(), autocommit=True) as plain:
        plain.execute("vacuum analyze journal")
    values = {
        "store_id": 1,
        "since": datetime(2026, 4, 1, 8, tzinfo=UTC),
        "until": datetime(2026, 4, 1, 8, 1, tzinfo=UTC),
        "after_created_at": DAY,
        "after_account": "0" * 32,
        "after_seq": 0,
    }

    plan = connection.execute(f"explain (analyze, buffers, format json) {READ_ENTRIES}".encode(), values).fetchone()

    assert plan is not None
    top = plan[0][0]["Plan"]
    assert (top["Actual Rows"], "journal_created_idx" in str(plan)) == (60, True)
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 400


def test_the_command_writes_and_says_where(
    settings: Settings, environment_of: Callable[[Settings], dict[str, str]], tmp_path: Path
) -> None:
    def run(*arguments: str) -> Result:
        command = ["export", "--store", "store_default", "--output", str(tmp_path), *arguments]
        return CliRunner().invoke(app, command, env=environment_of(settings))

    done = run("--from", "2026-03-01", "--to", "2026-03-01T12:00:00+02:00")
    again = run("--from", "2026-03-01T00:00:00.000Z", "--to", "2026-03-01T10:00:00.000000+00:00", "--format", "parquet")
    wrong = run("--from", "2026-03-02", "--to", "2026-03-01")
    none = run("--from", "yesterday", "--to", "2026-03-01")

    target = tmp_path / "entries-store_default-20260301T000000Z-20260301T100000Z.csv"
    assert done.stdout == f"1,260 entries in {target}\n"
    assert len(rows_of(target)) == 1_260
    assert again.stdout == f"1,260 entries in {target.with_suffix('')}\n"
    assert "the period must begin before it ends" in str(wrong.exception)
    assert (none.exit_code, "2026-03-01T12:30:00.250Z" in none.stderr) == (2, True)
