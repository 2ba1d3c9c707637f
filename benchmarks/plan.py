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

#: What a plain run measures, in this order, with the yardstick before, between and after.
STANDARD_SCENARIOS = (
    "drain_many",
    "drain_many_kept",
    "drain_hot",
    "drain_hot_kept",
    "concurrent",
    "concurrent_kept",
    "latency_ms",
    "latency_ms_kept",
    "rq_per_command",
)
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
