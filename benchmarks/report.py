"""What a run found, as a table to read and as one JSON object for a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from ..cli.output import Cell, print_line, print_table
from .growth import Growth
from .http_debits import CONNECTIONS, RequestRate
from .latency import RATE_PER_SECOND, Latencies
from .outbox_cost import WebhookCost
from .plan import BESIDE_THE_CLIENT, Plan
from .reads import REQUESTS, ReadTimes
from .scenarios import Measurement

Outcome = Measurement | Latencies | Growth | RequestRate | ReadTimes | WebhookCost


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures were measured."""

    cores: int
    python: str
    postgres: str
    redis: str
    platform: str

    def __str__(self) -> str:
        return f"{self.cores} cores, {self.platform}, Python {self.python}, Postgres {self.postgres}, {self.redis}"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run found."""

    plan: Plan
    machine: Machine
    copy_rows_per_second: float
    copy_samples: tuple[float, ...]
    outcomes: Mapping[str, Outcome]

    @property
    def worker_memory_mb(self) -> float | None:
        """The most memory that any worker process had."""
        peaks = [measured.worker_memory_mb for _, measured in self.measurements() if measured.worker_memory_mb]
        return max(peaks, default=None)

    def measurements(self) -> Iterator[tuple[str, Measurement]]:
        """Yield everything that has a rate, with its name."""
        for name, outcome in self.outcomes.items():
            if isinstance(outcome, Measurement):
                yield name, outcome
            elif isinstance(outcome, Growth | WebhookCost):
                yield from ((f"{name}.{part}", measured) for part, measured in _parts(outcome))

    def ratio(self, measured: Measurement | RequestRate) -> float:
        """Return commands a second over the yardstick's rows a second."""
        return round(measured.commands_per_second / self.copy_rows_per_second, 5)

    def ratio_to_client(self, measured: Measurement | RequestRate) -> float | None:
        """Return a rate over the bare client's, None where that was not measured."""
        client = self.outcomes.get("client_enqueue_many")
        if not isinstance(client, Measurement):
            return None
        return round(measured.commands_per_second / client.commands_per_second, 4)

    def ratio_to_debits(self, measured: Measurement) -> float | None:
        """Return a rate over that of plain debits on as many accounts, None where that was not measured."""
        debits = self.outcomes.get("drain_many")
        if not isinstance(debits, Measurement):
            return None
        return round(measured.commands_per_second / debits.commands_per_second, 4)

    def as_object(self) -> dict[str, Any]:
        """Return the report as it is printed for a program."""
        return {
            "copy_rows_per_second": round(self.copy_rows_per_second),
            "copy_samples": [round(sample) for sample in self.copy_samples],
            **{name: self._outcome(name, outcome) for name, outcome in self.outcomes.items()},
            "worker_memory_mb": self.worker_memory_mb,
            "commands": self.plan.commands,
            "accounts": self.plan.accounts,
            "workers": self.plan.workers,
            **asdict(self.machine),
        }

    def _outcome(self, name: str, outcome: Outcome) -> dict[str, Any]:
        if isinstance(outcome, Latencies):
            return {**_latencies(outcome), "per_second": RATE_PER_SECOND}
        if isinstance(outcome, ReadTimes):
            return _read_times(outcome)
        if isinstance(outcome, RequestRate):
            return self._requests(outcome)
        if isinstance(outcome, Growth | WebhookCost):
            parts = {name: self._rate(value) for name, value in _parts(outcome)}
            if isinstance(outcome, WebhookCost):
                return {**parts, "cost_percent": round(outcome.cost_percent, 1)}
            return {"entries": outcome.entries, **parts}
        if name == "hold_capture":
            rate = {**self._rate(outcome), "ratio_to_drain_many": self.ratio_to_debits(outcome)}
        else:
            rate = self._lines(outcome) if name == "http_batch" else self._rate(outcome)
        return rate

    def _requests(self, measured: RequestRate) -> dict[str, Any]:
        return {
            "requests_per_second": round(measured.commands_per_second),
            "ratio": self.ratio(measured),
            "ratio_to_client": self.ratio_to_client(measured),
            **_latencies(measured.latencies),
            "seconds": round(measured.seconds, 6),
            "connections": CONNECTIONS,
        }

    def _lines(self, measured: Measurement) -> dict[str, Any]:
        return {
            "lines_per_second": round(measured.commands_per_second),
            "ratio": self.ratio(measured),
            "ratio_to_client": self.ratio_to_client(measured),
            "lines": measured.commands,
            "seconds": round(measured.seconds, 6),
        }

    def _rate(self, measured: Measurement) -> dict[str, Any]:
        return {
            "commands_per_second": round(measured.commands_per_second),
            "ratio": self.ratio(measured),
            "commands": measured.commands,
            "seconds": round(measured.seconds, 6),
            "worker_memory_mb": measured.worker_memory_mb,
        }


def _parts(outcome: Growth | WebhookCost) -> Iterator[tuple[str, Measurement]]:
    if isinstance(outcome, WebhookCost):
        yield "with", outcome.subscribed
        yield "without", outcome.unsubscribed
        return
    yield "before", outcome.before
    yield "before_scattered_keys", outcome.before_scattered_keys
    yield "after", outcome.after
    yield "after_scattered_keys", outcome.after_scattered_keys


def _latencies(latencies: Latencies) -> dict[str, Any]:
    return {
        "p50": round(latencies.percentile(50), 2),
        "p99": round(latencies.percentile(99), 2),
        "max": round(latencies.sorted_ms[-1], 2),
        "commands": len(latencies.sorted_ms),
    }


def _read_times(times: ReadTimes) -> dict[str, Any]:
    kinds = {
        kind: {"median_ms": round(times.median(kind), 2), "max_ms": round(max(milliseconds), 2)}
        for kind, milliseconds in times.milliseconds.items()
    }
    return {"entries": times.entries, "requests": REQUESTS, **kinds}


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the report on standard output."""
    if as_json:
        print_line(msgspec.json.format(msgspec.json.encode(report.as_object()), indent=2).decode())
        return
    print_line(str(report.machine))
    _print_rates(report)
    _print_latencies(report)
    for outcome in report.outcomes.values():
        if isinstance(outcome, ReadTimes):
            _print_read_times(outcome)


def _print_latencies(report: Report) -> None:
    columns = ("p50", "p99", "max", "commands")
    rows: list[list[Cell]] = []
    for name, outcome in report.outcomes.items():
        if isinstance(outcome, Latencies | RequestRate):
            latencies = outcome if isinstance(outcome, Latencies) else outcome.latencies
            how = f"{RATE_PER_SECOND} a second" if latencies is outcome else f"{CONNECTIONS} connections"
            rows.append([f"{name}, {how}", *(_latencies(latencies)[column] for column in columns)])
    if rows:
        print_table(["", *columns], rows, title="Latency, ms")


def _print_read_times(times: ReadTimes) -> None:
    rows: list[list[Cell]] = [
        [kind, round(times.median(kind), 2), round(max(milliseconds), 2)]
        for kind, milliseconds in times.milliseconds.items()
    ]
    print_table(["", "median", "max"], rows, title=f"Reads over HTTP on {times.entries:,} entries, ms")


def _print_rates(report: Report) -> None:
    rows: list[list[Cell]] = [["bare COPY", round(report.copy_rows_per_second), 1.0, report.plan.copy_rows, None, None]]
    for name, measured in report.measurements():
        rows.append(
            [
                name,
                round(measured.commands_per_second),
                report.ratio(measured),
                measured.commands,
                measured.seconds,
                measured.worker_memory_mb,
            ]
        )
    for name, outcome in report.outcomes.items():
        if isinstance(outcome, RequestRate):
            rate, ratio = round(outcome.commands_per_second), report.ratio(outcome)
            rows.append([name, rate, ratio, outcome.commands, outcome.seconds, None])
    columns = ["", "a second", "of COPY", "commands", "seconds", "worker MB"]
    workers = f"{report.plan.workers} worker process{'es' if report.plan.workers > 1 else ''}"
    print_table(columns, rows, title=f"{report.plan.accounts:,} accounts, {workers}")
    for name in BESIDE_THE_CLIENT:
        beside = report.outcomes.get(name)
        if isinstance(beside, Measurement | RequestRate):
            print_line(f"{name} reaches {report.ratio_to_client(beside)} of client_enqueue_many")
    pairs = report.outcomes.get("hold_capture")
    if isinstance(pairs, Measurement) and (ratio_to_debits := report.ratio_to_debits(pairs)):
        print_line(f"holds and captures are applied at {ratio_to_debits} of the rate of drain_many")
    for outcome in report.outcomes.values():
        if isinstance(outcome, WebhookCost):
            print_line(f"an endpoint that subscribes to everything costs {outcome.cost_percent:.1f} % of the rate")
