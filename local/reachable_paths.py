"""Folders that the user of a server can reach, when root starts it and its folder is private.

No permission of a folder that is there is ever changed: Postgres's data, and if need be its programs, go to where
everybody may pass through and only root makes names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ..schemas.errors import ConfigurationError
from .server_user import ServerUser
from .trusted_paths import trusted_directory

#: Root's own, by the file-system hierarchy for what programs keep.
SHARED_DIRECTORY = Path("/var/lib/creditlane")

EXISTING_DATA = (
    "Postgres runs as user {uid}, who cannot pass through {barrier} to its data. Move them and leave a link: "
    "mkdir -pm 711 {shared} && mv {data} {shared}/NAME && ln -s {shared}/NAME {data}; or let everybody pass through "
    "that folder yourself: chmod o+x {barrier}"
)
NO_PATH = (
    "Postgres runs as user {uid}, who cannot pass through {barrier}, and {shared} cannot be used instead ({reason}): "
    "take a folder that everybody may pass through, --data-dir, or run as a normal user"
)
MOVED = "Postgres's data are in {folder}: its user cannot pass through {barrier}, which stays private"


def barrier_to(path: Path, user: ServerUser) -> Path | None:
    """Return the first folder on the way to the path through which the user cannot pass; None: there is none."""
    for parent in reversed(path.parents):
        if not _may(parent.stat(), user, stat.S_IXUSR):
            return parent
    return None


def path_for_data(data_dir: Path, user: ServerUser) -> tuple[Path, str | None]:
    """Return where the user can have its data: the path itself, or what is now a link there leads to; and a remark.

    Raises:
        ConfigurationError: the user reaches neither; the message says what to do.
    """
    barrier = barrier_to(data_dir, user) if user.switched else None
    if barrier is None:
        return data_dir, None
    if data_dir.exists():
        raise ConfigurationError(
            EXISTING_DATA.format(uid=user.uid, barrier=barrier, shared=SHARED_DIRECTORY, data=data_dir)
        )
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{data_dir.name}-", dir=_shared_directory(user)))
        folder.chmod(0o711)
        target = folder / data_dir.name
        data_dir.symlink_to(target)
    except OSError as error:
        reason = error.strerror
        raise ConfigurationError(
            NO_PATH.format(uid=user.uid, barrier=barrier, shared=SHARED_DIRECTORY, reason=reason)
        ) from error
    return target, MOVED.format(folder=target, barrier=barrier)


def programs_for(user: ServerUser, packages: list[Path], program: Path) -> Path:
    """Return a program that the user can run, of these packages which belong together: itself, or one of a copy.

    Raises:
        ConfigurationError: the user can run neither.
    """
    barrier = barrier_to(program, user)
    if barrier is None and _may(program.stat(), user, stat.S_IXUSR):
        return program
    status = program.stat()
    identity = f"{program}:{status.st_size}:{status.st_mtime_ns}".encode()
    try:
        folder = _shared_directory(user) / f"programs-{hashlib.sha256(identity).hexdigest()[:12]}"
        if not folder.exists():
            _copy(packages, folder)
    except OSError as error:
        shared, reason = SHARED_DIRECTORY, error.strerror
        raise ConfigurationError(
            NO_PATH.format(uid=user.uid, barrier=barrier or program, shared=shared, reason=reason)
        ) from error
    return folder / program.relative_to(packages[0].parent)


def _may(status: os.stat_result, user: ServerUser, permission: int) -> bool:
    if status.st_uid == user.uid:
        return bool(status.st_mode & permission)
    if status.st_gid == user.gid:
        return bool(status.st_mode & permission >> 3)
    return bool(status.st_mode & permission >> 6)


def _shared_directory(user: ServerUser) -> Path:
    """Return root's own directory, made if need be; nobody else may have made it, or what is in it."""
    with suppress(FileExistsError):
        SHARED_DIRECTORY.mkdir(mode=0o711)
        SHARED_DIRECTORY.chmod(0o711)
    with trusted_directory(SHARED_DIRECTORY):
        pass
    if (barrier := barrier_to(SHARED_DIRECTORY / "data", user)) is not None:
        raise PermissionError(0, f"nor can it pass through {barrier}")
    return SHARED_DIRECTORY


def _copy(packages: list[Path], folder: Path) -> None:
    """Copy the packages whole or not at all; others may be doing the same."""
    draft = Path(tempfile.mkdtemp(prefix="programs-", suffix=".new", dir=folder.parent))
    try:
        for package in packages:
            if package.exists():
                shutil.copytree(package, draft / package.name, symlinks=True)
        for path in [draft, *draft.rglob("*")]:
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH)
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
        with suppress(FileExistsError):
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
