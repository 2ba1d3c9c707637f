"""`/healthz` of an API process alone, and beside one client without a key that does what `unauthenticated_clients` can.

`python -m creditlane.benchmarks.front_door`, on servers of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Annotated

import msgspec
import typer

from ..cli.output import print_line, print_table
from ..lanes.postgres.migrate import migrate
from ..schemas.errors import ConfigurationError, CreditlaneError
from ..schemas.settings import Settings
from .api_process import OK, ApiProcess
from .http_wire import Address, Connection
from .latency import Latencies
from .plan import BenchmarkFailed
from .servers import running_servers
from .unauthenticated_clients import ABUSES, unauthenticated_client
from .worker_processes import WorkerProcesses

#: Between two probes, in seconds.
PAUSE_SECONDS = 0.02
#: How long an abuse goes on before it is measured beside, in seconds.
RUN_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What others noticed, in milliseconds."""

    probes: int
    p50_ms: float
    p95_ms: float
    max_ms: float
    #: The median, over that of the probes alone right before.
    times_alone: float


def measure_front_door(names: Sequence[str], seconds: float) -> dict[str, Found]:
    """Measure each abuse for so long, and before it `/healthz` alone.

    Raises:
        BenchmarkFailed: a probe was not answered with 200.
    """
    found: dict[str, Found] = {}
    with running_servers(None, None) as servers, servers.database("front") as url, servers.keys("front"):
        migrate(url)
        settings = Settings(
            database_url=url, redis_url=servers.redis_url, redis_prefix=servers.prefix("front"), log_format="json"
        )
        # Ready is only an API whose lanes have a worker.
        with WorkerProcesses(settings, 1), ApiProcess(settings) as api:
            for name in names:
                alone = _probe(api.address, seconds)
                found.setdefault("alone", _found(alone, alone))
                with unauthenticated_client(name, api.address.host, api.address.port):
                    time.sleep(RUN_UP_SECONDS)
                    found[name] = _found(_probe(api.address, seconds), alone)
    return found


def _probe(address: Address, seconds: float) -> Latencies:
    """Ask for `/healthz` again and again, each time on a connection of its own, and return how long it took."""
    request = address.get("/healthz").replace(f"x-api-key: {address.key}\r\n".encode(), b"")
    took: list[float] = []
    ends_at = time.perf_counter() + seconds
    while not took or time.perf_counter() < ends_at:
        began = time.perf_counter()
        with closing(Connection(address)) as connection:
            answer = connection.ask(request)
        if answer.status != OK:
            raise BenchmarkFailed(f"/healthz was answered with {answer.status}")
        took.append((time.perf_counter() - began) * 1_000)
        time.sleep(PAUSE_SECONDS)
    return Latencies(tuple(sorted(took)))


def _found(latencies: Latencies, alone: Latencies) -> Found:
    p50 = latencies.percentile(50)
    times = p50 / alone.percentile(50)
    return Found(len(latencies.sorted_ms), p50, latencies.percentile(95), latencies.sorted_ms[-1], times)


def front_door_command(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured, and alone before it.")] = 5.0,
    only: Annotated[list[str] | None, typer.Option(help="Measure only this; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what one client without a key does to the others' /healthz."""
    if unknown := set(only or ()) - set(ABUSES):
        raise ConfigurationError(f"there is no {unknown.pop()!r}; there are {', '.join(ABUSES)}")
    found = measure_front_door(only or list(ABUSES), seconds)
    if as_json:
        print_line(msgspec.json.encode({name: asdict(each) for name, each in found.items()}).decode())
        return
    print_table(
        ["one client without a key", "probes", "p50", "p95", "max", "times alone"],
        [
            [
                name,
                each.probes,
                f"{each.p50_ms:.1f} ms",
                f"{each.p95_ms:.1f} ms",
                f"{each.max_ms:.1f} ms",
                f"{each.times_alone:.1f}",
            ]
            for name, each in found.items()
        ],
    )


def main() -> int:
    """Run the measurement. Returns the exit code."""
    try:
        typer.run(front_door_command)
    except CreditlaneError as error:
        sys.stderr.write(f"front door: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
