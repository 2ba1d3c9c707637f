"""The `creditlane` command: mounts what producers, workers and the local stack bring along."""

from __future__ import annotations

import importlib.util
import sys
from typing import Annotated

import typer

from ..producer.cli.api_command import api_command
from ..producer.cli.dead_command import dead_app
from ..producer.cli.keys_command import keys_app
from ..producer.cli.output import print_line
from ..producer.cli.redis_users_command import redis_users_command
from ..producer.cli.status_command import status_command
from ..producer.cli.stores_command import stores_app
from ..producer.cli.verify_command import verify_command
from ..producer.cli.webhooks_command import webhooks_app
from .demo_command import demo_command
from .environment_command import environment_command
from .export_command import export_command
from .jobs_commands import jobs_app
from .up_command import up_command
from .worker_commands import migrate_command, worker_command

app = typer.Typer(
    name="creditlane",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Boxes for a person, plain lines for a pipe.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print_line(f"creditlane {__version__}")
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


app.command("up")(up_command)
app.command("env")(environment_command)
app.command("demo")(demo_command)
app.command("worker")(worker_command)
app.command("api")(api_command)
app.command("migrate")(migrate_command)
app.command("redis-users")(redis_users_command)
app.command("status")(status_command)
app.command("verify")(verify_command)
app.command("export")(export_command)
app.add_typer(stores_app)
app.add_typer(keys_app)
app.add_typer(dead_app)
app.add_typer(webhooks_app)
app.add_typer(jobs_app)


def _mount_benchmarks() -> None:
    """Add `bench`, where the benchmarks are installed."""
    package = f"{__package__.rpartition('.')[0]}.benchmarks.command"
    if importlib.util.find_spec(package) is not None:
        from ..benchmarks.command import bench_command

        app.command("bench")(bench_command)


_mount_benchmarks()
