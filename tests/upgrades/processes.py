"""Processes of either release on one ledger, and what asks them for things meanwhile; gone at the end."""

import http.client
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from creditlane.local.processes import wait_until
from creditlane.schemas.roles import Part
from creditlane.schemas.settings import Settings

from ..api_address import address_printed
from ..roles import settings_of
from .releases import Release

#: How long anything may take before the test fails: far more than it takes, since the machine may be busy, in seconds.
DEADLINE_SECONDS = 90.0
#: Pause between calls over HTTP, and before one that did not get through is made again, in seconds.
PAUSE_SECONDS = 0.04
LOAD = Path(__file__).with_name("load.py")

Line = dict[str, Any]


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Wait until the condition holds, or fail saying what was waited for."""
    assert wait_until(lambda: bool(condition()), seconds=DEADLINE_SECONDS), f"not within {DEADLINE_SECONDS:g} s: {what}"


class Process:
    """One process of one release."""

    def __init__(self, release: Release, part: Part, command: list[str], settings: Settings, path: Path) -> None:
        self.name = path.stem
        self._path = path
        with path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment(settings_of(part, settings)), **release.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def first_line(self) -> str:
        """Return what it says first, once it has."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self._path.read_text()

    def has_logged(self, event: str) -> bool:
        return f'"{event}"' in self.log()

    def troubles(self) -> list[str]:
        """Return what it has logged that nothing in an upgrade is a reason for."""
        lines = self.log().splitlines()
        return [line for line in lines if '"level":"error"' in line.replace(" ", "") or not line.startswith("{")]

    def stop(self) -> None:
        """Ask it to end, and fail unless it does, and well."""
        self._process.send_signal(signal.SIGTERM)
        wait_for(lambda: not self.is_running, f"the end of {self.name}")
        self.end()
        assert self._process.returncode == 0, f"{self.name} ended with {self._process.returncode}\n{self.log()[-4000:]}"

    def end(self) -> None:
        """Kill it, if it is still there."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Running:
    """All processes of a test, by what they are."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self.processes: list[Process] = []

    def start(self, release: Release, part: Part, *arguments: str) -> Process:
        """Start a process of this part with the command line of the release."""
        return self._start(release, part, release.command(*arguments), "-".join(arguments[:4]).replace("-", ""))

    def worker(self, release: Release) -> Process:
        """Start a worker and wait until it works."""
        return self._started(self.start(release, "worker", "worker"), "worker started")

    def jobs(self, release: Release, queue: str) -> Process:
        """Start an RQ process of this queue and wait until it works."""
        return self._started(self.start(release, "jobs", "jobs", "work", "--queue", queue), "jobs process started")

    def api(self, release: Release) -> tuple[Process, str]:
        """Start an API, and return it with its address once it is ready."""
        process, url = self.api_at_once(release)
        wait_for(lambda: is_ready(url), f"{process.name} being ready")
        return process, url

    def api_at_once(self, release: Release) -> tuple[Process, str]:
        """Start an API, and return it with its address, whether or not it is ready."""
        process = self.start(release, "api", "api", "--port", "0")
        return process, address_printed(process.first_line())

    def load(self, release: Release, accounts: list[str], url: str = "-") -> tuple[Process, "Calls"]:
        """Start a program that uses the client of this release, and perhaps has reversals sent to a URL."""
        path = self._directory / f"calls-{len(self.processes)}.jsonl"
        path.touch()
        name = f"{release.name} {len(self.processes)}"
        command = release.script(LOAD, name, str(path), url, *accounts)
        process = self._start(release, "client", command, "client")
        # Whatever is installed in this environment must not be taken for the previous release.
        package = Path(process.first_line().strip()).parent
        assert release.package is None or package.samefile(release.package)
        return process, Calls(path)

    def end(self) -> None:
        for process in self.processes:
            process.end()

    def _start(self, release: Release, part: Part, command: list[str], kind: str) -> Process:
        path = self._directory / f"{len(self.processes):02}-{release.name}-{kind}.log"
        process = Process(release, part, command, self._settings, path)
        self.processes.append(process)
        return process

    def _started(self, process: Process, event: str) -> Process:
        wait_for(lambda: process.has_logged(event) or not process.is_running, f"{process.name}: {event}")
        assert process.is_running, f"{process.name} has ended\n{process.log()[-4000:]}"
        return process


class Calls:
    """What a program has done so far."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[Line]:
        # The last one may be half written.
        return [json.loads(line) for line in self._path.read_text().split("\n")[:-1]]

    def wait_for_more(self, calls: int) -> None:
        """Wait until so many more were made."""
        wanted = self._count() + calls
        wait_for(lambda: self._count() >= wanted, f"{calls} more calls in {self._path.name}")

    def _count(self) -> int:
        return self._path.read_bytes().count(b"\n")


class HttpCalls:
    """Debits over HTTP, each by the next of the APIs that are there, as behind a proxy that knows no better.

    Whoever cannot be reached is passed over: the same request, with the same key, goes to the next.
    """

    def __init__(self, urls: list[str], key: str, accounts: list[str]) -> None:
        #: Where the APIs are now.
        self.urls = urls
        self._key = key
        self._accounts = accounts
        self._lines: list[Line] = []
        #: Each answer's address.
        self.answered_by: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._call_until_stopped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def lines(self) -> list[Line]:
        return list(self._lines)

    def wait_for_more(self, calls: int) -> None:
        """Wait until so many more were made."""
        wanted = len(self._lines) + calls
        wait_for(lambda: len(self._lines) >= wanted, f"{calls} more calls over HTTP")

    def _call_until_stopped(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            number = len(self._lines)
            account = self._accounts[number % len(self._accounts)]
            line: Line = {"call": "http debit", "key": f"http {number}"}
            try:
                self._debit(account, line["key"])
                self._lines.append({**line, "moved": [(account, -1)]})
            except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to know it
                self._lines.append({**line, "failed": repr(error)})

    def _debit(self, account: str, key: str) -> None:
        body = json.dumps({"amount": "1", "reference": key, "idempotency_key": key}).encode()
        until = time.monotonic() + DEADLINE_SECONDS
        for attempt in range(10**6):
            url = self.urls[(len(self._lines) + attempt) % len(self.urls)]
            request = urllib.request.Request(  # noqa: S310 - an address of the test's own
                f"{url}/v1/customer-credits/accounts/{account}/debit",
                body,
                {"x-api-key": self._key, "content-type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:  # noqa: S310 - as above
                    answer.read()
                if answer.status != 202:
                    self.answered_by.add(url)
                    return
            except urllib.error.HTTPError as error:
                raise RuntimeError(f"{url} said {error.code}: {error.read()[:500]!r}") from error
            except (OSError, http.client.HTTPException) as error:
                reason: object = error
            else:
                reason = "not decided yet"
            if time.monotonic() > until:
                raise RuntimeError(f"{url}: {reason}")
            time.sleep(PAUSE_SECONDS)


def environment(settings: Settings) -> dict[str, str]:
    """Return the settings as variables, but for defaults: each release has its own."""
    values = settings.model_dump(exclude_none=True, exclude_defaults=True)
    return {f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}


def is_ready(url: str) -> bool:
    """Return whether the API at this address says that it can be used."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10):  # noqa: S310 - an address of the test's own
            return True
    except OSError:
        return False


@pytest.fixture
def running(settings: Settings, tmp_path: Path) -> Iterator[Running]:
    """The processes of a test; gone afterwards."""
    running = Running(settings, tmp_path)
    yield running
    running.end()
