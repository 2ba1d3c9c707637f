"""A real stack for tests: `creditlane up` on free ports, in a directory of its own that is gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..schemas.errors import CreditlaneError
from ..schemas.settings import PREFIX, Settings

#: How long the stack may take to start and to stop, and a command to run, in seconds. The machine may be busy.
DEADLINE_SECONDS = 120.0
#: How often the log is read while the stack starts, in seconds.
POLL_SECONDS = 0.05
#: What is written when everything runs.
READY = "Ctrl-C stops all of it"
#: How much of the log goes into an error, in characters.
LOG_TAIL_CHARACTERS = 2_000

_UP = (sys.executable, "-P", "-m", f"{__package__}.stack_process", "up", "--workers", "1")
_COMMAND = (sys.executable, "-P", "-c", f"from {__package__}.stack_process import run_command; run_command()")


class LocalStack:
    """A stack that runs: how to reach it, and a new store for every test that wants to be alone."""

    def __init__(self, data_dir: Path, environment: dict[str, str]) -> None:
        #: The variables by which other processes reach it: `env={**os.environ, **stack.environment}`.
        self.environment = environment
        self._data_dir = data_dir

    @property
    def settings(self) -> Settings:
        """Settings for clients of its first store, which wait for as long as a busy machine may take."""
        fields = {name.removeprefix(PREFIX).lower(): value for name, value in self.environment.items()}
        known = {name: fields[name] for name in Settings.model_fields if name in fields}
        return Settings.model_validate({**known, "wait_timeout_seconds": DEADLINE_SECONDS})

    @property
    def api_url(self) -> str | None:
        """Where its HTTP API is; None where the extra `api` is not installed."""
        return self.environment.get("CREDITLANE_API_URL")

    @property
    def api_key(self) -> str | None:
        """A key of the API for the first store."""
        return self.environment.get("CREDITLANE_API_KEY")

    def new_store(self, name: str = "test") -> Settings:
        """Make a store in which nothing is yet, and return settings for its clients."""
        return self.settings.model_copy(update={"store": self.run("stores", "create", name).strip()})

    def new_api_key(self, store: str) -> str:
        """Make a key of the API for a store and return it."""
        return self.run("keys", "create", "--store", store).strip()

    def run(self, *arguments: str) -> str:
        """Run a `creditlane` command against the stack and return what it prints.

        Raises:
            CreditlaneError: it failed; the message is what it says of that.
        """
        return _run(arguments, {**_bare_environment(), **self.environment})


@contextmanager
def running_stack() -> Iterator[LocalStack]:
    """Run a stack for as long as the context lasts. It is stopped also when this process is killed.

    Raises:
        CreditlaneError: it did not start; the message has the end of its log.
    """
    directory = Path(tempfile.mkdtemp(prefix="creditlane-"))
    # As root: for the user of Postgres to pass through.
    directory.chmod(0o711)
    try:
        data_dir, log = directory / "data", directory / "log"
        process = _start(data_dir, log)
        try:
            _wait_until_ready(process, log)
            record = json.loads(_run(("env", "--json", "--data-dir", str(data_dir)), _bare_environment()))
            yield LocalStack(data_dir, record["settings"])
        finally:
            _stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start(data_dir: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [*_UP, "--data-dir", str(data_dir)],
            env=_bare_environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for pytest, which stops it in good order.
            start_new_session=True,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while READY not in (text := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() >= deadline:
            raise CreditlaneError(f"the stack did not start: {text[-LOG_TAIL_CHARACTERS:].strip()}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Once: a second signal would not let it stop its servers. So its input is closed when it is over.
    process.terminate()
    try:
        process.wait(DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _run(arguments: tuple[str, ...], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [*_COMMAND, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    if done.returncode:
        raise CreditlaneError(done.stderr.strip())
    return done.stdout


def _bare_environment() -> dict[str, str]:
    """Return the environment without what somebody has set to reach another stack."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
