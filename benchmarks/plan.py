"""What a run measures, and how much of it. Knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..schemas.errors import ConfigurationError, CreditlaneError

#: Commands of each drain.
DEFAULT_COMMANDS = 200_000
#: Rows of one measurement of the yardstick.
YARDSTICK_ROWS = 100_000
#: The backlog on which a worker's memory is judged.
BACKLOG_COMMANDS = 1_000_000
#: Entries after which a ledger counts as grown.
GROWN_ENTRIES = 5_000_000

#: Most requests of the debits over HTTP; they are far slower than anything on the lanes.
HTTP_REQUESTS = 20_000
#: Most entries of the account that is read.
READ_ENTRIES = 1_000_000
#: Entries of that account for each command of a drain, so that a small run is small everywhere.
READ_ENTRIES_PER_COMMAND = 5

#: What a plain run measures, in this order, with the yardstick before, between and after.
STANDARD_SCENARIOS = (
    "drain_many",
    "drain_many_kept",
    "drain_hot",
    "drain_hot_kept",
    "concurrent",
    "concurrent_kept",
    "hold_capture",
    "webhooks",
    "latency_ms",
    "latency_ms_kept",
    "rq_per_command",
    "client_enqueue_many",
    "http_batch",
    "http_debits",
    "reads",
)
#: Measured beside the client that needs no HTTP.
BESIDE_THE_CLIENT = ("http_batch", "http_debits")
#: What is measured on request, because it takes minutes.
LONG_SCENARIOS = ("backlog", "growth")
#: Marks a scenario whose workers keep every result under its poll key too.
KEPT_SUFFIX = "_kept"


class BenchmarkFailed(CreditlaneError):
    """The benchmark did not do what it claims to measure."""

    code = "benchmark_failed"


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of one run."""

    scenarios: tuple[str, ...]
    commands: int
    accounts: int
    workers: int
    backlog: int
    grown_entries: int
    latency_seconds: float
    rq_commands: int
    copy_rows: int

    @property
    def http_requests(self) -> int:
        """Requests of the debits over HTTP."""
        return min(self.commands, HTTP_REQUESTS)

    @property
    def read_entries(self) -> int:
        """Entries of the account that is read."""
        return min(self.commands * READ_ENTRIES_PER_COMMAND, READ_ENTRIES)


def make_plan(
    *,
    commands: int,
    accounts: int,
    workers: int,
    only: Sequence[str],
    backlog: int,
    growth: bool,
    grown_entries: int,
    latency_seconds: float,
    rq_commands: int,
    copy_rows: int,
) -> Plan:
    """Return the plan of a run.

    Raises:
        ConfigurationError: `only` names something that is not measured.
    """
    known = (*STANDARD_SCENARIOS, *LONG_SCENARIOS)
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ConfigurationError(f"--only {unknown[0]}: choose from {', '.join(known)}")
    wanted = set(only or STANDARD_SCENARIOS)
    wanted |= ({"backlog"} if backlog else set()) | ({"growth"} if growth else set())
    wanted |= {"client_enqueue_many"} if wanted.intersection(BESIDE_THE_CLIENT) else set()
    return Plan(
        scenarios=tuple(name for name in known if name in wanted),
        commands=commands,
        accounts=accounts,
        workers=workers,
        backlog=backlog or BACKLOG_COMMANDS,
        grown_entries=grown_entries,
        latency_seconds=latency_seconds,
        rq_commands=rq_commands,
        copy_rows=copy_rows,
    )
