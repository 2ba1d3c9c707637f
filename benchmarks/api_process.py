"""The API of a scenario, as a process of its own, with a key made for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from types import TracebackType
from typing import IO, Self

import psycopg

from ..cli.api import is_api_installed
from ..local.processes import wait_until
from ..producer.api.listening_socket import listening_socket
from ..producer.operations.api_keys import create_key
from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings
from .http_wire import Address, Connection
from .plan import BenchmarkFailed
from .worker_processes import LOG_TAIL_CHARACTERS, environment_of

#: How long it may take to be ready, in seconds.
READY_DEADLINE_SECONDS = 60.0
#: How long it may take to finish its requests and leave, in seconds.
STOP_DEADLINE_SECONDS = 40.0
HOST = "127.0.0.1"
OK = 200
#: What lets one store make all the requests that there can be, without asking Redis.
UNLIMITED = {"CREDITLANE_API_REQUESTS_PER_SECOND": "1e9", "CREDITLANE_API_BURST": "1000000000"}


class ApiProcess:
    """One API process with these settings. As a context manager: ready inside, gone afterwards.

    With variables of its own, or else without a limit to requests: what is measured is how fast it can be, not how fast
    one store may be.
    """

    def __init__(self, settings: Settings, variables: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._variables = UNLIMITED if variables is None else variables
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _kill
        self.address: Address = Address(HOST, 0, "")

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            code = self._stop()
            if error is None and code:
                raise BenchmarkFailed(f"the API ended with {code} at its stop\n{self._log_tail()}")
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"the API did not stop\n{self._log_tail()}") from error
        finally:
            self._kill()

    def _start(self) -> None:
        if not is_api_installed():
            raise ConfigurationError("measuring the API needs `pip install 'creditlane[api]'`")
        with psycopg.connect(self._settings.require_database_url(), autocommit=True) as connection:
            key = create_key(connection, self._settings.store, "benchmark")
        package = __name__.rpartition(".benchmarks.")[0]
        with listening_socket(HOST, 0) as listening:
            self.address = Address(HOST, listening.getsockname()[1], key)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{package}.local.api_child", str(listening.fileno())],
                env={**environment_of(self._settings), **self._variables},
                # Its end is this process's end, see `cli.end_with_parent`.
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[listening.fileno()],
                # Its own session: at Ctrl-C it is stopped once, by us.
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        if not wait_until(self._is_ready, seconds=READY_DEADLINE_SECONDS):
            raise BenchmarkFailed(f"the API is not ready\n{self._log_tail()}")

    def _is_ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise BenchmarkFailed(f"the API ended by itself\n{self._log_tail()}")
        try:
            with closing(Connection(self.address)) as connection:
                return connection.ask(self.address.get("/readyz")).status == OK
        except (ConnectionError, TimeoutError):
            return False

    def _stop(self) -> int:
        if self._process is None:
            return 0
        self._process.terminate()
        return self._process.wait(STOP_DEADLINE_SECONDS)

    def _kill(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)
                self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._log.close()

    def _log_tail(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG_TAIL_CHARACTERS:]
