"""`creditlane demo` takes a file through the whole lane, proves the books, and replays on a second run."""

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import StackDirectory

ReadLines = Callable[["subprocess.Popen[str]", str], list[str]]


def trace(rows: int) -> str:
    """Return a file of the kind without a customer column, its last line without an end, as the real one has it."""
    lines = [f"2023-11-16 18:17:{row % 60:02d}.0,{row * 37 % 4_800},{row % 11}" for row in range(1, rows)]
    return "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:17:00.0,0,0", *lines])


def usage(rows: int) -> str:
    lines = [f"cust_{row % 7},{row},call {row}" for row in range(1, rows + 1)]
    return "\n".join(["customer_id,units,reference", *lines])


def test_the_sample_runs_and_a_second_run_replays_it(stack_directory: "StackDirectory") -> None:
    first = stack_directory.run("demo")
    again = stack_directory.run("demo")

    assert (first.returncode, first.stderr) == (0, "")
    assert "2,000 applied" in first.stdout.splitlines()
    assert first.stdout.count("\ncust_") == 10
    assert re.search(r"results/s; latency p50 [0-9.]+ ms, p99 [0-9.]+ ms", first.stdout)
    assert "\n0 discrepancies\n" in first.stdout
    assert again.returncode == 0
    assert "2,000 replayed, no balance changed" in again.stdout.splitlines()
    assert table(again.stdout) == table(first.stdout)
    assert stack_directory.servers() == [None, None]


def table(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("cust")]


def test_a_trace_is_dealt_out_over_the_accounts(stack_directory: "StackDirectory") -> None:
    (stack_directory.directory / "trace.csv").write_text(trace(rows=300))

    result = stack_directory.run("demo", "--input", "trace.csv", "--accounts", "4")

    assert result.returncode == 0
    assert "from the account of customer i modulo 4" in result.stdout
    assert "1 rows of 0 skipped" in result.stdout
    assert "299 applied" in result.stdout.splitlines()
    rows = [line.split() for line in table(result.stdout)[1:]]
    assert sorted((row[0], row[2], row[3]) for row in rows) == expected_of_trace(rows=300, accounts=4)


def expected_of_trace(rows: int, accounts: int) -> list[tuple[str, str, str]]:
    totals = [[0, 0] for _ in range(accounts)]
    for row in range(1, rows):
        totals[row % accounts][0] += 1
        totals[row % accounts][1] += row * 37 % 4_800 + row % 11
    return [(f"customer_{number:03d}", str(debits), str(units)) for number, (debits, units) in enumerate(totals)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("customer_id,units,reference\nann,1.5,a\n", "line 2, column units"),
        ("who,what\n", "line 1: the header must be"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_before_anything_starts(
    content: str, message: str, stack_directory: "StackDirectory"
) -> None:
    (stack_directory.directory / "usage.csv").write_text(content)

    result = stack_directory.run("demo", "--input", "usage.csv")

    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not stack_directory.data_dir.exists()


def test_a_file_that_is_not_there_is_a_usage_error(stack_directory: "StackDirectory") -> None:
    result = stack_directory.run("demo", "--input", Path("nowhere.csv"))

    assert result.returncode == 2
    assert "nowhere.csv" in result.stderr


def test_an_interrupted_run_stops_everything_and_can_be_repeated(
    stack_directory: "StackDirectory", read_lines: ReadLines
) -> None:
    (stack_directory.directory / "usage.csv").write_text(usage(rows=5_000))
    demo = stack_directory.start("demo", "--input", "usage.csv")
    read_lines(demo, "worker processes take commands")

    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert "Traceback" not in output
    assert stack_directory.servers() == [None, None]
    result = stack_directory.run("demo", "--input", "usage.csv")
    assert result.returncode == 0
    assert "\n0 discrepancies\n" in result.stdout
