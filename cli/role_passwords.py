"""Where the passwords of the roles come from: the environment or a file, never the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..schemas.errors import ConfigurationError
from ..schemas.roles import PARTS, Part


def variable_of(part: Part) -> str:
    """Return the name of the environment variable that may hold the password of a role."""
    return f"CREDITLANE_{part.upper()}_PASSWORD"


def read_passwords(environment: Mapping[str, str], file: Path | None) -> dict[Part, str]:
    """Return the passwords that are given: those of the file before those of the environment.

    None is fine: of a role that identifies itself otherwise, or has its password already.

    Raises:
        ConfigurationError: the file cannot be read or understood, or a password is empty; no password is repeated.
    """
    variables = {variable_of(part): part for part in PARTS}
    found = {part: environment[name] for name, part in variables.items() if name in environment}
    if file is not None:
        found |= _of_file(file)
    empty = [variable_of(part) for part, password in found.items() if not password]
    if empty:
        raise ConfigurationError(f"The password {empty[0]} is empty; leave it out, or give one.")
    return found


def _of_file(file: Path) -> dict[Part, str]:
    """Return what stands in lines like `worker=…`; what is empty or begins with # is passed over."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"The passwords cannot be read from {file}: {reason}") from None
    parts: dict[str, Part] = {part: part for part in PARTS}
    found: dict[Part, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, password = line.partition("=")
        part = parts.get(name.strip())
        if part is None or not equals:
            raise ConfigurationError(f"{file}, line {number}: must be one of {', '.join(PARTS)}, then = and a password")
        found[part] = password
    return found
