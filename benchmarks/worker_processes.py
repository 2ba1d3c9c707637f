"""The worker processes of a scenario: started, ready, watched, and stopped whatever happens."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psycopg
import redis

from ..cli.stop_signals import held_signals
from ..lanes.keys import Keys
from ..local.processes import wait_until
from ..schemas.settings import Settings
from .plan import BenchmarkFailed

#: How long workers may take to share the lanes, in seconds; several of them wait for each other's heartbeat.
READY_DEADLINE_SECONDS = 60.0
#: How long one may take to finish its batch and leave, in seconds.
STOP_DEADLINE_SECONDS = 40.0
#: How much of a log goes into an error message, in characters.
LOG_TAIL_CHARACTERS = 2_000
_BYTES_PER_MEGABYTE = 1_000_000

_READ_LEASES = "select partition, worker_id, epoch from leases"


class WorkerProcesses:
    """Worker processes with these settings. As a context manager: ready inside, gone afterwards."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._processes: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
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
            for process, _ in self._processes:
                process.terminate()
            codes = [process.wait(STOP_DEADLINE_SECONDS) for process, _ in self._processes]
            if error is None and any(codes):
                raise BenchmarkFailed(f"a worker ended with {codes} at its stop\n{self._log_tails()}")
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"a worker did not stop\n{self._log_tails()}") from error
        finally:
            self._kill()

    def check(self) -> None:
        """Raise BenchmarkFailed if one of them has ended."""
        codes = [process.poll() for process, _ in self._processes]
        if any(code is not None for code in codes):
            raise BenchmarkFailed(f"a worker ended by itself\n{self._log_tails()}")

    def peak_memory_mb(self) -> float | None:
        """Return the most memory that one of them has had at once, None where the system does not say."""
        peaks = [_peak_memory_bytes(process.pid) for process, _ in self._processes]
        known = [peak for peak in peaks if peak is not None]
        return round(max(known) / _BYTES_PER_MEGABYTE, 1) if known else None

    def _start(self) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _kill
        package = __name__.rpartition(".benchmarks.")[0]
        with held_signals():
            process = subprocess.Popen(
                [sys.executable, "-m", f"{package}.worker"],
                env=environment_of(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own session: at Ctrl-C it is stopped once, by us.
                start_new_session=True,
            )
            self._processes.append((process, log))

    def _wait_until_ready(self) -> None:
        with (
            psycopg.connect(self._settings.require_database_url(), autocommit=True) as connection,
            redis.Redis.from_url(self._settings.require_redis_url(), protocol=2) as client,
        ):
            if not wait_until(lambda: self._is_ready(connection, client), seconds=READY_DEADLINE_SECONDS):
                raise BenchmarkFailed(f"the workers do not share the lanes\n{self._log_tails()}")

    def _is_ready(self, connection: psycopg.Connection[tuple[object, ...]], client: redis.Redis) -> bool:
        """Return whether every lane has an owner, each worker has its share, and their fences stand in Redis."""
        self.check()
        leases = connection.execute(_READ_LEASES).fetchall()
        shares = Counter(worker_id for _, worker_id, _ in leases)
        if None in shares or len(shares) != self._count or max(shares.values()) > math.ceil(len(leases) / self._count):
            return False
        keys = Keys(self._settings.redis_prefix)
        fences = client.mget([keys.fence(int(str(partition))) for partition, _, _ in leases])
        return [epoch for _, _, epoch in leases] == [fence and int(fence) for fence in fences]

    def _kill(self) -> None:
        for process, log in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
            log.close()

    def _log_tails(self) -> str:
        tails = []
        for _, log in self._processes:
            log.seek(0)
            tails.append(log.read().decode(errors="replace")[-LOG_TAIL_CHARACTERS:])
        return "\n".join(tails)


def environment_of(settings: Settings) -> dict[str, str]:
    """Return this environment with the settings of a scenario in it; other CREDITLANE_ settings stay as they are."""
    return {
        **os.environ,
        "CREDITLANE_DATABASE_URL": settings.require_database_url(),
        "CREDITLANE_REDIS_URL": settings.require_redis_url(),
        "CREDITLANE_REDIS_PREFIX": settings.redis_prefix,
        "CREDITLANE_STORE": settings.store,
        "CREDITLANE_LANE_LIMIT": str(settings.lane_limit),
        "CREDITLANE_KEEP_ALL_RESULTS": str(settings.keep_all_results).lower(),
    }


def _peak_memory_bytes(pid: int) -> int | None:
    # Not the resource usage of a child: that counts what its parent had before the child became another program.
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
