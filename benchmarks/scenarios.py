"""What is measured on the lanes: draining a backlog, and producing while it is drained."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from ..cli.output import progress_bar
from ..producer import Client
from ..schemas.commands import Command
from ..schemas.settings import Settings
from .backlog import LANE_LIMIT, Backlog
from .ledger_check import check_kept_results, check_ledger
from .load import debits
from .waiting_producer import count_results
from .worker_processes import WorkerProcesses


@dataclass(frozen=True, slots=True)
class Measurement:
    """How many commands were applied in how many seconds, and the most memory that a worker process had meanwhile."""

    commands: int
    seconds: float
    worker_memory_mb: float | None = None

    @property
    def commands_per_second(self) -> float:
        """The rate."""
        return self.commands / self.seconds


def measure_drain(
    settings: Settings, accounts: Sequence[str], busy_accounts: int, commands: int, workers: int
) -> Measurement:
    """Measure how fast a backlog over some of the accounts is drained, and check the ledger afterwards.

    The clock runs from the moment when the backlog appears before worker processes that own every lane and remember
    nothing, to the moment when the waiting producer has the last result.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    measurement = drain(settings, debits(accounts[:busy_accounts], commands), commands, workers)
    _check(settings, accounts, busy_accounts, commands)
    return measurement


def drain(settings: Settings, load: Iterable[Command], commands: int, workers: int) -> Measurement:
    """Do what `measure_drain` measures, and check no more than the results."""
    with progress_bar("  enqueueing", "commands") as progress:
        backlog = Backlog(settings, load, commands, progress)
    with WorkerProcesses(settings, workers) as processes, progress_bar("  draining", "commands") as progress:
        started = backlog.release()
        ended = count_results(settings, backlog.producer_id, commands, check_workers=processes.check, progress=progress)
        memory = processes.peak_memory_mb()
    return Measurement(commands, ended - started, memory)


def measure_concurrent(settings: Settings, accounts: Sequence[str], commands: int, workers: int) -> Measurement:
    """Measure producer and workers at once: making, enqueueing, applying and announcing, and check the ledger.

    The clock runs from before the first command is made until the last result has come. Everything shares the cores.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    load = debits(accounts, commands)
    with (
        WorkerProcesses(settings, workers) as processes,
        Client(settings.model_copy(update={"lane_limit": LANE_LIMIT})) as client,
        ThreadPoolExecutor(1) as counter,
        progress_bar("  producing and draining", "commands") as progress,
    ):
        started = time.perf_counter()
        # The ticket of the first command says under which name the results will come.
        producer_id = client.enqueue_many(islice(load, 1)).producer_id
        last_result = counter.submit(
            count_results, settings, producer_id, commands, check_workers=processes.check, progress=progress
        )
        client.enqueue_many(load)
        ended = last_result.result()
        memory = processes.peak_memory_mb()
    _check(settings, accounts, len(accounts), commands)
    return Measurement(commands, ended - started, memory)


def _check(settings: Settings, accounts: Sequence[str], busy_accounts: int, commands: int) -> None:
    check_ledger(settings, accounts, debited(accounts[:busy_accounts], commands))
    if settings.keep_all_results:
        check_kept_results(settings, commands)


def debited(busy: Sequence[str], commands: int) -> Counter[str]:
    """Return how many of `debits` each account gets."""
    whole, rest = divmod(commands, len(busy))
    return Counter({account: whole + (position < rest) for position, account in enumerate(busy)})
