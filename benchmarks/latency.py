"""How long one command takes, from enqueueing to its result, at a low and steady rate."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..cli.output import progress_bar
from ..producer import Client
from ..schemas.commands import Debit
from ..schemas.settings import Settings
from .ledger_check import check_kept_results, check_ledger
from .load import debits
from .plan import BenchmarkFailed
from .scenarios import debited
from .worker_processes import WorkerProcesses

RATE_PER_SECOND = 50
#: Commands before those that count: connections are made by the first.
WARM_UP_COMMANDS = 50
#: Commands that may be waited for at once; one more waits for a thread, and that counts as its latency.
MAX_WAITING = 32


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of single commands, in milliseconds, from the shortest to the longest."""

    sorted_ms: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """Return the latency that this share of the commands did not exceed (nearest rank)."""
        rank = max(1, math.ceil(len(self.sorted_ms) * percent / 100))
        return self.sorted_ms[rank - 1]


def measure_latency(settings: Settings, accounts: Sequence[str], seconds: float, workers: int) -> Latencies:
    """Debit at a fixed schedule for so long, and check the ledger.

    The schedule does not wait for results, and a latency counts from the moment the command was due: a stall shows in
    every command that it delays.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    commands = WARM_UP_COMMANDS + max(1, round(seconds * RATE_PER_SECOND))
    with (
        WorkerProcesses(settings, workers),
        Client(settings) as client,
        ThreadPoolExecutor(MAX_WAITING) as waiting,
        progress_bar("  one by one", "commands") as progress,
    ):
        pending: list[Future[float]] = []
        began = time.perf_counter()
        for number, command in enumerate(debits(accounts, commands)):
            due = began + number / RATE_PER_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))
            pending.append(waiting.submit(_debit, client, command, due))
            progress(number + 1, commands)
        latencies = [future.result() for future in pending]
    check_ledger(settings, accounts, debited(accounts, commands))
    if settings.keep_all_results:
        check_kept_results(settings, commands)
    return Latencies(tuple(sorted(latencies[WARM_UP_COMMANDS:])))


def _debit(client: Client, command: Debit, due: float) -> float:
    """Return how many milliseconds after it was due the command's result was there."""
    result = client.debit(
        command.account_id,
        command.amount,
        reference=command.reference,
        idempotency_key=command.idempotency_key,
    )
    ended = time.perf_counter()
    if result.status != "applied" or result.replayed:
        raise BenchmarkFailed(f"a debit was {result.status} instead of applied")
    return (ended - due) * 1_000
