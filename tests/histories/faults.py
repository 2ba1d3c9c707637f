"""Faults, and episodes of one or two of them at random, each followed by the proof that commands flow again.

A fault is a generator: it begins, yields how long it is to last in seconds, and ends itself when it is gone on with.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis

from ..tcp_link import TcpLink
from .orders import Anomaly
from .probes import Probes
from .stack import Process, Stack

#: Between two episodes nothing happens for so long, in seconds.
CALM_SECONDS = (0.5, 3.0)
#: One in so many episodes has two faults at once.
DOUBLE_EVERY = 3
#: What a part of the stack is lost for, in seconds.
LOSS_SECONDS = (0.2, 5.0)

#: What may come on top of a lease until somebody else has the lanes, in seconds.
TAKEOVER_SECONDS = 2.0
#: How long worker processes may take to start on a busy machine, in seconds: nothing flows before.
START_SECONDS = 30.0
#: Faults of one worker.
TAKEN_OVER = frozenset(
    {
        "kill one of the workers",
        "stop one of the workers",
        "silence a worker-Postgres link",
        "silence a worker-Redis link",
        "cut a worker-Postgres link",
        "cut a worker-Redis link",
        "half-open connection of a worker-Postgres link",
        "half-open connection of a worker-Redis link",
    }
)
#: Yielded for "once everything else is over": processes are started again when the servers are there.
LAST = float("inf")
Fault = Generator[float, None, None]
Say = Callable[[str], None]

_BACKENDS = "application_name ~ '^creditlane-(worker|jobs)'"


class Faults:
    """Every fault there is, on the parts of one stack."""

    def __init__(self, stack: Stack, choose: random.Random) -> None:
        self._stack = stack
        self._choose = choose
        #: By name, which ends with what it happens to.
        self.all: Mapping[str, Callable[[], Fault]] = {
            "kill one of the workers": self._kill_worker,
            "kill all of the workers": self._kill_all_workers,
            "kill an API": self._kill_api,
            "kill a client": self._kill_client,
            "stop one of the workers": self._stop_worker,
            "stop Redis": self._stop_redis,
            "stop Postgres": self._stop_postgres,
            "kill Redis": self._kill_redis,
            "kill Postgres": self._kill_postgres,
            "kill a backend of Postgres": self._kill_backend,
            "terminate backends of Postgres": self._terminate_backends,
            "kill connections to Redis": self._kill_connections,
            "flush scripts of Redis": self._flush_scripts,
            "silence a worker-Postgres link": lambda: self._silence(stack.workers, "postgres"),
            "silence a worker-Redis link": lambda: self._silence(stack.workers, "redis"),
            "silence a producer-Postgres link": lambda: self._silence([*stack.apis, *stack.clients], "postgres"),
            "silence a producer-Redis link": lambda: self._silence([*stack.apis, *stack.clients], "redis"),
            "cut a worker-Postgres link": lambda: self._cut(stack.workers, "postgres"),
            "cut a worker-Redis link": lambda: self._cut(stack.workers, "redis"),
            "cut a producer-Postgres link": lambda: self._cut([*stack.apis, *stack.clients], "postgres"),
            "cut a producer-Redis link": lambda: self._cut([*stack.apis, *stack.clients], "redis"),
            "half-open connection of a worker-Postgres link": lambda: self._half_open("postgres"),
            "half-open connection of a worker-Redis link": lambda: self._half_open("redis"),
        }

    def _loss(self) -> float:
        return self._choose.uniform(*LOSS_SECONDS)

    def _kill_worker(self) -> Fault:
        worker = self._choose.choice(self._stack.workers)
        worker.kill()
        yield self._loss()
        yield LAST
        worker.start()

    def _kill_all_workers(self) -> Fault:
        for worker in self._stack.workers:
            worker.kill()
        yield self._loss()
        yield LAST
        for worker in self._stack.workers:
            worker.start()

    def _kill_api(self) -> Fault:
        api = self._choose.choice(self._stack.apis)
        api.kill()
        yield self._loss()
        yield LAST
        self._stack.start_api(api)

    def _kill_client(self) -> Fault:
        client = self._choose.choice(self._stack.clients)
        client.kill()
        yield self._loss()
        yield LAST
        client.start()

    def _stop_worker(self) -> Fault:
        """Stop a worker for longer than its lease."""
        worker = self._choose.choice(self._stack.workers)
        worker.signal(signal.SIGSTOP)
        yield self._stack.lease_seconds + self._loss()
        worker.signal(signal.SIGCONT)

    def _stop_redis(self) -> Fault:
        yield from self._stop_processes([self._stack.redis.pid or 0])

    def _stop_postgres(self) -> Fault:
        postmaster = self._stack.postgres.pid or 0
        # First the one that makes the others.
        yield from self._stop_processes([postmaster], children=True)

    def _stop_processes(self, pids: list[int], *, children: bool = False) -> Fault:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        stopped = [*pids, *(children_of(pids[0]) if children else ())]
        for pid in stopped:
            _send(pid, signal.SIGSTOP)
        yield self._loss()
        for pid in stopped:
            _send(pid, signal.SIGCONT)

    def _kill_redis(self) -> Fault:
        self._stack.redis.kill()
        yield self._loss()
        self._stack.redis.start()

    def _kill_postgres(self) -> Fault:
        self._stack.postgres.stop(immediate=True)
        yield self._loss()
        self._stack.postgres.start()

    def _kill_backend(self) -> Fault:
        """Kill one worker's backend as the system does when memory runs out: Postgres starts anew by itself."""
        pids = self._ask_postgres(f"select pid from pg_stat_activity where {_BACKENDS}")
        if pids:
            _send(self._choose.choice(pids), signal.SIGKILL)
        yield 0.0

    def _terminate_backends(self) -> Fault:
        for _ in range(self._choose.randint(1, 4)):
            self._ask_postgres(f"select pg_terminate_backend(pid) from pg_stat_activity where {_BACKENDS}")
            yield self._choose.uniform(0.0, 0.5)

    def _ask_postgres(self, statement: str) -> list[Any]:
        with (
            suppress(psycopg.Error),
            psycopg.connect(
                self._stack.database_url,
                autocommit=True,
                connect_timeout=2,
            ) as connection,
        ):
            return [value for (value,) in connection.execute(statement.encode())]
        return []

    def _kill_connections(self) -> Fault:
        for _ in range(self._choose.randint(1, 4)):
            self._ask_redis(lambda client: client.client_kill_filter(_type="normal", skipme=True))
            yield self._choose.uniform(0.0, 0.5)

    def _flush_scripts(self) -> Fault:
        self._ask_redis(lambda client: client.script_flush())
        yield 0.0

    def _ask_redis(self, ask: Callable[[redis.Redis], Any]) -> None:
        with (
            suppress(redis.RedisError),
            redis.Redis.from_url(self._stack.settings.require_redis_url(), socket_timeout=2) as client,
        ):
            ask(client)

    def _silence(self, processes: list[Process], server: str) -> Fault:
        link = self._link(processes, server)
        link.silence()
        yield self._loss()
        if self._choose.random() < 0.5:
            # What was under way is lost: the peer has given up, or a firewall has forgotten the connection.
            link.cut()
        link.heal()

    def _cut(self, processes: list[Process], server: str) -> Fault:
        link = self._link(processes, server)
        link.shut()
        yield self._loss()
        link.reopen()

    def _half_open(self, server: str) -> Fault:
        """Let one connection of a worker be silent for longer than two leases, while its others work."""
        link = self._link(self._stack.workers, server)
        end = link.silence_one(self._choose)
        yield 2 * self._stack.lease_seconds + self._loss()
        end()

    def _link(self, processes: list[Process], server: str) -> TcpLink:
        return self._choose.choice(processes).links[server]


class Episodes:
    """One after the other, each logged with what it took to recover."""

    def __init__(self, stack: Stack, probes: Probes, choose: random.Random, say: Say, *, margin: float) -> None:
        self._longest_seconds = stack.lease_seconds + TAKEOVER_SECONDS + margin
        self._faults = Faults(stack, choose)
        self._probes = probes
        self._choose = choose
        self._say = say
        self._left: list[str] = []
        self.finished: list[dict[str, Any]] = []
        self.anomalies: list[Anomaly] = []

    def run_one(self) -> None:
        """Let some time pass, let one or two faults happen, and wait until all lanes flow again."""
        time.sleep(self._choose.uniform(*CALM_SECONDS))
        names = self._next(2 if self._choose.randrange(DOUBLE_EVERY) == 0 else 1)
        with ThreadPoolExecutor(1) as thread:
            happening = thread.submit(_happen, [self._faults.all[name]() for name in names])
            # What one worker has lost another can take over at once; else nothing can flow before all is over.
            others_can = all(name in TAKEN_OVER for name in names) and len(names) == 1
            if not others_can:
                happening.result()
            recovered = self._probes.seconds_until_all_flow()
            lasted = happening.result()
        since = "since the beginning" if others_can else "after the end"
        self._say(f"{' + '.join(names)}, {lasted:.1f} s; all lanes flow {recovered:.1f} s {since}")
        self.finished.append({"faults": names, "lasted": lasted, "recovered": recovered, "since": since})
        longest = self._longest_seconds + (START_SECONDS if "kill all of the workers" in names else 0.0)
        if recovered > longest:
            what = f"only after {recovered:.1f} s {since}, which should be {longest:g} s at most"
            self.anomalies.append(Anomaly("slow_recovery", " + ".join(names), what))

    def _next(self, count: int) -> list[str]:
        """Return so many faults for different parts of the stack: every fault once before one comes again."""
        names: list[str] = []
        while len(names) < count:
            if not self._left:
                self._left = list(self._faults.all)
                self._choose.shuffle(self._left)
            subjects = {_subject(name) for name in names}
            name = next((name for name in self._left if _subject(name) not in subjects), None)
            if name is None:
                break
            self._left.remove(name)
            names.append(name)
        return names


def _subject(name: str) -> str:
    """Return what part of the stack the fault happens to."""
    return name.rsplit(maxsplit=2)[1] if name.endswith(" link") else name.rsplit(maxsplit=1)[1]


def _happen(faults: list[Fault]) -> float:
    """Let the faults happen together, each for as long as it wants, and return how long that was, in seconds."""
    began = time.monotonic()
    due = [(began, fault) for fault in faults]
    while due:
        due.sort(key=lambda item: item[0])
        moment, fault = due.pop(0)
        if moment != LAST:
            time.sleep(max(0.0, moment - time.monotonic()))
        with suppress(StopIteration):
            due.append((time.monotonic() + next(fault), fault))
    return time.monotonic() - began


def children_of(pid: int) -> list[int]:
    """Return the processes that this one has started, as the system lists them."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if listed.exists():
        return [int(child) for child in listed.read_text().split()]
    return [
        int(status.parent.name)
        for status in Path("/proc").glob("[0-9]*/stat")
        if status.exists() and status.read_text().rsplit(")", 1)[1].split()[1] == str(pid)
    ]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)
