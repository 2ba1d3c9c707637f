"""`creditlane migrate`: brings the database to the schema of this version, and makes the roles of the processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..schemas.postgres_urls import as_role
from ..schemas.roles import PARTS, Part, role_name
from ..schemas.settings import load_operator_settings
from .output import announce, print_line
from .role_passwords import read_passwords, variable_of

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
    """Bring the database to the schema of this version. Safe to repeat, and to run from several hosts at once.

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
    from ..schemas.schema_revision import is_ahead

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
