"""What other commands do in the directory of a stack that runs: they use it, and leave it as it is."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(local_stack: Path, shell_environment: dict[str, str]) -> Run:
    """Runs `creditlane` there to its end."""

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["creditlane", *arguments],  # noqa: S607  found on the path of its environment
            cwd=local_stack,
            env=shell_environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def running_as(stack: Path) -> tuple[int, int | None, int | None]:
    """Return the process ids of the stack and of its servers."""
    data_dir = stack / ".creditlane"
    pid: int = json.loads((data_dir / "stack.json").read_text())["pid"]
    return pid, EmbeddedPostgres(data_dir / "postgres").pid, EmbeddedRedis(data_dir / "redis").pid


def usage(rows: int) -> str:
    lines = [f"cust_{row % 7},{row},call {row}" for row in range(1, rows + 1)]
    return "\n".join(["customer_id,units,reference", *lines])


def test_a_second_one_on_the_same_data_says_so(local_stack: Path, run: Run) -> None:
    before = running_as(local_stack)

    second = run("up")

    assert second.returncode == 1
    assert f"is already running by process {before[0]}" in second.stderr
    assert second.stderr.count("\n") == 1
    assert running_as(local_stack) == before
    assert run("env").returncode == 0


def test_the_demo_uses_a_stack_that_runs_and_leaves_it_running(local_stack: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text(usage(rows=50))
    before = running_as(local_stack)

    result = run("demo", "--input", path)

    assert result.returncode == 0
    assert f"Using the stack of process {before[0]}" in result.stdout
    assert "50 applied" in result.stdout.splitlines()
    assert running_as(local_stack) == before
    assert run("env").returncode == 0


def test_another_file_is_no_replay(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "another.csv"
    path.write_text(usage(rows=20))
    run("demo", "--input", path)
    path.write_text(usage(rows=21))

    result = run("demo", "--input", path)

    assert result.returncode == 0
    assert "21 applied" in result.stdout.splitlines()
