"""The `creditlane` command: names what producers, workers and the local stack bring along."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Annotated

import typer

from .lazy_commands import MARKUP_MODE, Deferred, DeferredGroup

#: Every command but `bench`, by its name.
COMMANDS = {
    "up": Deferred(
        "..local.up",
        "up_command",
        "Run the whole local stack in the foreground: Postgres, Redis, workers, jobs, HTTP API. Ctrl-C stops it all.",
    ),
    "env": Deferred(
        "..local.env",
        "environment_command",
        "Print the settings of the running stack as lines for a shell. Ends with 1 when no stack runs.",
    ),
    "demo": Deferred(
        "..local.demo",
        "demo_command",
        "Run a usage file through the whole lane on the local stack, and prove the books.",
    ),
    "worker": Deferred(
        ".worker",
        "worker_app",
        "Apply commands until stopped: SIGTERM or Ctrl-C lets it finish its batch and give its partitions back.",
    ),
    "api": Deferred(
        ".api",
        "api_command",
        "Serve the HTTP API until stopped: SIGTERM or Ctrl-C lets it finish the requests under way.",
    ),
    "migrate": Deferred(
        ".migrate",
        "migrate_command",
        "Bring the database to the schema of this version. Safe to repeat, and to run from several hosts at once.",
    ),
    "redis-users": Deferred(
        ".redis_users",
        "redis_users_command",
        "Print the users of Redis for CREDITLANE_REDIS_PREFIX: producer, worker, jobs, operator.",
    ),
    "status": Deferred(
        ".status",
        "status_command",
        "Show the lanes: who applies them, how much waits on each, and how long the oldest command has waited.",
    ),
    "verify": Deferred(
        ".verify",
        "verify_command",
        "Prove the whole ledger: recompute every balance, number, reversal and state from the rows alone.",
    ),
    "export": Deferred(
        ".export",
        "export_command",
        "Write the entries of a period to files, in the order of time, with amounts exact to the last digit.",
    ),
    "stores": Deferred(".stores", "stores_app", "Make and list stores, each of which sees only what is its own."),
    "keys": Deferred(".keys", "keys_app", "Make, list and revoke the API keys of the stores."),
    "dead": Deferred(
        ".dead",
        "dead_app",
        "Look at the dead letters, commands that could not be decided, and put them back on their lanes.",
    ),
    "webhooks": Deferred(
        ".webhooks",
        "webhooks_app",
        "Say where a store wants to hear of what happens in it, and see what was sent.",
    ),
    "jobs": Deferred(
        ".jobs",
        "jobs_app",
        "Deliver webhooks and do scheduled work, on RQ; list what is scheduled, and run it now.",
    ),
}
BENCH = Deferred(
    "..benchmarks.command", "bench_command", "Measure the lane against a bare COPY, in one run on one set of servers."
)


def _has_benchmarks() -> bool:
    return importlib.util.find_spec(f"{__package__.rpartition('.')[0]}.benchmarks") is not None


class CreditlaneGroup(DeferredGroup):
    """Every command; with `bench`, where the benchmarks are installed."""

    deferred: Mapping[str, Deferred] = COMMANDS | ({"bench": BENCH} if _has_benchmarks() else {})


app: typer.Typer = typer.Typer(
    name="creditlane",
    cls=CreditlaneGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=MARKUP_MODE,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"creditlane {__version__}")
        raise typer.Exit


@app.callback()
def creditlane(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Customer credits: commands on Redis lanes, applied once and in order to Postgres.

    Start with:  creditlane demo
    """
