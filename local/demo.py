"""`creditlane demo`: the whole lane on a file of metered usage, and the proof of its books."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..audit.whole import verify
from ..cli.output import print_line, print_table, progress_bar
from ..cli.process_pool import labelled
from ..cli.stop_signals import StopSignals
from ..cli.verify import print_verification
from ..producer.client._sync.client import Client
from ..schemas.settings import Settings, load_settings
from .demo_run import MAX_UNDER_WAY, Answers, Plan, open_accounts, plan_of, run_debits
from .processes import fresh_log
from .stack import running_stack
from .stack_record import DATA_DIRECTORY, find_running, make_data_directory
from .up import DataDirectory, Workers
from .usage_file import SAMPLE, UsageFile

#: Accounts that the table of the busiest shows.
BUSIEST = 10

InputFile = Annotated[
    Path, typer.Option("--input", exists=True, dir_okay=False, readable=True, help="Usage in CSV; see above.")
]
Accounts = Annotated[int, typer.Option(min=1, max=100_000, help="Accounts for a file without a customer column.")]


def demo_command(
    input_file: InputFile = SAMPLE,
    accounts: Accounts = 100,
    workers: Workers = 2,
    data_dir: DataDirectory = DATA_DIRECTORY,
) -> None:
    """Run a usage file through the whole lane on the local stack, and prove the books.

    It starts the stack, opens the accounts, debits every row in the order of the file, waits for every result, runs
    `verify` and stops everything. A stack that runs on the directory already is used and left running.

    Ends with 0 if every command got its result and the books are right. A second run of the same file replays every
    command and changes no balance, for the keys are made from the file's content.

    The file is CSV with the header `customer_id,units,reference`; or `TIMESTAMP,ContextTokens,GeneratedTokens`, where
    row i, counted from 0, takes the sum of both from the account of customer i modulo --accounts. A row that takes 0
    is skipped.

    Example:  creditlane demo --input usage.csv
    """
    usage = UsageFile(input_file, accounts)
    with StopSignals() as signals:
        try:
            is_sound = _run(usage, workers, data_dir, signals)
        except KeyboardInterrupt:
            raise typer.Exit(128 + (signals.received or 2)) from None
    raise typer.Exit(0 if is_sound else 1)


@contextmanager
def _stack_settings(data_dir: Path, workers: int, signals: StopSignals) -> Iterator[Settings]:
    """Give the settings of the stack that runs on the directory, or of one that is started for the time being."""
    running = find_running(data_dir)
    if running is not None:
        print_line(f"Using the stack of process {running.pid}")
        values = {name.removeprefix("CREDITLANE_").lower(): value for name, value in running.settings.items()}
        yield load_settings(**values)
        return
    make_data_directory(data_dir)
    with fresh_log(data_dir / "workers.log") as log:

        def write_log(worker: int, line: str) -> None:
            os.write(log, f"{labelled(worker, line)}\n".encode(errors="replace"))

        with running_stack(data_dir, workers, signals, say=print_line, worker_log=write_log) as stack:
            print_line(f"{workers} worker processes take commands; their log is {data_dir / 'workers.log'}")
            yield stack.settings


def _run(usage: UsageFile, workers: int, data_dir: Path, signals: StopSignals) -> bool:
    """Run the file and return whether all is as it should be."""
    plan = plan_of(usage)
    print_line(f"{usage.path}: {plan.debits:,} debits on {len(plan.customers):,} accounts; {usage.rule}")
    if plan.empty_rows:
        print_line(f"{plan.empty_rows:,} rows of 0 skipped")
    with _stack_settings(data_dir, workers, signals) as settings:
        with Client(settings) as client:
            accounts = open_accounts(client, usage, plan)
            before = _balances(client, accounts)
            with progress_bar("Debiting", "results") as progress:
                answers = run_debits(client, usage, accounts, lambda done: progress(done, plan.debits))
            after = _balances(client, accounts)
        _print_busiest(plan, accounts, after)
        _print_answers(answers, is_unchanged=before == after)
        with progress_bar("Verifying", "rows") as progress:
            report = verify(settings.require_database_url(), progress)
        print_verification(report)
    return report.discrepancies == 0 and answers.count == plan.debits and not answers.refused["dead_lettered"]


def _balances(client: Client, accounts: dict[str, str]) -> dict[str, int]:
    return {customer: client.balance(account) for customer, account in accounts.items()}


def _print_busiest(plan: Plan, accounts: dict[str, str], balances: dict[str, int]) -> None:
    busiest = sorted(plan.customers, key=lambda customer: (-plan.customers[customer].units, customer))[:BUSIEST]
    rows = [(customer, accounts[customer], *plan.customers[customer], balances[customer]) for customer in busiest]
    print_table(["customer", "account", "debits", "units", "balance"], rows, title="Busiest accounts")


def _print_answers(answers: Answers, *, is_unchanged: bool) -> None:
    unchanged = ", no balance changed" if is_unchanged else ""
    counts = {"applied": answers.applied, "replayed": answers.replayed, "rejected": answers.refused.total()}
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    print_line(", ".join(parts) + unchanged)
    for code, count in answers.refused.most_common():
        print_line(f"    {count:,} {code}")
    rate = answers.count / answers.seconds if answers.seconds else 0.0
    p50, p99 = answers.latency_ms(0.5), answers.latency_ms(0.99)
    print_line(
        f"{rate:,.0f} results/s; latency p50 {p50:.1f} ms, p99 {p99:.1f} ms, from a command's acceptance to its "
        f"result in hand, with up to {MAX_UNDER_WAY:,} commands under way"
    )
