"""`creditlane status`."""

from __future__ import annotations

from typing import Annotated

import typer

from ...schemas.settings import load_settings
from ..lane_status import LanesReport, read_lanes
from .output import print_json, print_line, print_table


def status_command(
    every_lane: Annotated[
        bool, typer.Option("--all", help="List every lane, not only those with a backlog or without an owner.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every lane.")] = False,
) -> None:
    """Show the lanes: who applies them, how much waits on each, and how long the oldest command has waited.

    Needs CREDITLANE_REDIS_URL and CREDITLANE_DATABASE_URL.

    Example:  creditlane status --json | jq .backlog
    """
    report = read_lanes(load_settings())
    if as_json:
        print_json(report)
    else:
        _print_report(report, every_lane=every_lane)


def _print_report(report: LanesReport, *, every_lane: bool) -> None:
    lag = "none" if report.lag_seconds is None else f"{report.lag_seconds:.3f} s"
    alive = sum(worker.alive for worker in report.workers)
    print_line(f"lanes         {len(report.lanes)}, {len(report.without_owner)} of them without an owner")
    print_line(f"workers       {alive} alive, {len(report.workers) - alive} gone without a word")
    print_line(f"backlog       {report.backlog:,} commands, the oldest waiting {lag}")
    print_line(f"dead letters  {report.dead_letters:,}")
    _print_workers(report)
    _print_lanes(report, every_lane=every_lane)


def _print_workers(report: LanesReport) -> None:
    rows = [
        (worker.worker_id, worker.host, str(worker.process_id), "alive" if worker.alive else "gone", worker.lanes)
        for worker in report.workers
    ]
    if rows:
        print_table(["worker", "host", "pid", "state", "lanes"], rows, title="Workers")


def _print_lanes(report: LanesReport, *, every_lane: bool) -> None:
    rows = [
        (lane.partition, lane.owner, lane.epoch, lane.backlog, lane.lag_seconds)
        for lane in report.lanes
        if every_lane or lane.backlog or lane.owner is None
    ]
    if rows:
        print_table(["lane", "owner", "epoch", "backlog", "lag seconds"], rows, title="Lanes")
