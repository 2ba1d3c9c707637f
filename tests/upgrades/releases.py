"""The releases that run beside each other: this tree, and the one before it, as its tag has it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: The release before this tree's version, and what its tag names: a clone may have come without tags.
PREVIOUS_TAG = "v0.1.0"
PREVIOUS_COMMIT = "2471fe92653afdd0c3289c40f86224fb26d6bee8"
#: Where the command line of each begins.
PREVIOUS_MAIN = "creditlane.local.entry"
CURRENT_MAIN = "creditlane.cli.main"
#: What no process of a release needs.
LEFT_OUT = (":(exclude)tests", ":(exclude)docs", ":(exclude)examples", ":(exclude)requirements")
#: How long a command may take, in seconds; the machine may be busy.
DEADLINE_SECONDS = 120


@dataclass(frozen=True)
class Release:
    """One release: how its programs are started. Their dependencies are those of the tests."""

    name: str
    main: str
    #: Where it is; None: it is installed.
    package: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What makes Python import it."""
        return {} if self.package is None else {"PYTHONPATH": str(self.package.parent)}

    def command(self, *arguments: str) -> list[str]:
        """Return what runs its command line."""
        return self.program(f"from {self.main} import main; main()", *arguments)

    def program(self, text: str, *arguments: str) -> list[str]:
        """Return what runs a program that is given as text."""
        return [sys.executable, "-P", "-c", text, *arguments]

    def script(self, path: Path, *arguments: str) -> list[str]:
        """Return what runs a program of the tests that imports it."""
        return [sys.executable, "-P", str(path), *arguments]

    def run(self, command: list[str], environment: Mapping[str, str] | None = None) -> str:
        """Run a command of it to its end and return what it printed; fail if it fails."""
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {}), **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, f"{self.name}: {command[3:]} ended with {done.returncode}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def current() -> Release:
    """This tree, as it is installed."""
    return Release("current", CURRENT_MAIN)


@pytest.fixture(scope="session")
def previous(workspace: Path) -> Release:
    """The release before, from its tag."""
    package = workspace / "previous" / "creditlane"
    archive = _git("archive", "--format=tar", _commit_of_previous(), "--", ".", *LEFT_OUT)
    package.mkdir(parents=True)
    subprocess.run(["tar", "-xf", "-", "-C", str(package)], input=archive, check=True, timeout=DEADLINE_SECONDS)  # noqa: S607
    return Release("previous", PREVIOUS_MAIN, package)


def _commit_of_previous() -> str:
    """Return the commit of the tag, or skip where there is no history to have it from."""
    if not (ROOT / ".git").exists():
        pytest.skip(f"{ROOT} has no git history, so that {PREVIOUS_TAG} cannot be built to run beside this version")
    for name in (PREVIOUS_TAG, PREVIOUS_COMMIT):
        try:
            return _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
        except subprocess.CalledProcessError:
            continue
    pytest.skip(f"the git history of {ROOT} ends before {PREVIOUS_TAG} ({PREVIOUS_COMMIT[:12]}): fetch all of it")


def _git(*arguments: str) -> bytes:
    # A tree that another user owns, as in containers, is read and nothing else.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_SECONDS).stdout
