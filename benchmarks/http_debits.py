"""Debits over HTTP, one a request, on keep-alive connections that each send the next when the last is answered."""

from __future__ import annotations

import selectors
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice

import msgspec

from ..cli.output import progress_bar
from ..schemas.commands import Debit
from ..schemas.settings import Settings
from .api_process import ApiProcess
from .http_wire import TIMEOUT_SECONDS, Address, Connection
from .latency import Latencies
from .ledger_check import check_ledger
from .load import debits
from .plan import BenchmarkFailed
from .scenarios import debited
from .worker_processes import WorkerProcesses

CONNECTIONS = 32
#: Requests before those that count, as a share of all: the API and its pool of connections get warm.
WARM_UP_SHARE = 0.1
CREATED = 201
#: Answers between two reports of the progress.
PROGRESS_STEP = 500


@dataclass(frozen=True, slots=True)
class RequestRate:
    """How many debits were answered, one a request, in how many seconds, and how long each took."""

    commands: int
    seconds: float
    latencies: Latencies

    @property
    def commands_per_second(self) -> float:
        """The rate."""
        return self.commands / self.seconds


def measure_http_debits(settings: Settings, accounts: Sequence[str], requests: int, workers: int) -> RequestRate:
    """Debit over HTTP and check the ledger. Each request is answered by the result that the worker announced.

    The requests are made before the clock starts; it runs until the last answer.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    warm_up = max(1, round(requests * WARM_UP_SHARE))
    load = debits(accounts, warm_up + requests)
    with WorkerProcesses(settings, workers) as processes, ApiProcess(settings) as api:
        _run(api.address, islice(load, warm_up))
        rate = _run(api.address, load)
        processes.check()
    check_ledger(settings, accounts, debited(accounts, warm_up + requests))
    return rate


def _run(address: Address, load: Iterator[Debit]) -> RequestRate:
    requests = [request_of(address, debit) for debit in load]
    latencies: list[float] = []
    with ExitStack() as stack, progress_bar("  one a request", "requests") as progress:
        selector = stack.enter_context(selectors.DefaultSelector())
        waiting = iter(requests)
        started = time.perf_counter()
        for request in islice(waiting, CONNECTIONS):
            connection = stack.enter_context(closing(Connection(address)))
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(request)
        while len(latencies) < len(requests):
            ready = selector.select(TIMEOUT_SECONDS)
            if not ready:
                raise BenchmarkFailed("no request was answered for a minute")
            for key, _ in ready:
                _advance(key.data, waiting, latencies)
                if len(latencies) % PROGRESS_STEP == 0:
                    progress(len(latencies), len(requests))
        seconds = time.perf_counter() - started
    return RequestRate(len(requests), seconds, Latencies(tuple(sorted(latencies))))


def _advance(connection: Connection, waiting: Iterator[bytes], latencies: list[float]) -> None:
    """Take what has come on the connection; after a whole answer, send the next request."""
    answer = connection.receive()
    if answer is None:
        return
    if answer.status != CREATED:
        raise BenchmarkFailed(f"a debit was answered with {answer.status}: {answer.body[:500]!r}")
    latencies.append((connection.answered_at - connection.sent_at) * 1_000)
    if (request := next(waiting, None)) is not None:
        connection.send(request)


def request_of(address: Address, debit: Debit) -> bytes:
    """Return the bytes of the request for this debit."""
    body = {
        "amount": str(debit.amount),
        "reference": debit.reference,
        "idempotency_key": debit.idempotency_key,
    }
    return address.post(f"/v1/customer-credits/accounts/{debit.account_id}/debit", msgspec.json.encode(body))
