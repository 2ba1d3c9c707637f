"""Real worker processes for the tests: started, signalled, watched through their logs, and gone after the test."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from creditlane.local.processes import wait_until
from creditlane.schemas.settings import Settings

from ..roles import settings_of

#: How long anything may take before the test fails: far more than it takes, since the machine may be busy.
DEADLINE_SECONDS = 40.0
RUNNER = Path(__file__).with_name("worker_with_failpoint.py")


class Failpoint(NamedTuple):
    """What a worker does to itself at the nth step of that name: "kill", "stop", "raise", "linger" or "none"."""

    action: str = "none"
    step: str = ""
    nth: int = 1


#: A worker that only reports its steps.
NO_FAILPOINT = Failpoint()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until the condition holds, or fail saying what was waited for."""
    assert wait_until(lambda: bool(condition()), seconds=seconds), f"not within {seconds:g} s: {what}"


class WorkerProcess:
    """One worker process and its log."""

    def __init__(self, settings: Settings, log_path: Path, failpoint: Failpoint | None) -> None:
        command = ["-m", "creditlane.worker"] if failpoint is None else [str(RUNNER), *map(str, failpoint)]
        self.log_path = log_path
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | environment(settings_of("worker", settings)),
                cwd=log_path.parent,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self.pid = self._process.pid

    def log(self) -> list[dict[str, Any]]:
        """Return what the worker has logged so far."""
        # Two threads that log at once may share a line.
        lines = self.log_path.read_text().replace("}{", "}\n{").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def has_logged(self, event: str, **fields: Any) -> bool:
        return self.count_logged(event, **fields) > 0

    def count_logged(self, event: str, **fields: Any) -> int:
        wanted = {"event": event, **fields}
        return sum(wanted.items() <= line.items() for line in self.log())

    def wait_for_log(self, event: str, *, after: int = 0, **fields: Any) -> None:
        """Wait until the event was logged more than `after` times."""
        wait_for(lambda: self.count_logged(event, **fields) > after or self.has_ended, f"{event} {fields}")
        assert self.count_logged(event, **fields) > after, f"ended without {event!r}:\n{self.end_of_log()}"

    def end_of_log(self) -> str:
        """Return the last lines, for a person who wonders what happened."""
        return self.log_path.read_text()[-4000:]

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_for_exit(self) -> int:
        """Return the exit code; negative for the signal that ended it."""
        wait_for(lambda: self.has_ended, f"the end of worker {self.pid}")
        return self._process.wait()

    def wait_until_stopped(self) -> None:
        """Wait until the process has stopped itself."""
        wait_for(self._is_stopped, f"worker {self.pid} stopping itself")

    def _is_stopped(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
        return pid == self.pid and os.WIFSTOPPED(status)

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        if not self.has_ended:
            self._process.kill()
            self._process.wait()


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker with these settings, and perhaps a failpoint; all of them are gone after the test."""
    workers: list[WorkerProcess] = []

    def start(settings: Settings, failpoint: Failpoint | None = None, **overrides: Any) -> WorkerProcess:
        settings = settings.model_copy(update=overrides)
        worker = WorkerProcess(settings, tmp_path / f"worker-{len(workers)}.log", failpoint)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.end()


def environment(settings: Settings) -> dict[str, str]:
    """Return the settings as the variables that give them."""
    values = settings.model_dump(exclude_none=True)
    return {f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}
