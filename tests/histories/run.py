"""Makes a history and judges it: real processes, several sorts of clients, faults if wanted, then every check.

    .venv/bin/python -m tests.histories.run --seconds 60 --seed 1 [--no-faults] [--json] [--keep DIRECTORY]

Prints what goes on while it runs, and a summary at the end; ends with 1 if anything contradicts what is guaranteed.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from creditlane import Client
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.local.processes import wait_until
from creditlane.schemas.commands import OpenAccount
from creditlane.schemas.errors import CreditlaneError
from creditlane.schemas.identifiers import derive_account_id

from . import checks
from .books import prove_books, read_books
from .callers import BlockingCaller, command_of
from .client_process import BEGIN, LONGEST_START_SECONDS
from .faults import Episodes
from .orders import Anomaly
from .probes import Probes
from .records import Books, HistoryFile, Operation, Request, read_history
from .stack import PARTITIONS, Process, Stack
from .workload import Plan

#: How long the lanes may take to become empty once nobody sends anything any more, in seconds.
SETTLE_SECONDS = 90.0
#: How many keys are asked for once more at the end: first answer again.
ASKED_AGAIN = 200
#: Anomalies of one kind that are shown.
SHOWN = 3
SORTS = ("blocking", "blocking", "asyncio", "racing", "http", "http", "bulk")
INITIAL_BALANCE = 1_000


@dataclass(frozen=True, slots=True)
class Options:
    """How a history is made. Times in seconds."""

    seconds: float = 60.0
    seed: int = 1
    faults: bool = True
    workers: int = 3
    apis: int = 2
    lease_seconds: float = 3.0
    timeout: float = 5.0
    margin: float = checks.MARGIN_SECONDS
    #: One client process of each.
    sorts: tuple[str, ...] = SORTS


@dataclass(slots=True)
class Report:
    """What was done and what was found."""

    options: Options
    summary: dict[str, Any]
    faults: list[dict[str, Any]] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.anomalies

    def lines(self) -> Iterable[str]:
        """Yield the report for a person."""
        yield f"seed {self.options.seed}: {self.summary['operations']} operations, {self.summary['rows']} rows"
        yield f"  by operation: {self.summary['by_operation']}"
        yield f"  by outcome: {self.summary['by_outcome']}"
        if self.faults:
            yield f"  faults: {len(self.faults)}; kinds, and seconds until all lanes flowed again:"
        recoveries: defaultdict[str, list[float]] = defaultdict(list)
        for fault in self.faults:
            recoveries[" + ".join(fault["faults"])].append(fault["recovered"])
        for name, seconds in sorted(recoveries.items()):
            yield f"    {name}: {', '.join(f'{second:.1f}' for second in seconds)}"
        by_kind: defaultdict[str, list[Anomaly]] = defaultdict(list)
        for anomaly in self.anomalies:
            by_kind[anomaly.kind].append(anomaly)
        yield f"  anomalies: {len(self.anomalies)}"
        for kind, anomalies in sorted(by_kind.items()):
            yield f"    {kind}: {len(anomalies)}"
            for anomaly in anomalies[:SHOWN]:
                yield f"      {anomaly.where[:600]}"
                yield f"        but: {anomaly.contradicts[:400]}"

    def as_json(self) -> str:
        shown = {"options": asdict(self.options), "summary": self.summary, "faults": self.faults}
        return json.dumps(shown | {"anomalies": [anomaly._asdict() for anomaly in self.anomalies]}, indent=1)


Say = Callable[[str], None]


def run(options: Options, directory: Path, say: Say = lambda _text: None) -> Report:
    """Make a history in the directory and judge it."""
    began = time.monotonic()

    def log(text: str) -> None:
        say(f"[{time.monotonic() - began:6.1f} s] {text}")

    directory.mkdir(parents=True, exist_ok=True)
    options_of_stack = {"lease_seconds": options.lease_seconds, "timeout": options.timeout}
    with (
        Stack(directory, workers=options.workers, apis=options.apis, **options_of_stack) as stack,
        HistoryFile(directory / "controller.jsonl", "controller") as history,
    ):
        log("servers, workers and APIs are up")
        plan = open_accounts(stack, options, history)
        plan.write(directory / "plan.json")
        start_clients(stack, options.sorts, directory)
        ready = wait_until(
            lambda: len(list(directory.glob("*.ready"))) == len(stack.clients), seconds=LONGEST_START_SECONDS
        )
        assert ready, "the client processes did not start"
        (directory / BEGIN).touch()
        log(f"{len(stack.clients)} client processes work")
        faults, found = make_history(stack, options, plan, history, log)
        stack.stop_clients()
        log("clients are stopped; waiting for the lanes")
        found += settle(stack)
        ask_again(stack, directory, history, options)
        found += list(prove_books(stack.settings.require_database_url()))
        read_books(stack.settings.require_database_url()).write(directory / "books.json")
    report = judge(options, directory, log)
    return Report(options, report.summary, faults, [*found, *report.anomalies])


def judge(options: Options, directory: Path, say: Say = lambda _text: None) -> Report:
    """Judge the history that lies in the directory."""
    operations = read_history(sorted(directory.glob("*.jsonl")))
    books, plan = Books.read(directory / "books.json"), Plan.read(directory / "plan.json")
    say(f"judging {len(operations)} operations and {len(books.rows)} rows")
    found = checks.check(operations, books, closed_sets=plan.closed_sets, margin_seconds=options.margin)
    return Report(options, {**checks.summary_of(operations), "rows": len(books.rows)}, anomalies=found)


def open_accounts(stack: Stack, options: Options, history: HistoryFile) -> Plan:
    """Open the accounts that all clients know, and return what they need to know of them."""
    store = stack.settings.store
    requests: list[Request] = []

    def accounts(name: str, count: int) -> list[str]:
        keys = [f"open {name} {number}" for number in range(count)]
        for key in keys:
            account = derive_account_id(store, key)
            request = {"op": "open_account", "account": account, "key": key, "customer": key, "name": "default"}
            requests.append({**request, "initial_balance": INITIAL_BALANCE})
        return [derive_account_id(store, key) for key in keys]

    plan = Plan(
        store=store,
        seed=options.seed,
        began=time.monotonic_ns(),
        timeout=options.timeout,
        hot=accounts("hot", 4),
        cold=accounts("cold", 200),
        drained=accounts("drained", 12),
        frozen=accounts("frozen", 10),
        closed_sets=[accounts(f"closed {number}", 6) for number in range(3)],
    )
    with Client(stack.settings) as client:
        name = history.begin({"op": "batch", "commands": requests}, options.timeout)
        tickets = client.enqueue_many([_with_account(request) for request in requests])
        history.end(name, {"kind": "batch", "answers": [{"kind": "accepted", "ticket": str(t)} for t in tickets]})
        for _ in client.wait_many(tickets, timeout=60):
            pass
    return plan


def _with_account(request: Request) -> OpenAccount:
    command = command_of(request)
    assert isinstance(command, OpenAccount)
    return command


def start_clients(stack: Stack, sorts: Iterable[str], directory: Path) -> None:
    """Start a client process of each sort."""
    for number, sort in enumerate(sorts):
        name = f"{sort}{number}"

        def arguments(start: int, name: str = name, sort: str = sort) -> tuple[str, ...]:
            process = f"{name}-{start}"
            module = ("-m", "tests.histories.client_process")
            return (*module, process, sort, str(directory / "plan.json"), str(directory / f"{process}.jsonl"))

        stack.add_client(name, arguments)


def make_history(
    stack: Stack, options: Options, plan: Plan, history: HistoryFile, log: Say
) -> tuple[list[dict[str, Any]], list[Anomaly]]:
    """Let the clients work for the time of the options, with faults if wanted; return those, and what went wrong."""
    deadline = time.monotonic() + options.seconds
    probes = Probes(stack, one_account_a_lane(plan), history)
    if not options.faults:
        while (left := deadline - time.monotonic()) > 0:
            took = probes.seconds_until_all_flow()
            log(f"a command through on every lane in {took:.2f} s")
            time.sleep(min(5.0, max(left, 0)))
        return [], ended_by_themselves(stack)
    episodes = Episodes(stack, probes, random.Random(options.seed), log, margin=options.margin)
    while time.monotonic() < deadline:
        episodes.run_one()
    return episodes.finished, [*episodes.anomalies, *ended_by_themselves(stack)]


def one_account_a_lane(plan: Plan) -> list[str]:
    """Return one cold account on every lane."""
    return list({partition_of(account, PARTITIONS): account for account in plan.cold}.values())


def ended_by_themselves(stack: Stack) -> list[Anomaly]:
    """Report every process that is gone though nobody has ended it."""
    gone: list[Process] = [process for process in stack.processes() if not process.is_running]
    return [Anomaly("process_ended", process.name, "nobody has ended it") for process in gone]


def settle(stack: Stack) -> list[Anomaly]:
    """Wait until every lane is empty: all that was accepted is decided."""
    import redis

    keys = Keys(stack.settings.redis_prefix)
    with redis.Redis.from_url(stack.settings.require_redis_url()) as client:

        def backlog() -> int:
            return sum(int(client.xlen(keys.lane(partition))) for partition in range(PARTITIONS))  # type: ignore[arg-type]

        if wait_until(lambda: backlog() == 0, seconds=SETTLE_SECONDS):
            return []
        return [Anomaly("lanes_stand", f"{backlog()} commands", f"undecided after {SETTLE_SECONDS:g} s")]


def ask_again(stack: Stack, directory: Path, history: HistoryFile, options: Options) -> None:
    """Send some of all commands once more, so that their answers are judged against the first ones."""
    operations = read_history(sorted(directory.glob("*.jsonl")))
    sent = [operation for operation in operations if operation.sends and operation.op != "reverse"]
    unknown = [operation for operation in sent if operation.kind in {"none", "unknown", "unavailable"}]
    chosen: list[Operation] = random.Random(options.seed).sample(sent, min(len(sent), ASKED_AGAIN // 2))
    with Client(stack.settings) as client:
        call = BlockingCaller(client)
        for operation in [*chosen, *unknown[: ASKED_AGAIN // 2]]:
            request = {name: value for name, value in operation.request.items() if name != "enqueue"}
            name = history.begin(request, options.timeout)
            history.end(name, call(request))


def main(arguments: list[str] | None = None) -> int:
    """Run as the command line says; return 1 if anything was found, 2 if no history could be made."""
    given = parser().parse_args(arguments)
    options = Options(
        seconds=given.minutes * 60 if given.minutes else given.seconds,
        seed=given.seed,
        faults=not given.no_faults,
        workers=given.workers,
        lease_seconds=given.lease,
        timeout=given.timeout,
        margin=given.margin,
        sorts=tuple(given.sorts.split(",")),
    )
    try:
        report = judge(options, given.judge) if given.judge else run_in(given.keep, options)
    except CreditlaneError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    sys.stdout.write((report.as_json() if given.json else "\n".join(report.lines())) + "\n")
    return 0 if report.is_sound else 1


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    made = argparse.ArgumentParser(prog="tests.histories.run", description="Make a history and judge it.")
    made.add_argument("--seconds", type=float, default=60.0, help="how long the clients work")
    made.add_argument("--minutes", type=float, help="the same in minutes")
    made.add_argument("--seed", type=int, default=1, help="decides commands and faults")
    made.add_argument("--workers", type=int, default=3)
    made.add_argument("--lease", type=float, default=3.0, help="lease of the workers, in seconds")
    made.add_argument("--timeout", type=float, default=5.0, help="how long each call may take, in seconds")
    made.add_argument("--margin", type=float, default=checks.MARGIN_SECONDS, help="what it may take beyond that")
    made.add_argument("--sorts", default=",".join(SORTS), help="one client process of each of these")
    made.add_argument("--no-faults", action="store_true", help="let the clients work undisturbed")
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    made.add_argument("--keep", type=Path, help="where logs and histories are left; else they are removed")
    made.add_argument("--judge", type=Path, help="only judge the history that was left in this directory")
    return made


def run_in(kept: Path | None, options: Options) -> Report:
    """Make a history, and print what goes on; its directory stays if it was named, or if something was found."""
    directory = kept or Path(tempfile.mkdtemp(prefix="creditlane-history-"))
    if kept is None:
        # As root: for the user of Postgres to pass through.
        directory.chmod(0o711)
    report: Report | None = None
    try:
        report = run(options, directory, say_on_stderr)
    finally:
        if kept is None and (report is None or report.is_sound):
            shutil.rmtree(directory, ignore_errors=True)
        else:
            say_on_stderr(f"history and logs are in {directory}; --judge {directory} judges them again")
    return report


def say_on_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
