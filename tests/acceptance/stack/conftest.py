"""The local stack as a user starts it: `creditlane up` in a directory of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: The last line that `creditlane up` prints before its log.
LAST_LINE = "Ctrl-C stops all of it."
STOP_SECONDS = 60.0
COMMAND = '#!/bin/sh\nexec {python} -c "from creditlane.cli.main import main; main()" "$@"\n'


@pytest.fixture(scope="session")
def shell_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `creditlane` is this package's command and no server is set."""
    directory = tmp_path_factory.mktemp("bin")
    command = directory / "creditlane"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("CREDITLANE_")}
    return {**outside, "PATH": f"{directory}:{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def started_stack(workspace: Path, shell_environment: dict[str, str]) -> Iterator[tuple[Path, list[str]]]:
    """A directory in which `creditlane up` runs, and the lines that it printed."""
    directory = workspace / "up"
    directory.mkdir()
    with (directory / "up.log").open("w") as log:
        process = subprocess.Popen(
            ["creditlane", "up", "--workers", "1"],  # noqa: S607  found on the path of its environment
            cwd=directory,
            env=shell_environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if lines[-1] == LAST_LINE:
            break
    yield directory, lines
    process.terminate()
    process.communicate(timeout=STOP_SECONDS)


@pytest.fixture(scope="session")
def local_stack(started_stack: tuple[Path, list[str]]) -> Path:
    """A directory in which `creditlane up` runs."""
    assert started_stack[1][-1] == LAST_LINE
    return started_stack[0]
