"""`creditlane status`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from ..producer.operations.books_status import BooksReport, NextProof, read_books
from ..producer.operations.lane_status import LanesReport, WorkerStatus, read_lanes
from ..producer.operations.webhook_sealing import SecretCount
from ..schemas.settings import Settings, load_settings
from ..schemas.webhook_secrets import SETTING
from .output import print_json, print_line, print_table

#: How long `--check` waits for lanes that are on their way between workers, in leases, and how often it looks, in
#: seconds.
HANDOVER_LEASES = 1.0
POLL_SECONDS = 0.5


class StatusReport(LanesReport, BooksReport):
    """What `status --json` prints."""


def status_command(
    every_lane: Annotated[
        bool, typer.Option("--all", help="List every lane, not only those with a backlog or without an owner.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every lane.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="End with 1 if a lane has no living worker, or something keeps it.")
    ] = False,
) -> None:
    """Show the lanes: who applies them, how much waits on each, and how long the oldest command has waited.

    Below them, what the jobs counted of each store, and whether the books were right when they were proven last.
    Needs CREDITLANE_REDIS_URL and CREDITLANE_DATABASE_URL.

    Example:  creditlane status --json | jq .backlog

    Example:  creditlane status --check || page-somebody
    """
    settings = load_settings()
    lanes = settled_lanes(settings) if check else read_lanes(settings)
    books = read_books(settings)
    if as_json:
        print_json(StatusReport(**dict(lanes), **dict(books)))
    else:
        _print_report(lanes, books, every_lane=every_lane)
    faults = lanes.faults if check else []
    for fault in faults:
        sys.stderr.write(f"creditlane: {fault}\n")
    raise typer.Exit(1 if faults else 0)


def settled_lanes(settings: Settings) -> LanesReport:
    """Return how the lanes are doing once none is between workers, or once one should not be any longer."""
    report = read_lanes(settings)
    deadline = time.monotonic() + HANDOVER_LEASES * settings.lease_seconds
    while any(lane.between_workers for lane in report.lanes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        report = read_lanes(settings)
    return report


def _print_report(report: LanesReport, books: BooksReport, *, every_lane: bool) -> None:
    lag = "none" if report.lag_seconds is None else f"{report.lag_seconds:.3f} s"
    alive = sum(worker.alive for worker in report.workers)
    print_line(f"lanes         {_about_lanes(report)}")
    print_line(f"workers       {alive} alive, {len(report.workers) - alive} expired")
    print_line(f"backlog       {report.backlog:,} commands, the oldest waiting {lag}")
    print_line(f"dead letters  {report.dead_letters:,}")
    print_line(f"books         {_about_books(books)}")
    if (secrets := _about_secrets(books.webhook_secrets)) is not None:
        print_line(f"secrets       {secrets}")
    print_line(f"problems      {len(report.problems) or 'none'}")
    for problem in report.problems:
        print_line(f"  {problem}")
    _print_workers(report)
    _print_lanes(report, every_lane=every_lane)
    _print_statistics(books)


def _about_lanes(report: LanesReport) -> str:
    lanes = f"{len(report.lanes)}, {len(report.without_owner)} of them without an owner"
    between = sum(lane.between_workers for lane in report.lanes)
    return f"{lanes}, {between} between workers" if between else lanes


def _about_books(books: BooksReport) -> str:
    """Return how the latest proofs went."""
    proofs = [
        f"{proof.discrepancies:,} discrepancies in {proof.rows:,} rows, {name} {_age(proof.age_seconds)} ago"
        for proof in books.reconciliations
        for name in ["new since then" if proof.kind == "recent" else "the whole ledger"]
    ]
    return "; ".join(proofs) or f"not proven yet: {_about_next_proof(books.next_proof)}"


def _about_next_proof(proof: NextProof | None) -> str:
    """Return what a ledger that was never proven waits for."""
    if proof is None:
        return "no process of `creditlane jobs work` has run"
    due = f"{proof.due_at:%F %T} UTC"
    return {
        "scheduled": f"`verify-recent` is due at {due}",
        "due": f"`verify-recent` is due since {due}, and no `creditlane jobs work --queue jobs` has begun it",
        "running": f"`verify-recent`, due at {due}, is under way",
        "failed": f"`verify-recent`, due at {due}, has failed; see `creditlane jobs list`",
    }[proof.state]


def _about_secrets(secrets: SecretCount | None) -> str | None:
    """Return whether the secrets that webhooks are signed with can be read in the database; None: nothing to report."""
    if secrets is None or not secrets.sealed + secrets.in_the_clear:
        return None
    if not secrets.in_the_clear:
        return f"of webhooks: {secrets.sealed:,} sealed, none in the clear"
    hint = f"set {SETTING}, then `creditlane webhooks seal`"
    return f"of webhooks: {secrets.sealed:,} sealed, {secrets.in_the_clear:,} in the clear; {hint}"


def _age(seconds: float) -> str:
    """Return an age as people say it."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_statistics(books: BooksReport) -> None:
    columns = ["store", "accounts", "entries", "last hour", "last day", "outbox", "pending", "failed"]
    rows = [
        (
            store.store_id,
            store.accounts,
            store.entries,
            store.entries_last_hour,
            store.entries_last_day,
            store.outbox_rows,
            store.pending_deliveries,
            store.failed_deliveries,
            store.disabled_endpoints,
        )
        for store in books.statistics
    ]
    if rows:
        age = max(store.age_seconds for store in books.statistics)
        print_table([*columns, "disabled"], rows, title=f"Stores, as counted {_age(age)} ago")


def _print_workers(report: LanesReport) -> None:
    rows = [
        (worker.worker_id, worker.host, str(worker.process_id), _state_of(worker), worker.lanes)
        for worker in report.workers
    ]
    if rows:
        print_table(["worker", "host", "pid", "state", "lanes"], rows, title="Workers")


def _state_of(worker: WorkerStatus) -> str:
    if not worker.alive:
        return "expired"
    return "stuck" if worker.stuck else "alive"


def _print_lanes(report: LanesReport, *, every_lane: bool) -> None:
    rows = [
        (lane.partition, lane.owner, lane.epoch, lane.backlog, lane.lag_seconds)
        for lane in report.lanes
        if every_lane or lane.backlog or lane.owner is None or lane.problem
    ]
    if rows:
        print_table(["lane", "owner", "epoch", "backlog", "lag seconds"], rows, title="Lanes")
