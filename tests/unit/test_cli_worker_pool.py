"""Workers are started again when they die, and end with whoever started them."""

import os
import queue
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from creditlane.cli import process_pool as worker_pool
from creditlane.cli.process_pool import WorkerPool, labelled
from creditlane.local.processes import is_running, wait_until

TELL_AND_WAIT = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
OUTLIVE_SIGTERM = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); "
    "time.sleep(600)"
)
#: A worker child whose worker only prints its id and waits, and whose starter is then killed.
CHILD_WITHOUT_WORK = """
import os, signal, sys, threading, types
worker = types.ModuleType("creditlane.worker.__main__")
def main():
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    print(os.getpid(), flush=True)
    stopped.wait(60)
    print("nobody reads this", flush=True)
    return 0
stopped = threading.Event()
worker.main = main
sys.modules["creditlane.worker.__main__"] = worker
from creditlane.cli.worker_child import main as child
sys.exit(child())
"""
STARTER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
sys.stdin.read()
"""

Log = queue.Queue[tuple[int, str]]
MakePool = Callable[[str], tuple[WorkerPool, Log]]


@pytest.fixture
def make_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePool]:
    pools: list[WorkerPool] = []

    def make(code: str) -> tuple[WorkerPool, Log]:
        monkeypatch.setattr(worker_pool, "_COMMAND", [sys.executable, "-c", code])
        log: Log = queue.Queue()
        pool = WorkerPool(1, os.environ, lambda number, line: log.put((number, line)))
        pools.append(pool)
        pool.start()
        return pool, log

    yield make
    for pool in pools:
        pool.stop()


def is_gone(pid: int) -> bool:
    return not is_running(pid, "-c")


def test_a_worker_that_dies_is_started_again_after_a_growing_pause(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    _, log = make_pool("import sys; print('hello', flush=True); sys.exit(3)")

    lines = [log.get(timeout=20) for _ in range(4)]

    assert lines == [
        (1, "hello"),
        (1, "ended with 3; starts again in 0.01 s"),
        (1, "hello"),
        (1, "ended with 3; starts again in 0.02 s"),
    ]


def test_a_killed_worker_is_replaced(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "FIRST_PAUSE_SECONDS", 0.01)
    pool, log = make_pool(TELL_AND_WAIT)
    first = int(log.get(timeout=20)[1])

    os.kill(first, signal.SIGKILL)

    number, line = log.get(timeout=20)
    assert (number, line.partition(";")[0]) == (1, "ended with -9")
    assert [int(log.get(timeout=20)[1])] == pool.process_ids != [first]


def test_a_stop_leaves_no_process_and_starts_none_again(make_pool: MakePool) -> None:
    pool, log = make_pool(TELL_AND_WAIT)
    pid = int(log.get(timeout=20)[1])

    pool.stop()

    assert is_gone(pid)
    assert (pool.process_ids, log.qsize()) == ([], 0)


def test_a_worker_that_does_not_stop_is_ended_by_force(make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "STOP_DEADLINE_SECONDS", 0.1)
    pool, log = make_pool(OUTLIVE_SIGTERM)
    pid = int(log.get(timeout=20)[1])

    pool.stop()

    assert is_gone(pid)


def test_a_worker_ends_when_its_starter_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, CHILD_WITHOUT_WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()

    assert wait_until(lambda: is_gone(pid), seconds=20)


def test_lines_for_programs_stay_as_they_are() -> None:
    assert labelled(2, '{"event": "x"}') == '{"event": "x"}'
    assert labelled(2, "Traceback") == "worker 2 | Traceback"
