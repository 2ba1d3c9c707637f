"""`creditlane bench`. To mount it: `app.command("bench")(bench_command)`.

What is heavy is imported when it runs. It raises `CreditlaneError` for everything that a person can put right; the
program that mounts it turns that into one line and a non-zero exit, as `__main__` does here.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .plan import BACKLOG_COMMANDS, DEFAULT_COMMANDS, GROWN_ENTRIES, YARDSTICK_ROWS, make_plan


def bench_command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    commands: Annotated[int, typer.Option(min=1, help="Commands of each drain.")] = DEFAULT_COMMANDS,
    accounts: Annotated[int, typer.Option(min=1, help="Accounts that share them.")] = 10_000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Measure only this; may be repeated.")] = None,
    backlog: Annotated[
        int, typer.Option(min=0, help=f"Also drain a backlog of this many debits, e.g. {BACKLOG_COMMANDS}, for memory.")
    ] = 0,
    growth: Annotated[bool, typer.Option("--growth", help="Also drain on a ledger that has grown.")] = False,
    grown_entries: Annotated[int, typer.Option(min=1, help="Entries of the grown ledger.")] = GROWN_ENTRIES,
    latency_seconds: Annotated[float, typer.Option(min=0.1, help="How long latency is measured.")] = 10.0,
    rq_commands: Annotated[int, typer.Option(min=1, help="Commands that RQ runs, one a job.")] = 2_000,
    copy_rows: Annotated[int, typer.Option(min=1, help="Rows of the yardstick.")] = YARDSTICK_ROWS,
    database_url: Annotated[
        str | None, typer.Option(envvar="CREDITLANE_DATABASE_URL", show_envvar=True, help="A role with CREATEDB.")
    ] = None,
    redis_url: Annotated[str | None, typer.Option(envvar="CREDITLANE_REDIS_URL", show_envvar=True)] = None,
) -> None:
    """Measure the lane against a bare COPY, in one run on one set of servers.

    Without URLs it starts servers of its own in a temporary directory and removes them afterwards. On given servers it
    makes databases and keys of its own and removes those; nothing else there is touched.

    Example:  creditlane bench --only drain_many --only drain_hot --workers 2
    """
    plan = make_plan(
        commands=commands,
        accounts=accounts,
        workers=workers,
        only=only or (),
        backlog=backlog,
        growth=growth,
        grown_entries=grown_entries,
        latency_seconds=latency_seconds,
        rq_commands=rq_commands,
        copy_rows=copy_rows,
    )
    from .report import print_report
    from .run import run_benchmark

    print_report(run_benchmark(plan, database_url=database_url, redis_url=redis_url), as_json=as_json)
