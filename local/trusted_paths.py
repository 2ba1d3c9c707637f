"""Folders whose files are believed: those that nobody but their user, who runs this command, can have written.

Commands find a stack in a folder above, and shells run what they print of it; on a shared machine anybody may have put
a folder of that name there.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..schemas.errors import ConfigurationError

#: What lets others than the owner write.
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UntrustedPath(ConfigurationError):
    """A folder or file could have been written by somebody else."""


@contextmanager
def trusted_directory(path: Path) -> Iterator[int]:
    """Give a descriptor of the folder, for `open_trusted`: whatever becomes of its name meanwhile, it stays the same.

    Raises:
        UntrustedPath: it is not of this user alone.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise UntrustedPath(
            f"{path} is a link or no folder, and is not followed; name the folder: --data-dir"
        ) from None
    try:
        _check(os.fstat(descriptor), path)
        yield descriptor
    finally:
        os.close(descriptor)


def open_trusted(directory: int, path: Path, flags: int) -> int:
    """Return a descriptor of the file of this name in the folder.

    Raises:
        UntrustedPath: it is not of this user alone, or no file.
        OSError: it cannot be opened.
    """
    if stat.S_ISLNK(os.stat(path.name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise UntrustedPath(f"{path} is a link, and is not followed; remove it")
    # Not to wait for the other end of a pipe.
    descriptor = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        _check_file(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedPath(f"{path} is no file; remove it")
    _check(status, path)


def _check(status: os.stat_result, path: Path) -> None:
    user = os.geteuid()
    if status.st_uid != user:
        owner = _name_of(status.st_uid)
        raise UntrustedPath(
            f"{path} belongs to {owner}, and you are {_name_of(user)}: what is in it is not trusted. Run the command "
            f"as its owner, work where no such folder is above, or name another with --data-dir"
        )
    if status.st_mode & WRITABLE_BY_OTHERS:
        raise UntrustedPath(
            f"{path} can be written by others than you: what is in it is not trusted. If nobody did: chmod go-w {path}"
        )


def _name_of(user: int) -> str:
    try:
        return f"{pwd.getpwuid(user).pw_name} (user {user})"
    except KeyError:
        return f"user {user}"
