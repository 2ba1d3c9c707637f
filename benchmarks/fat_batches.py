"""Another store's debits beside one store's fat batch: wide posts over long balances, or credits with much metadata.

The commands are legal and come in one request to the batch endpoint, on a stack with two workers of its own. What is
measured is what the other store notices, alone and meanwhile, and what a worker needs for it:
`python -m creditlane.benchmarks.fat_batches`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Annotated

import msgspec
import psycopg
import typer

from ..audit.whole import verify
from ..cli.output import print_line, print_table
from ..lanes.encoding import encode_command
from ..lanes.postgres.migrate import migrate
from ..producer import Client
from ..schemas.amounts import MAX_AMOUNT_DIGITS
from ..schemas.commands import (
    MAX_ENTRIES,
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE_CHARACTERS,
    Command,
    Credit,
    OpenAccount,
    Post,
)
from ..schemas.errors import CreditlaneError
from ..schemas.kinds import Kind
from ..schemas.settings import Settings
from ..schemas.statuses import listed
from .api_process import OK, ApiProcess
from .backlog import LANE_LIMIT
from .http_batch import stream_lines
from .http_wire import Address, Connection
from .latency import Latencies
from .ledger_check import commands_on_lanes
from .plan import BenchmarkFailed
from .servers import Servers, running_servers
from .worker_processes import WorkerProcesses

#: Debits a second of the store that measures.
RATE_PER_SECOND = 20
#: Debits of it before those that count.
WARM_UP_DEBITS = 20
#: Its debits that may be waited for at once; one more waits for a thread, and that counts.
MAX_WAITING = 64
#: How long one of them may take, in seconds.
DEBIT_SECONDS = 120.0
#: How often `/readyz` is asked, and the lanes are read, in seconds.
POLL_SECONDS = 0.5
#: Bytes of one request to the batch endpoint.
REQUEST_BYTES = 60_000_000
#: Accounts of either store.
ACCOUNTS = MAX_ENTRIES
BALANCE_DIGITS = MAX_AMOUNT_DIGITS - 100
WORKERS = 2
_FAT_STORE, _OTHER_STORE = "store_fat", "store_other"

_MOVING = listed({Kind.CREDIT, Kind.POST})
#: Commands applied to the fat store's accounts, and dead letters of any.
_COUNTS = f"""
select (select count(*) from journal join stores using (store_id)
        where public_id = %s and kind in {_MOVING} and seq > 0 and rejection is null and idempotency_key is not null),
       (select count(*) from dead_letters)
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Found:
    """What the other store and the operator noticed of one input, in milliseconds, seconds and megabytes."""

    commands: int
    alone_p50_ms: float
    alone_p95_ms: float
    beside_p50_ms: float
    beside_p95_ms: float
    beside_max_ms: float
    accepted_seconds: float
    drained_seconds: float
    worker_memory_mb: float | None
    #: What `/readyz` answered meanwhile, and how often.
    ready: dict[str, int]

    @property
    def times_alone(self) -> float:
        """How many times longer the other store's debits took, at the 95th percentile."""
        return self.beside_p95_ms / self.alone_p95_ms


class SteadyDebits:
    """Debits of the other store at a fixed rate, in a thread, until they are stopped."""

    def __init__(self, client: Client, accounts: Sequence[str]) -> None:
        self._client = client
        self._accounts = accounts
        self._made = 0

    def measure(self, work: Callable[[], None]) -> Latencies:
        """Debit while the work is done, and return how long each took from when it was due."""
        done = threading.Event()
        with ThreadPoolExecutor(MAX_WAITING + 1) as threads:
            pending = threads.submit(self._debit_until, done, threads)
            try:
                work()
            finally:
                done.set()
            latencies = [future.result() for future in pending.result()]
        return Latencies(tuple(sorted(latencies)))

    def _debit_until(self, done: threading.Event, threads: ThreadPoolExecutor) -> list[Future[float]]:
        pending: list[Future[float]] = []
        due = time.perf_counter()
        while not done.wait(max(0.0, due - time.perf_counter())):
            self._made += 1
            pending.append(threads.submit(self._debit, self._made, due))
            due += 1 / RATE_PER_SECOND
        return pending

    def _debit(self, number: int, due: float) -> float:
        result = self._client.debit(
            self._accounts[number % len(self._accounts)],
            1,
            reference="other",
            idempotency_key=f"other {number}",
            timeout=DEBIT_SECONDS,
        )
        if result.status != "applied":
            raise BenchmarkFailed(f"a debit of the other store was {result.status}")
        return (time.perf_counter() - due) * 1_000


def wide_posts(accounts: Sequence[str], count: int) -> Iterator[Post]:
    """Return balanced posts over all of the accounts, each beginning at another of them."""
    for number in range(count):
        start = number % len(accounts)
        order = [*accounts[start:], *accounts[:start]]
        entries = [
            {"account_id": account, "side": ("credit", "debit")[position % 2], "amount": 1}
            for position, account in enumerate(order)
        ]
        yield Post(entries=tuple(entries), reference="wide", idempotency_key=f"wide {number}")  # type: ignore[arg-type]


def fat_credits(accounts: Sequence[str], count: int) -> Iterator[Credit]:
    """Return credits, each with all the metadata that is allowed, of the longest characters there are."""
    metadata = {
        f"note {position}": "\N{OCTOPUS}" * MAX_METADATA_VALUE_CHARACTERS for position in range(MAX_METADATA_PAIRS)
    }
    for number in range(count):
        yield Credit(
            account_id=accounts[number % len(accounts)],
            amount=1,
            reference="fat",
            idempotency_key=f"fat {number}",
            metadata=metadata,
        )


def measure_fat_batch(
    servers: Servers, label: str, make: Callable[[Sequence[str]], Iterator[Command]], alone_seconds: float
) -> Found:
    """Measure the other store's debits alone, beside these commands, and alone again, and check the ledger.

    Alone is before and afterwards, half each: a machine that others slow down slows down both.

    Raises:
        BenchmarkFailed: something was lost, refused or dead-lettered.
    """
    with servers.keys(label), servers.database(label) as database_url:
        migrate(database_url)
        settings = Settings(
            database_url=database_url,
            redis_url=servers.redis_url,
            redis_prefix=servers.prefix(label),
            lane_limit=LANE_LIMIT,
        )
        fat, other = _stores_of(settings)
        with WorkerProcesses(settings, WORKERS) as workers, ApiProcess(fat) as api, Client(other) as client:
            accounts = _open_accounts(fat)
            lines = [encode_line(command) for command in make(accounts)]
            debits = SteadyDebits(client, _open_accounts(other))
            debits.measure(lambda: time.sleep(WARM_UP_DEBITS / RATE_PER_SECOND))
            before = debits.measure(lambda: time.sleep(alone_seconds / 2))
            run = _Run(settings, workers, api.address, lines)
            beside = debits.measure(run.drain)
            after = debits.measure(lambda: time.sleep(alone_seconds / 2))
            alone = Latencies(tuple(sorted([*before.sorted_ms, *after.sorted_ms])))
            memory = workers.peak_memory_mb()
        _check(settings, len(lines))
    return Found(
        commands=len(lines),
        alone_p50_ms=round(alone.percentile(50), 1),
        alone_p95_ms=round(alone.percentile(95), 1),
        beside_p50_ms=round(beside.percentile(50), 1),
        beside_p95_ms=round(beside.percentile(95), 1),
        beside_max_ms=round(beside.percentile(100), 1),
        accepted_seconds=round(run.accepted_seconds, 1),
        drained_seconds=round(run.drained_seconds, 1),
        worker_memory_mb=memory,
        ready=run.ready,
    )


class _Run:
    """One fat batch, sent and waited for."""

    def __init__(self, settings: Settings, workers: WorkerProcesses, address: Address, lines: list[bytes]) -> None:
        self._settings = settings
        self._workers = workers
        self._address = address
        self._lines = lines
        self.ready: dict[str, int] = {}
        self.accepted_seconds = 0.0
        self.drained_seconds = 0.0

    def drain(self) -> None:
        """Send the batch, and return when the lanes have none of it left."""
        began = time.perf_counter()
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(self._send)
            while not (sending.done() and commands_on_lanes(self._settings) == 0):
                self._workers.check()
                self._check_readiness()
                time.sleep(POLL_SECONDS)
            self.accepted_seconds = sending.result()
        self.drained_seconds = time.perf_counter() - began

    def _send(self) -> float:
        # The longest lines in several requests: not what the endpoint does with so long a body is measured here.
        step = max(1, REQUEST_BYTES // max(map(len, self._lines)))
        parts = [self._lines[start : start + step] for start in range(0, len(self._lines), step)]
        return sum(stream_lines(self._address, part) for part in parts)

    def _check_readiness(self) -> None:
        with closing(Connection(self._address)) as connection:
            answer = connection.ask(self._address.get("/readyz"))
        seen = "ready" if answer.status == OK else answer.body.decode(errors="replace")
        self.ready[seen] = self.ready.get(seen, 0) + 1


def encode_line(command: Command) -> bytes:
    """Return the command as a line of the batch endpoint."""
    fields = msgspec.json.decode(encode_command(command, ""))
    if command.kind == "post":  # type: ignore[attr-defined]  # every command has one
        # It follows from the entries.
        del fields["account_id"]
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in {"v", "store_id"}}) + b"\n"


def _stores_of(settings: Settings) -> tuple[Settings, Settings]:
    stores = (_FAT_STORE, _OTHER_STORE)
    with psycopg.connect(settings.require_database_url()) as connection:
        for store in stores:
            connection.execute("insert into stores (public_id, name) values (%s, 'load')", [store])
    fat, other = (settings.model_copy(update={"store": store}) for store in stores)
    return fat, other


def _open_accounts(settings: Settings) -> list[str]:
    """Open accounts with very long balances, and return their ids."""
    commands = (
        OpenAccount(customer_id=f"customer {number}", initial_balance=10**BALANCE_DIGITS - 1)
        for number in range(ACCOUNTS)
    )
    with Client(settings) as client:
        return [result.account_id for result in client.wait_many(client.enqueue_many(commands))]


def _check(settings: Settings, commands: int) -> None:
    with psycopg.connect(settings.require_database_url()) as connection:
        counts = connection.execute(_COUNTS, [_FAT_STORE]).fetchone()
    if counts != (commands, 0):
        raise BenchmarkFailed(f"the ledger has (commands, dead letters) {counts} instead of {(commands, 0)}")
    report = verify(settings.require_database_url())
    if report.discrepancies:
        raise BenchmarkFailed(f"verify finds {report.discrepancies} discrepancies: {report.failed[0].claim}")


def fat_batches_command(
    *,
    posts: Annotated[int, typer.Option(min=0, help="Wide posts of the first input.")] = 7_000,
    fat: Annotated[int, typer.Option("--credits", min=0, help="Fat credits of the second input.")] = 7_000,
    alone_seconds: Annotated[float, typer.Option(min=1, help="How long the other store is measured alone.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure another store's debits beside a fat batch."""
    inputs: dict[str, Callable[[Sequence[str]], Iterator[Command]]] = {}
    if posts:
        inputs["posts"] = lambda accounts: wide_posts(accounts, posts)
    if fat:
        inputs["credits"] = lambda accounts: fat_credits(accounts, fat)
    with running_servers(None, None) as servers:
        found = {name: measure_fat_batch(servers, name, make, alone_seconds) for name, make in inputs.items()}
    if as_json:
        print_line(msgspec.json.encode({name: asdict(each) for name, each in found.items()}).decode())
        return
    print_table(
        ["input", "commands", "p95 alone", "p50 beside", "p95 beside", "max", "drained", "worker memory", "/readyz"],
        [
            [
                name,
                f"{each.commands:,}",
                f"{each.alone_p95_ms:.0f} ms",
                f"{each.beside_p50_ms:.0f} ms",
                f"{each.beside_p95_ms:.0f} ms ({each.times_alone:.1f} times)",
                f"{each.beside_max_ms:.0f} ms",
                f"{each.drained_seconds:.0f} s",
                f"{each.worker_memory_mb} MB",
                str(each.ready),
            ]
            for name, each in found.items()
        ],
    )


def main() -> int:
    """Run the measurement. Returns the exit code."""
    try:
        typer.run(fat_batches_command)
    except CreditlaneError as error:
        sys.stderr.write(f"fat batches: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
