"""What one store notices of another one's abuse: its debits over HTTP and its webhooks, alone and meanwhile.

Each abuse is what any key allows. It is measured with the limits as they are by default, and with none of those that
can be switched off: `python -m creditlane.benchmarks.fairness`.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import psycopg
import typer

from ..cli.output import print_line, print_table
from ..lanes.postgres.migrate import migrate
from ..producer import Client
from ..producer.operations.api_keys import create_key
from ..schemas.commands import Command, Credit, Debit, OpenAccount
from ..schemas.errors import CreditlaneError
from ..schemas.events import new_secret, public_endpoint_id
from ..schemas.settings import Settings
from .api_process import OK, UNLIMITED, ApiProcess
from .fat_batches import encode_line, wide_posts
from .http_batch import PATH, stream_lines
from .http_debits import CREATED, request_of
from .http_wire import Address, Connection
from .latency import Latencies
from .plan import BenchmarkFailed
from .servers import Servers, running_servers
from .webhook_setup import Children
from .worker_processes import WorkerProcesses

_ABUSER, _OTHER = "store_abuser", "store_other"
WORKERS = 2
#: Stores beside the two, and endpoints of each: what is read again when subscriptions change.
STORES, ENDPOINTS = 100, 100
#: Accounts of a store, connections of the abuser, lines of its batches, and origins of its callbacks.
ACCOUNTS, CONNECTIONS, LINES, POSTS, ORIGINS = 100, 8, 20_000, 200, 1_500
#: Stands for the number of a batch in its lines, and most numbers there are: each is a part of an address.
BATCH, MOST_BATCHES = "@@", 250
#: How long the other store may wait for one webhook, in seconds, and how long it rests between two debits.
WEBHOOK_SECONDS, REST_SECONDS = 120.0, 0.02
#: How often a blocked abuser checks whether it is over, in seconds.
CHECK_SECONDS = 0.2
WARM_UP = 5
UNAVAILABLE = 503

#: Everything that can be switched off.
WITHOUT_LIMITS = {
    **UNLIMITED,
    "CREDITLANE_API_WAITS": "1000000",
    "CREDITLANE_API_BATCHES": "1000000",
    "CREDITLANE_API_SPOOL_BYTES": str(2**50),
}


@dataclass(frozen=True, slots=True)
class Noticed:
    """What the other store noticed, in milliseconds."""

    debit_p50_ms: float
    debit_p95_ms: float
    webhook_p50_ms: float
    webhook_p95_ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """One abuse: the other store alone just before, and meanwhile."""

    alone: Noticed
    beside: Noticed

    @property
    def times(self) -> tuple[float, float]:
        """How many times longer its debits and its webhooks took, at the 95th percentile."""
        return (
            self.beside.debit_p95_ms / self.alone.debit_p95_ms,
            self.beside.webhook_p95_ms / self.alone.webhook_p95_ms,
        )


class Receiver:
    """Takes the webhooks of the other store, and counts them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.received: int = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(OK)
                self.send_header("content-length", "0")
                self.end_headers()
                receiver.count()

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url: str = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def count(self) -> None:
        """Note a webhook."""
        with self._changed:
            self.received += 1
            self._changed.notify_all()

    def wait_for(self, received: int) -> None:
        """Return when so many have come, or raise BenchmarkFailed."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.received >= received, WEBHOOK_SECONDS):
                raise BenchmarkFailed(f"a webhook of the other store did not come in {WEBHOOK_SECONDS:g} s")

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


class OtherStore:
    """Debits one after the other over HTTP, and waits for the webhook of each."""

    def __init__(self, address: Address, accounts: Sequence[str], receiver: Receiver) -> None:
        self._address = address
        self._accounts = accounts
        self._receiver = receiver
        self._made = 0

    def measure(self, samples: int) -> Noticed:
        """Return what so many debits noticed."""
        debits, webhooks = [], []
        with closing(Connection(self._address)) as connection:
            for _ in range(samples):
                began = time.perf_counter()
                expected = self._receiver.received + 1
                request = request_of(self._address, self._next())
                answer = connection.ask(request)
                while answer.status == UNAVAILABLE and time.perf_counter() - began < WEBHOOK_SECONDS:
                    # Its result did not come in time, which counts: the same again has one effect.
                    answer = connection.ask(request)
                if answer.status != CREATED:
                    raise BenchmarkFailed(f"a debit of the other store was answered {answer.status}: {answer.body!r}")
                debits.append((time.perf_counter() - began) * 1_000)
                self._receiver.wait_for(expected)
                webhooks.append((time.perf_counter() - began) * 1_000)
                time.sleep(REST_SECONDS)
        latencies = [Latencies(tuple(sorted(each))) for each in (debits, webhooks)]
        return Noticed(*(round(each.percentile(percent), 1) for each in latencies for percent in (50, 95)))

    def _next(self) -> Debit:
        self._made += 1
        account = self._accounts[self._made % len(self._accounts)]
        return Debit(account_id=account, amount=1, reference="r", idempotency_key=f"other {self._made}")


class Abuser:
    """The things that the other store is measured beside. Each goes on until it is stopped."""

    def __init__(self, address: Address, accounts: Sequence[str], webhook_id: str) -> None:
        self._address = address
        self._accounts = accounts
        self._webhook_id = webhook_id
        self._batches = 0

    def abuses(self) -> dict[str, Callable[[threading.Event], None]]:
        """Return all of them by what they are called; what takes longest to be over comes last."""
        plain, posts, callbacks = self._credits(), self._posts(), self._callbacks()
        return {
            "requests in a loop": self.ask,
            "changes of an endpoint in a loop": self.change_endpoint,
            "answers that nobody reads": self.read_nothing,
            f"batches of {LINES:,} lines": lambda stopped: self.send_batches(stopped, plain),
            f"batches of {POSTS} wide posts": lambda stopped: self.send_batches(stopped, posts),
            f"callbacks to {ORIGINS:,} origins that refuse": lambda stopped: self.send_batches(stopped, callbacks),
        }

    def ask(self, stopped: threading.Event) -> None:
        """Ask on several connections, the next as soon as the last is answered."""
        self._loop(stopped, self._address.get("/v1/customer-credits/accounts"))

    def change_endpoint(self, stopped: threading.Event) -> None:
        """Change an endpoint again and again."""
        body = b'{"name":"another"}'
        request = self._address.post(f"/v1/webhooks/{self._webhook_id}", body).replace(b"POST", b"PATCH", 1)
        self._loop(stopped, request)

    def read_nothing(self, stopped: threading.Event) -> None:
        """Send lines that are none to the batch endpoint, and read no answer."""
        lines = b"x\n" * 32_768
        chunk = b"%x\r\n%b\r\n" % (len(lines), lines)
        while not stopped.is_set():
            with closing(Connection(self._address)) as connection:
                connection.send(self._address.head(PATH, "application/x-ndjson", "transfer-encoding: chunked"))
                connection.socket.settimeout(CHECK_SECONDS)
                _push(connection.socket, chunk, stopped)

    def send_batches(self, stopped: threading.Event, lines: list[bytes]) -> None:
        """Send one batch after the other: the same lines, each under another key."""
        while not stopped.is_set():
            self._batches += 1
            # They cost next to nothing to make, since what the abuser does here the other store's debits wait for.
            number = b"%d" % (self._batches % MOST_BATCHES)
            stream_lines(self._address, [line.replace(BATCH.encode(), number) for line in lines])

    def _loop(self, stopped: threading.Event, request: bytes) -> None:
        with closing(Connection(self._address)) as connection:
            answer = connection.ask(request)
        if answer.status != OK:
            raise BenchmarkFailed(f"the first request was answered {answer.status}: {answer.body!r}")
        with ExitStack() as stack:
            connections = [stack.enter_context(closing(Connection(self._address))) for _ in range(CONNECTIONS)]
            while not stopped.is_set():
                for connection in connections:
                    connection.send(request)
                for connection in connections:
                    while connection.receive() is None:
                        continue

    def _credits(self) -> list[bytes]:
        return [encode_line(self._credit(number)) for number in range(LINES)]

    def _posts(self) -> list[bytes]:
        posts = enumerate(wide_posts(self._accounts, POSTS))
        return [encode_line(post.model_copy(update={"idempotency_key": f"{BATCH} post {n}"})) for n, post in posts]

    def _callbacks(self) -> list[bytes]:
        urls = [f"http://127.255.{n // 250}.{n % 250 + 1}:1/" for n in range(ORIGINS)]
        commands = [self._credit(n).model_copy(update={"callback_url": url}) for n, url in enumerate(urls)]
        return [encode_line(command).replace(b"127.255", b"127." + BATCH.encode()) for command in commands]

    def _credit(self, number: int) -> Command:
        account = self._accounts[number % len(self._accounts)]
        return Credit(account_id=account, amount=1, reference="r", idempotency_key=f"{BATCH} {number}")


def measure_fairness(servers: Servers, label: str, limits: Mapping[str, str], samples: int) -> dict[str, Found]:
    """Measure the other store alone and beside each abuse, with these settings.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    with _stack(servers, label, limits) as (other, abuser):
        other.measure(WARM_UP)
        found = {}
        for name, abuse in abuser.abuses().items():
            alone = other.measure(samples)
            stopped = threading.Event()
            failures: list[BaseException] = []
            thread = threading.Thread(target=_noting, args=(abuse, stopped, failures), daemon=True)
            thread.start()
            try:
                beside = other.measure(samples)
            finally:
                stopped.set()
                thread.join(WEBHOOK_SECONDS)
            if failures:
                raise BenchmarkFailed(f"{name}: {failures[0]}")
            found[name] = Found(alone, beside)
        return found


@contextmanager
def _stack(servers: Servers, label: str, limits: Mapping[str, str]) -> Iterator[tuple[OtherStore, Abuser]]:
    with ExitStack() as stack:
        stack.enter_context(servers.keys(label))
        database_url = stack.enter_context(servers.database(label))
        migrate(database_url)
        settings = Settings(
            database_url=database_url,
            redis_url=servers.redis_url,
            redis_prefix=servers.prefix(label),
            store=_OTHER,
        )
        receiver = stack.enter_context(closing(Receiver()))
        webhook_id, abuser_key = _fill(database_url, receiver.url)
        stack.enter_context(WorkerProcesses(settings, WORKERS))
        api = stack.enter_context(ApiProcess(settings, limits))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="creditlane-fairness-")))
        children = stack.enter_context(Children(directory, settings))
        children.start_jobs()
        accounts = [_open_accounts(settings.model_copy(update={"store": store})) for store in (_OTHER, _ABUSER)]
        address = api.address
        yield (
            OtherStore(address, accounts[0], receiver),
            Abuser(address._replace(key=abuser_key), accounts[1], webhook_id),
        )


def _fill(database_url: str, receiver_url: str) -> tuple[str, str]:
    """Make the stores and their endpoints; return the abuser's endpoint and key."""
    insert = (
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, events, secret) "
        "select store_id, {id}, 1, 1, %s, '{{credits.consumed}}', %s from stores {where}"
    )
    endpoint = uuid4()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into stores (public_id, name) select 'store_' || name, 'load' from "
            "(select n::text from generate_series(1, %s) as n union values (%s), (%s)) as names (name)",
            [STORES, _ABUSER.removeprefix("store_"), _OTHER.removeprefix("store_")],
        )
        many = insert.format(id="gen_random_uuid()", where="cross join generate_series(1, %s) where name = 'load'")
        connection.execute(
            f"{many} and public_id <> %s and public_id <> %s".encode(),
            ["https://example.com", new_secret(), ENDPOINTS, _ABUSER, _OTHER],
        )
        one = insert.format(id="%s", where="where public_id = %s").replace("%s, 1, 1, %s", "%s::uuid, 1, 1, %s")
        for endpoint_id, store, url in ((uuid4(), _OTHER, receiver_url), (endpoint, _ABUSER, "https://example.com")):
            connection.execute(one.encode(), [endpoint_id, url, new_secret(), store])
        connection.execute("update installation set subscriptions_version = subscriptions_version + 1")
        return public_endpoint_id(endpoint), create_key(connection, _ABUSER, "abuser")


def _open_accounts(settings: Settings) -> list[str]:
    commands = (OpenAccount(customer_id=f"c{n}", initial_balance=10**9) for n in range(ACCOUNTS))
    with Client(settings) as client:
        return [result.account_id for result in client.wait_many(client.enqueue_many(commands))]


def _noting(abuse: Callable[[threading.Event], None], stopped: threading.Event, failures: list[BaseException]) -> None:
    try:
        abuse(stopped)
    except Exception as error:  # noqa: BLE001  # raised by the thread that waits
        failures.append(error)


def _push(connection: socket.socket, chunk: bytes, stopped: threading.Event) -> None:
    """Send the chunk again and again, until the other side has enough of it."""
    rest = memoryview(b"")
    while not stopped.is_set():
        rest = rest or memoryview(chunk)
        try:
            rest = rest[connection.send(rest) :]
        except TimeoutError:
            continue
        except OSError:
            return


def fairness_command(
    *,
    samples: Annotated[int, typer.Option(min=1, help="Debits of the other store alone, and beside each abuse.")] = 60,
    without: Annotated[bool, typer.Option(help="Measure also without the limits.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what one store notices of another's abuse."""
    with running_servers(None, None) as servers:
        found = {"limited": measure_fairness(servers, "limited", {}, samples)}
        if without:
            found["unlimited"] = measure_fairness(servers, "unlimited", WITHOUT_LIMITS, samples)
    if as_json:
        report = {kind: {name: asdict(each) for name, each in rows.items()} for kind, rows in found.items()}
        print_line(msgspec.json.encode(report).decode())
        return
    print_table(
        ["abuse", "limits", "debit p50, p95 alone", "beside", "webhook p50, p95 alone", "beside"],
        [
            [
                name,
                kind,
                f"{each.alone.debit_p50_ms:.0f}, {each.alone.debit_p95_ms:.0f} ms",
                f"{each.beside.debit_p50_ms:.0f}, {each.beside.debit_p95_ms:.0f} ms ({each.times[0]:.1f} times)",
                f"{each.alone.webhook_p50_ms:.0f}, {each.alone.webhook_p95_ms:.0f} ms",
                f"{each.beside.webhook_p50_ms:.0f}, {each.beside.webhook_p95_ms:.0f} ms ({each.times[1]:.1f} times)",
            ]
            for kind, rows in found.items()
            for name, each in rows.items()
        ],
    )


def main() -> int:
    """Run the measurement. Returns the exit code."""
    try:
        typer.run(fairness_command)
    except CreditlaneError as error:
        sys.stderr.write(f"fairness: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
