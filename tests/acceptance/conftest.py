"""The `creditlane` command in processes of its own, and which processes it leaves behind."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from creditlane.local.processes import is_running, wait_until
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis

#: The official client.
SDK = "creem@1.13.0"

COMMAND = [sys.executable, "-P", "-c", "from creditlane.cli.main import main; main()"]
#: The argument by which a worker process of `up` is known.
WORKER = "creditlane.cli.worker_child"
#: Far more than anything here takes, since the machine may be busy, in seconds.
DEADLINE_SECONDS = 60.0


class StackDirectory(NamedTuple):
    """A directory in which a stack is run."""

    directory: Path

    @property
    def data_dir(self) -> Path:
        return self.directory / ".creditlane"

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command whose output is read along the way."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def servers(self) -> list[int | None]:
        """Return the process ids of Postgres and Redis, None for one that does not run."""
        return [EmbeddedPostgres(self.data_dir / "postgres").pid, EmbeddedRedis(self.data_dir / "redis").pid]


@pytest.fixture(scope="session")
def sdk_directory(workspace: Path) -> Path:
    """A directory with the official client."""
    directory = workspace / "sdk"
    directory.mkdir()
    command = ["npm", "install", "--prefix", str(directory), "--no-audit", "--no-fund", "--ignore-scripts", SDK]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return directory


@pytest.fixture
def stack_directory(workspace: Path) -> Iterator[StackDirectory]:
    """A directory for a stack; whatever a failing test leaves running there is stopped."""
    directory = workspace / f"up-{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    stack_directory = StackDirectory(directory)
    yield stack_directory
    if stack_directory.data_dir.exists():
        EmbeddedRedis(stack_directory.data_dir / "redis").stop()
        EmbeddedPostgres(stack_directory.data_dir / "postgres").stop(immediate=True)


@pytest.fixture
def start_up(stack_directory: StackDirectory) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts `creditlane up` and returns when it is ready; it is gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        process = stack_directory.start("up")
        started.append(process)
        read_until(process, "Ctrl-C stops all of it")
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)


def read_until(process: "subprocess.Popen[str]", text: str) -> list[str]:
    """Return the lines up to the one that has the text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came: {''.join(lines)}")


@pytest.fixture
def read_lines() -> Callable[["subprocess.Popen[str]", str], list[str]]:
    """Gives `read_until`."""
    return read_until


def children_of(pid: int, argument: str) -> list[int]:
    """Return the children of a process that were started with this argument."""
    listed = subprocess.run(["/bin/ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    return [child for child, parent in pairs if parent == pid and is_running(child, argument)]


@pytest.fixture
def workers_of() -> Callable[[int], list[int]]:
    """Gives the two worker processes of an `up` that runs under this process id."""

    def workers(up: int) -> list[int]:
        found: list[int] = []

        def are_two() -> bool:
            found[:] = children_of(up, WORKER)
            return len(found) == 2

        assert wait_until(are_two, seconds=DEADLINE_SECONDS)
        return found

    return workers


@pytest.fixture
def are_gone() -> Callable[[list[int]], bool]:
    """Returns whether worker processes have ended, in good time."""

    def gone(pids: list[int]) -> bool:
        return wait_until(lambda: not any(is_running(pid, WORKER) for pid in pids), seconds=DEADLINE_SECONDS)

    return gone
