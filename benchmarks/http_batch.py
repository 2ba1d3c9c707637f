"""The batch endpoint beside the bare client: how fast commands are accepted by each, while a worker drains them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import msgspec

from ..cli.output import progress_bar
from ..local.processes import wait_until
from ..producer import Client
from ..schemas.commands import Debit
from ..schemas.settings import Settings
from .api_process import OK, ApiProcess
from .backlog import LANE_LIMIT
from .http_wire import READ_BYTES, Address, Connection, status_of
from .ledger_check import check_ledger, commands_on_lanes
from .load import debits
from .plan import BenchmarkFailed
from .scenarios import Measurement, debited
from .worker_processes import WorkerProcesses

#: Lines before those that count.
WARM_UP_LINES = 100
#: Bytes of a chunk of the body, as a client streams it.
CHUNK_BYTES = 65_536
#: How long the worker may take for what was accepted, in seconds.
DRAIN_DEADLINE_SECONDS = 600.0
PATH = "/v1/customer-credits/commands"
_LAST_CHUNK = b"0\r\n\r\n"
_QUEUED = b'"status":"queued"'


def measure_enqueue_many(settings: Settings, accounts: Sequence[str], commands: int, workers: int) -> Measurement:
    """Measure how fast `Client.enqueue_many` accepts commands, and check the ledger.

    The commands are made before the clock starts, and it runs until the last one is durably accepted.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    load = list(debits(accounts, commands))
    with (
        WorkerProcesses(settings, workers) as processes,
        Client(settings.model_copy(update={"lane_limit": LANE_LIMIT})) as client,
        progress_bar("  enqueueing", "commands") as progress,
    ):
        started = time.perf_counter()
        tickets = client.enqueue_many(load, on_progress=lambda done: progress(done, commands))
        seconds = time.perf_counter() - started
        _wait_until_drained(settings, processes)
    if len(tickets) != commands:
        raise BenchmarkFailed(f"{len(tickets)} commands were enqueued instead of {commands}")
    check_ledger(settings, accounts, debited(accounts, commands))
    return Measurement(commands, seconds)


def measure_http_batch(settings: Settings, accounts: Sequence[str], lines: int, workers: int) -> Measurement:
    """Measure how fast the batch endpoint accepts lines of one request, and check the answers and the ledger.

    The lines are made before the clock starts, and it runs until the last answer. They are sent in chunks while the
    answers are read.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    load = debits(accounts, WARM_UP_LINES + lines)
    body = [_line_of(debit) for debit in load]
    unlimited = settings.model_copy(update={"lane_limit": LANE_LIMIT})
    with WorkerProcesses(settings, workers) as processes, ApiProcess(unlimited) as api:
        stream_lines(api.address, body[:WARM_UP_LINES])
        seconds = stream_lines(api.address, body[WARM_UP_LINES:])
        _wait_until_drained(settings, processes)
    check_ledger(settings, accounts, debited(accounts, WARM_UP_LINES + lines))
    return Measurement(lines, seconds)


def stream_lines(address: Address, lines: Sequence[bytes]) -> float:
    """Send the lines in one request, check its answers, and return the seconds it took.

    Raises:
        BenchmarkFailed: a line was not queued.
    """
    chunks = list(_chunks_of(b"".join(lines)))
    head = address.head(PATH, "application/x-ndjson", "transfer-encoding: chunked\r\nconnection: close")
    with closing(Connection(address)) as connection:
        started = time.perf_counter()
        connection.send(head)
        sending = threading.Thread(target=_send_all, args=(connection, chunks), name="sending", daemon=True)
        sending.start()
        answer = b"".join(_received(connection))
        seconds = time.perf_counter() - started
        sending.join()
    queued = answer.count(_QUEUED)
    if status_of(answer) != OK or queued != len(lines):
        raise BenchmarkFailed(f"{queued} of {len(lines)} lines were queued; the answer begins {answer[:500]!r}")
    return seconds


def _send_all(connection: Connection, chunks: Sequence[bytes]) -> None:
    for chunk in chunks:
        connection.socket.sendall(chunk)


def _received(connection: Connection) -> Iterator[bytes]:
    while data := connection.socket.recv(READ_BYTES):
        yield data


def _chunks_of(body: bytes) -> Iterator[bytes]:
    for first in range(0, len(body), CHUNK_BYTES):
        part = body[first : first + CHUNK_BYTES]
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield _LAST_CHUNK


def _line_of(debit: Debit) -> bytes:
    line = {
        "kind": "debit",
        "account_id": debit.account_id,
        "amount": str(debit.amount),
        "reference": debit.reference,
        "idempotency_key": debit.idempotency_key,
    }
    return msgspec.json.encode(line) + b"\n"


def _wait_until_drained(settings: Settings, processes: WorkerProcesses) -> None:
    def is_drained() -> bool:
        processes.check()
        return commands_on_lanes(settings) == 0

    if not wait_until(is_drained, seconds=DRAIN_DEADLINE_SECONDS):
        raise BenchmarkFailed("the workers did not apply what was accepted")
