"""`creditlane env`: how other processes reach the running stack."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..cli.output import print_json, print_line
from ..schemas.errors import ConfigurationError
from .stack_record import find_running

#: Values that mean themselves to a shell, quoted or not, also where no file of such a name is: after NAME=. Not ~,
#: which is a home there.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./?^-]*")


def environment_command(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="The stack's data; left out, the nearest .creditlane upwards.")
    ] = None,
    export: Annotated[bool, typer.Option("--export", help="Write `export` before each line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the settings of the running stack as lines for a shell. Ends with 1 when no stack runs.

    A shell runs what is printed, so it comes from a folder of your own only, which nobody else can write.

    Example:  eval "$(creditlane env --export)"

    Example:  set -a; eval "$(creditlane env)"; set +a

    Example:  env $(creditlane env) python app.py
    """
    record = find_running(data_dir)
    if record is None:
        where = data_dir or "a .creditlane here or in a directory above"
        raise ConfigurationError(f"no stack runs in {where}; start one with `creditlane up`")
    if as_json:
        print_json(record)
        return
    for name, value in record.settings.items():
        print_line(f"{'export ' if export else ''}{name}={_quoted(value)}")


def _quoted(value: str) -> str:
    # Quotes only where they are needed: `env $(creditlane env) …` would take them for part of the value.
    return value if _PLAIN.fullmatch(value) else shlex.quote(value)
