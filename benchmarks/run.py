"""One run: one set of servers, a database and a key prefix for each scenario, the yardstick again and again between."""

from __future__ import annotations

import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psycopg
import redis

from ..cli.output import progress_bar
from ..lanes.postgres.migrate import migrate
from ..producer import Client
from ..schemas.errors import Unavailable
from ..schemas.settings import DEFAULT_STORE, Settings, load_settings
from .growth import measure_growth
from .hold_capture import measure_hold_capture
from .http_batch import measure_enqueue_many, measure_http_batch
from .http_debits import measure_http_debits
from .latency import measure_latency
from .load import account_ids, open_accounts
from .outbox_cost import measure_webhooks
from .plan import KEPT_SUFFIX, Plan
from .reads import measure_reads
from .report import Machine, Outcome, Report
from .rq_side import measure_rq
from .scenarios import measure_concurrent, measure_drain
from .servers import Servers, running_servers
from .waiting_producer import count_results
from .worker_processes import WorkerProcesses
from .yardstick import measure_copy

#: Exit code of a program that was ended by SIGTERM, as shells count it.
TERMINATED = 128 + signal.SIGTERM
#: Label of the database with the opened accounts, of which every scenario gets a copy.
ACCOUNTS_LABEL = "accounts"


def run_benchmark(plan: Plan, *, database_url: str | None, redis_url: str | None) -> Report:
    """Measure what the plan names, and remove everything that was made for it, also when it fails or is stopped.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
        ConfigurationError: the servers are missing or not usable.
        Unavailable: a server cannot be reached.
    """
    try:
        with _ending_orderly(), running_servers(database_url, redis_url) as servers:
            return _run(plan, servers)
    except (psycopg.OperationalError, redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"a server of the benchmark cannot be reached: {error}".strip()) from error


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, so that nothing is left running."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(plan: Plan, servers: Servers) -> Report:
    base = load_settings(redis_url=servers.redis_url, store=DEFAULT_STORE, keep_all_results=False)
    outcomes: dict[str, Outcome] = {}
    with servers.database(ACCOUNTS_LABEL) as accounts_url, servers.database("yardstick") as yardstick_url:
        with servers.keys(ACCOUNTS_LABEL):
            _open_accounts(_settings_of(base, servers, ACCOUNTS_LABEL, accounts_url), plan)
        machine = _machine(accounts_url, servers.redis_url)
        samples = [_measure_yardstick(yardstick_url, plan)]
        for position, name in enumerate(plan.scenarios, start=1):
            _announce(f"{name} ({position} of {len(plan.scenarios)})")
            outcomes[name] = _measure(name, base, servers, plan)
            samples.append(_measure_yardstick(yardstick_url, plan))
    return Report(plan, machine, statistics.median(samples), tuple(samples), outcomes)


def _measure(name: str, base: Settings, servers: Servers, plan: Plan) -> Outcome:
    """Measure one scenario in its own copy of the opened accounts, under its own keys."""
    template = servers.database_name(ACCOUNTS_LABEL)
    with servers.database(name, template=template) as database_url, servers.keys(name):
        settings = _settings_of(base, servers, name, database_url)
        return _scenario(name.removesuffix(KEPT_SUFFIX), settings, plan)


def _settings_of(base: Settings, servers: Servers, label: str, database_url: str) -> Settings:
    return base.model_copy(
        update={
            "database_url": database_url,
            "redis_prefix": servers.prefix(label),
            "keep_all_results": label.endswith(KEPT_SUFFIX),
        }
    )


def _scenario(name: str, settings: Settings, plan: Plan) -> Outcome:
    accounts, commands, workers = account_ids(plan.accounts), plan.commands, plan.workers
    measures: dict[str, Callable[[], Outcome]] = {
        "drain_many": lambda: measure_drain(settings, accounts, len(accounts), commands, workers),
        "drain_hot": lambda: measure_drain(settings, accounts, 1, commands, workers),
        "concurrent": lambda: measure_concurrent(settings, accounts, commands, workers),
        "hold_capture": lambda: measure_hold_capture(settings, accounts, commands, workers),
        "webhooks": lambda: measure_webhooks(settings, accounts, commands, workers),
        "latency_ms": lambda: measure_latency(settings, accounts, plan.latency_seconds, workers),
        "rq_per_command": lambda: measure_rq(settings, accounts, plan.rq_commands),
        "client_enqueue_many": lambda: measure_enqueue_many(settings, accounts, commands, workers),
        "http_batch": lambda: measure_http_batch(settings, accounts, commands, workers),
        "http_debits": lambda: measure_http_debits(settings, accounts, plan.http_requests, workers),
        "reads": lambda: measure_reads(settings, accounts, plan.read_entries, workers),
        "backlog": lambda: measure_drain(settings, accounts, len(accounts), plan.backlog, workers),
        "growth": lambda: measure_growth(settings, accounts, commands, workers, plan.grown_entries),
    }
    return measures[name]()


def _open_accounts(settings: Settings, plan: Plan) -> None:
    """Open the accounts as customers do: over the lanes."""
    migrate(settings.require_database_url(), partitions=settings.partitions)
    _announce(f"opening {plan.accounts:,} accounts")
    with (
        WorkerProcesses(settings, plan.workers) as processes,
        Client(settings) as client,
        progress_bar("  opening", "accounts") as progress,
    ):
        producer_id = client.enqueue_many(open_accounts(plan.accounts)).producer_id
        count_results(settings, producer_id, plan.accounts, check_workers=processes.check, progress=progress)


def _measure_yardstick(database_url: str, plan: Plan) -> float:
    _announce(f"bare COPY of {plan.copy_rows:,} rows")
    return measure_copy(database_url, plan.copy_rows)


def _announce(text: str) -> None:
    """Print what comes next, for whoever watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def _machine(database_url: str, redis_url: str) -> Machine:
    with psycopg.connect(database_url) as connection, redis.Redis.from_url(redis_url, protocol=2) as client:
        postgres = connection.execute("show server_version").fetchone()
        server = client.info("server")
    return Machine(
        cores=os.cpu_count() or 0,
        python=platform.python_version(),
        postgres=str(postgres[0]) if postgres else "",
        redis=_redis_name(server),
        platform=f"{platform.system()} {platform.machine()}",
    )


def _redis_name(server: dict[str, object]) -> str:
    """Return which server it is: Valkey says under the old name which Redis it stands for."""
    return f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {server['redis_version']}"
