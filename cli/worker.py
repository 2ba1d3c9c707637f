"""`creditlane worker` and `creditlane migrate`: what a deployment runs, with servers of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..schemas.postgres_urls import as_role
from ..schemas.roles import PARTS, Part, role_name
from ..schemas.settings import load_operator_settings, load_settings
from .output import announce, print_line
from .process_pool import WorkerPool, print_log_line
from .role_passwords import read_passwords, variable_of
from .stop_signals import StopSignals
from .worker_alive import tell_life

worker_app = typer.Typer(name="worker", invoke_without_command=True)


@worker_app.callback()
def worker_command(
    context: typer.Context,
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="Number of worker processes.")] = 1,
) -> None:
    """Apply commands until told to stop: SIGTERM or Ctrl-C lets it finish its batch and give its partitions back.

    Run as many as you like, on any number of hosts: they share the partitions. Needs CREDITLANE_REDIS_URL and
    CREDITLANE_DATABASE_URL.

    Example:  creditlane worker --processes 2
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    if processes == 1:
        from ..worker.process import run_worker

        run_worker(settings)
        return
    settings.require_database_url()
    settings.require_redis_url()
    with StopSignals() as signals:
        WorkerPool(processes, os.environ, print_log_line).run(signals)


@worker_app.command("alive")
def alive_command() -> None:
    """Tell whether the worker processes of this machine, user and CREDITLANE_REDIS_PREFIX show life, for health checks.

    Ends with 1 if there is none, or if one has shown no life for two leases. It asks no server: a worker that waits for
    one is alive. `creditlane status --check` tells whether every lane has a worker.

    Example:  creditlane worker alive
    """
    raise typer.Exit(tell_life())


#: Who connects with the URL of each role.
USED_BY: Mapping[Part, str] = {
    "owner": "creditlane migrate, keys, stores, dead, jobs list and run, export",
    "worker": "creditlane worker",
    "api": "creditlane api",
    "jobs": "creditlane jobs work",
    "client": "your programs; creditlane status, verify, webhooks",
}


def migrate_command(
    partitions: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Fixed for ever on an empty database; left out, 64.")
    ] = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Make the roles of the processes and grant them what they need.")
    ] = False,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="With --roles: lines like worker=PASSWORD.")
    ] = None,
) -> None:
    """Bring the database to the schema of this version. Safe to repeat, and to run from several places at once.

    With --roles, each kind of process has a role of its own from then on, of the least rights that it needs:
    creditlane_owner, _worker, _api, _jobs and _client, or as CREDITLANE_ROLE_PREFIX names them. Their passwords, where
    they have any, come from CREDITLANE_WORKER_PASSWORD and so on, or from --password-file. It takes a role with
    CREATEROLE that owns the database; without --roles, what is new is granted to roles that are there.

    Needs CREDITLANE_OPERATOR_DATABASE_URL or CREDITLANE_DATABASE_URL.

    Example:  creditlane migrate && creditlane worker

    Example:  creditlane migrate --roles --password-file roles.txt
    """
    from ..lanes.postgres.migrate import migrate
    from ..lanes.postgres.role_setup import RoleSetup
    from ..schemas.installation import is_ahead

    settings = load_operator_settings()
    url = settings.require_database_url()
    if password_file is not None and not roles:
        raise typer.BadParameter("goes with --roles", param_hint="--password-file")
    setup = None
    if roles:
        setup = RoleSetup(settings.role_prefix, read_passwords(os.environ, password_file), announce)
    revision = migrate(url, partitions=partitions or settings.partitions, roles=setup)
    ahead = ", made by a newer version; it stays as it is, and works with this one" if is_ahead(revision) else ""
    print_line(f"The database is at schema {revision}{ahead}")
    if setup is not None:
        _print_roles(url, setup.prefix, setup.passwords)


def _print_roles(url: str, prefix: str, passwords: Mapping[Part, str]) -> None:
    """Say what connects as which role from now on. No URL here has a password."""
    print_line("Each process takes the URL of its role, as CREDITLANE_DATABASE_URL, and its password, as PGPASSWORD:")
    for part in PARTS:
        print_line(f"  {as_role(url, role_name(part, prefix))}")
        print_line(f"      for {USED_BY[part]}")
    without = [variable_of(part) for part in PARTS if part not in passwords]
    if without:
        print_line(f"Passwords that were not set, and stay as they are: {', '.join(without)}")
