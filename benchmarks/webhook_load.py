"""Webhooks under load: what healthy endpoints feel of sick ones, and what kills lose, which must be nothing.

    python -m creditlane.benchmarks.webhook_load --events 100000

One run without sick endpoints, one with them, one with them in which delivering processes, the receiver and Redis are
killed. Every event goes to each endpoint of its store: with one store to all of them, with as many stores as there are
endpoints to one.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import psycopg
import typer

from ..cli.output import print_line, print_table
from ..lanes.postgres.migrate import migrate
from ..local.servers import EmbeddedPostgres, EmbeddedRedis
from ..schemas.errors import CreditlaneError
from ..schemas.events import public_event_id
from ..schemas.settings import Settings
from ..schemas.statuses import StoredDeliveryStatus
from .plan import BenchmarkFailed
from .webhook_faults import Faults, hurry
from .webhook_setup import Children, Endpoint, Received, make_endpoints, make_events

#: How often the receiver's log is read, in seconds.
POLL_SECONDS = 0.05
#: How long results may take to be written down once everything was received, in seconds.
SETTLE_SECONDS = 60.0

_OF_ENDPOINT = "select event_id, status from deliveries where endpoint_id = %s"


@dataclass(frozen=True, slots=True)
class Load:
    """The sizes of a run."""

    events: int
    stores: int
    healthy: int
    hanging: int
    failing: int
    processes: int
    deadline_seconds: float
    hurry: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What one run found."""

    seconds: float
    deliveries: int
    per_second: float
    repeated: int
    lost: int
    kills: int


def load_command(
    *,
    events: Annotated[int, typer.Option(min=1, help="Events of a run.")] = 100_000,
    stores: Annotated[int, typer.Option(min=1, help="Stores that share events and endpoints.")] = 4,
    healthy: Annotated[int, typer.Option(min=1, help="Endpoints that answer 200.")] = 10,
    hanging: Annotated[int, typer.Option(min=0, help="Endpoints that never answer.")] = 5,
    failing: Annotated[int, typer.Option(min=0, help="Endpoints that answer 500.")] = 5,
    processes: Annotated[int, typer.Option(min=1, help="Delivering processes.")] = 2,
    deadline_seconds: Annotated[float, typer.Option(min=1, help="How long a run may take.")] = 1_800.0,
    hurried: Annotated[
        bool, typer.Option("--hurry", help="Do not wait out leases and pauses after kills, but end them in Postgres.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help="Do only this run; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure deliveries with and without sick endpoints, and with kills."""
    load = Load(events, stores, healthy, hanging, failing, processes, deadline_seconds, hurried)
    found = {name: _run(load, name) for name in only or ("healthy", "sick", "kills")}
    if as_json:
        print_line(msgspec.json.encode({name: asdict(each) for name, each in found.items()}).decode())
        return
    print_table(
        ["run", "seconds", "deliveries", "a second", "sent twice", "lost", "kills"],
        [
            [
                name,
                f"{each.seconds:.1f}",
                f"{each.deliveries:,}",
                f"{each.per_second:,.0f}",
                str(each.repeated),
                str(each.lost),
                str(each.kills),
            ]
            for name, each in found.items()
        ],
    )


def _run(load: Load, name: str) -> Found:
    """Do one run on servers of its own.

    Raises:
        BenchmarkFailed: something was lost, or took too long.
    """
    sick = [] if name == "healthy" else ["hanging"] * load.hanging + ["failing"] * load.failing
    with _world() as (children, settings, redis_server):
        database_url = settings.require_database_url()
        kinds = ["healthy"] * load.healthy + sick
        endpoints = make_endpoints(database_url, children.port, load.stores, kinds)
        make_events(database_url, load.events)
        received = Received(children.received_path)
        children.start_receiver()
        faults = Faults(children, redis_server) if name == "kills" else None
        began = time.monotonic()
        for _ in range(load.processes):
            children.start_jobs()
        expected = _expected(load, endpoints)
        _watch(load, children, received, expected, faults, database_url)
        seconds = time.monotonic() - began
        lost = _lost(database_url, endpoints, expected, received)
    deliveries = sum(count for path, count in expected.items() if path.startswith("/healthy/"))
    kills = faults.kills if faults else 0
    return Found(round(seconds, 2), deliveries, round(deliveries / seconds, 1), received.repeated, lost, kills)


@contextmanager
def _world() -> Iterator[tuple[Children, Settings, EmbeddedRedis]]:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="creditlane-webhooks-"))
        # As root: for the user of Postgres to pass through.
        directory.chmod(0o711)
        stack.callback(shutil.rmtree, directory)
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        stack.callback(postgres.stop, immediate=True)
        redis_server = stack.enter_context(EmbeddedRedis(directory / "redis"))
        migrate(postgres.url)
        settings = Settings(database_url=postgres.url, redis_url=redis_server.url)
        yield stack.enter_context(Children(directory, settings)), settings, redis_server


def _expected(load: Load, endpoints: list[Endpoint]) -> dict[str, int]:
    """Return how many events each path gets; the stores' numbers follow each other."""
    stores = sorted({endpoint.store_id for endpoint in endpoints})
    share, rest = divmod(load.events, load.stores)
    return {endpoint.path: share + (stores.index(endpoint.store_id) < rest) for endpoint in endpoints}


def _watch(
    load: Load,
    children: Children,
    received: Received,
    expected: dict[str, int],
    faults: Faults | None,
    database_url: str,
) -> None:
    """Return when the healthy endpoints have received all of theirs."""
    healthy = {path: count for path, count in expected.items() if path.startswith("/healthy/")}
    total = sum(healthy.values())
    deadline = time.monotonic() + load.deadline_seconds
    while True:
        received.read()
        done = sum(len(received.ids[path]) for path in healthy)
        if done >= total:
            return
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"only {done} of {total} deliveries to healthy endpoints within the deadline")
        children.check()
        if faults is not None:
            faults.step(done / total)
            if load.hurry:
                hurry(database_url)
        time.sleep(POLL_SECONDS)


def _lost(database_url: str, endpoints: list[Endpoint], expected: dict[str, int], received: Received) -> int:
    """Return how many deliveries are missing anywhere: at healthy endpoints, or in Postgres of the others.

    Raises:
        BenchmarkFailed: something came under an id that is not its event's, or that nobody was to get.
    """
    if received.disagreeing:
        raise BenchmarkFailed(f"{received.disagreeing} requests with a webhook-id that is not their event's")
    missing = 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        _wait_for_results(connection, endpoints)
        for endpoint in endpoints:
            rows = connection.execute(_OF_ENDPOINT, [endpoint.endpoint_id]).fetchall()
            known = {public_event_id(event_id) for event_id, _ in rows}
            if received.ids[endpoint.path] - known:
                raise BenchmarkFailed(f"{endpoint.path} got what it was not to get")
            missing += expected[endpoint.path] - len(known)
            if endpoint.is_healthy:
                missing += len(known - received.ids[endpoint.path])
    return missing


def _wait_for_results(connection: psycopg.Connection[tuple[object, ...]], endpoints: list[Endpoint]) -> None:
    healthy = [endpoint.endpoint_id for endpoint in endpoints if endpoint.is_healthy]
    deadline = time.monotonic() + SETTLE_SECONDS
    # What sick endpoints are to get may not be fanned out yet when the healthy ones have had all of theirs.
    statement = f"""
        select (select count(*) from deliveries where endpoint_id = any(%s)
                and status <> {StoredDeliveryStatus.DELIVERED:d})
            + (select count(*) from outbox)
    """  # noqa: S608
    while connection.execute(statement, [healthy]).fetchone() != (0,):
        if time.monotonic() > deadline:
            raise BenchmarkFailed("deliveries that were received are not written down")
        time.sleep(POLL_SECONDS)


def main() -> int:
    """Run the load. Returns the exit code."""
    try:
        typer.run(load_command)
    except CreditlaneError as error:
        sys.stderr.write(f"webhook load: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
