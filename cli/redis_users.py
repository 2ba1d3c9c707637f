"""`creditlane redis-users`: the users of Redis, for its ACL file."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Annotated

import typer

from ..lanes.redis.users import REDIS_USERS, RedisUser, acl_lines, hashed
from ..schemas.errors import ConfigurationError
from ..schemas.settings import load_settings
from .output import print_line

#: Fewest characters of a password: whoever reaches Redis may try as many as it takes.
MIN_PASSWORD_CHARACTERS = 16
#: Bytes of a password that is made here.
PASSWORD_BYTES = 24
#: What lets others than the owner at a file.
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def redis_users_command(
    passwords_file: Annotated[
        Path | None,
        typer.Option(
            "--passwords-file",
            help="A file of NAME=password lines, as compose's .env. Those that it lacks are made and added.",
        ),
    ] = None,
    setuser: Annotated[
        bool, typer.Option("--setuser", help="Print ACL SETUSER commands for a server that runs, not an ACL file.")
    ] = False,
) -> None:
    """Print the users of Redis for CREDITLANE_REDIS_PREFIX: producer, worker, jobs, operator. Needs Redis 7 or Valkey.

    Their passwords are read from CREDITLANE_REDIS_PRODUCER_PASSWORD, ..._WORKER_..., ..._JOBS_..., ..._OPERATOR_..., or
    from the file; only hashes are printed. The user `default` stays as your server has it: switch it off.

    Example:  creditlane redis-users --passwords-file .env > users.acl

    Example:  creditlane redis-users --setuser --passwords-file .env | redis-cli
    """
    passwords = _passwords(passwords_file)
    lines = acl_lines(load_settings().redis_prefix, {user: hashed(passwords[user]) for user in REDIS_USERS})
    for line in lines:
        print_line(f"ACL SETUSER {line.removeprefix('user ')}" if setuser else line)


def variable_of(user: RedisUser) -> str:
    """Return the name of the variable with a user's password."""
    return f"CREDITLANE_REDIS_{user.upper()}_PASSWORD"


def _passwords(file: Path | None) -> dict[RedisUser, str]:
    found = _read(file) if file else {}
    given = {user: found.get(variable_of(user)) or os.environ.get(variable_of(user), "") for user in REDIS_USERS}
    missing = [user for user, password in given.items() if not password]
    if missing and file is None:
        raise ConfigurationError(
            f"{variable_of(missing[0])} is not set; give all of them, or --passwords-file, where they are made"
        )
    made = {user: secrets.token_hex(PASSWORD_BYTES) for user in missing}
    if made and file is not None:
        _add(file, made)
    for user, password in (given | made).items():
        _check(user, password)
    return given | made


def _check(user: RedisUser, password: str) -> None:
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise ConfigurationError(f"{variable_of(user)} has fewer than {MIN_PASSWORD_CHARACTERS} characters")


def _read(file: Path) -> dict[str, str]:
    """Return what the lines of a file say."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{file} cannot be read") from None
    pairs = [line.partition("=") for line in lines if not line.lstrip().startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _add(file: Path, made: dict[RedisUser, str]) -> None:
    """Write passwords at the end of the file, which nobody else may read.

    Raises:
        ConfigurationError: somebody else may, or it cannot be written; nothing was.
    """
    lines = "".join(f"{variable_of(user)}={password}\n" for user, password in made.items())
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "r+") as opened:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & READABLE_BY_OTHERS:
            raise ConfigurationError(
                f"{file} would get passwords, and is no file that only you may read; make it one: chmod 600, and chown"
            )
        begun = opened.read()
        opened.write(lines if not begun or begun.endswith("\n") else f"\n{lines}")
