"""Workers, API and RQ processes as children of this process: started, started again when they die, stopped in order."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ..lanes.backoff import growing_pauses
from ..lanes.log_stream import adopt_standard_error
from .stop_signals import StopSignals

#: The first and the longest pause before a worker that died is started again, in seconds.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
#: A worker that lived so long starts the next pause from the first again, in seconds.
HEALTHY_SECONDS = 60.0
#: How long a worker may take to finish its batch and to give its leases back, in seconds.
STOP_DEADLINE_SECONDS = 40.0

#: Isolated from the current directory: a redis.py there is not the one that a worker needs.
_COMMAND = [sys.executable, "-P", "-m", f"{__package__}.worker_child"]

#: Takes a line of a child's log and the number of the worker, counted from 1; the others have the numbers below.
LogSink = Callable[[int, str], None]
API_NUMBER = 0
DELIVERIES_NUMBER = -1
JOBS_NUMBER = -2
_LABELS = {API_NUMBER: "api", DELIVERIES_NUMBER: "deliveries", JOBS_NUMBER: "jobs"}


def labelled(worker: int, line: str) -> str:
    """Return the line of a log with who wrote it; JSON as it is, since programs read it."""
    if line.startswith("{"):
        return line
    return f"{_LABELS.get(worker, f'worker {worker}')} | {line}"


def print_log_line(worker: int, line: str) -> None:
    """Pass on a line of the log of a worker or of the API, as far as it can be written."""
    adopt_standard_error().write(f"{labelled(worker, line)}\n")


class WorkerPool:
    """A number of child processes. Each has a thread here that passes on its log and starts it again."""

    def __init__(
        self,
        processes: int,
        environment: Mapping[str, str],
        log: LogSink,
        *,
        command: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Prepare children that run the command, a worker's unless another is given, and inherit the descriptors."""
        self._command = list(command) or _COMMAND
        self._descriptors = list(descriptors)
        self._environment = dict(environment)
        self._log = log
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(1, processes + 1)
        ]

    @property
    def process_ids(self) -> list[int]:
        """Ids of the processes that run now."""
        with self._lock:
            return [process.pid for process in self._running.values()]

    def run(self, signals: StopSignals) -> None:
        """Run the children until one of the signals comes."""
        try:
            self.start()
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            signals.ignore()
        finally:
            self.stop()

    def start(self) -> None:
        """Start the processes; returns at once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each worker finish its batch; end by force what takes too long."""
        with self._lock:
            self._stopping.set()
            running = list(self._running.values())
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_DEADLINE_SECONDS
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _keep(self, number: int) -> None:
        pauses = growing_pauses(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while not self._stopping.is_set():
            started = time.monotonic()
            outcome = self._run_one(number)
            if self._stopping.is_set():
                return
            if time.monotonic() - started > HEALTHY_SECONDS:
                pauses = growing_pauses(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
            pause = next(pauses)
            self._say(number, f"{outcome}; starts again in {pause:.2g} s")
            if self._stopping.wait(pause):
                return

    def _run_one(self, number: int) -> str:
        """Run one process to its end and return how it ended, for the log."""
        try:
            process = self._spawn(number)
        except OSError as error:
            # No memory, no descriptors: there may be some later.
            return f"cannot be started: {error}"
        if process is None:
            return "is stopping"
        self._pass_on_log(number, process)
        code = process.wait()
        with self._lock:
            del self._running[number]
        return f"ended with {code}"

    def _say(self, number: int, line: str) -> None:
        """Pass a line on; what becomes of the log is nothing to the process that it is of."""
        with suppress(Exception):
            self._log(number, line)

    def _spawn(self, number: int) -> subprocess.Popen[str] | None:
        """Start a process, unless the pool stops; under the lock, so that a stop misses none."""
        with self._lock:
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(
                self._command,
                pass_fds=self._descriptors,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Its own session: Ctrl-C in the terminal is for this process, which stops the others in order.
                start_new_session=True,
            )
            self._running[number] = process
            return process

    def _pass_on_log(self, number: int, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None and process.stdin is not None:
            with process.stdin, process.stdout:
                for line in process.stdout:
                    self._say(number, line.rstrip("\n"))
