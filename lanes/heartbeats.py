"""The heartbeat of a worker on its own machine: a file that it holds locked and writes to, for who checks its health.

No server is asked and hardly anything imported, so that it may be asked every few seconds. What the lease keeper
shows in Postgres is for the other workers.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

#: A worker lives while its heartbeat is younger than two leases and this, in seconds.
SLACK_SECONDS = 3.0
#: Bytes of a heartbeat: its moment by the clock that all processes of a machine share, and the lease, both in seconds.
RECORD_BYTES = 40

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Sign(NamedTuple):
    """What a worker process of this machine shows."""

    process_id: int
    #: How long ago its heart beat last.
    age_seconds: float
    is_alive: bool


class Heartbeat:
    """The heartbeat of this process. Used by one thread at a time."""

    def __init__(self, directory: Path, prefix: str, lease_seconds: float) -> None:
        self._directory = directory
        self._name = f"heartbeat-{os.getpid()}-{os.urandom(4).hex()}.{prefix}"
        self._lease_seconds = lease_seconds
        self._descriptor: int | None = None

    def beat(self) -> None:
        """Write the heartbeat.

        Raises:
            OSError: it cannot be written there.
        """
        if self._descriptor is None or os.fstat(self._descriptor).st_nlink == 0:
            self.end()
            self._begin()
        if self._descriptor is not None:
            record = f"{time.monotonic():.3f} {self._lease_seconds:.3f}".ljust(RECORD_BYTES)
            os.pwrite(self._descriptor, record.encode(), 0)

    def end(self) -> None:
        """Leave no heartbeat behind."""
        if self._descriptor is not None:
            with suppress(OSError):
                (self._directory / self._name).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            # The last one to leave the folder that nobody chose takes it along.
            if self._directory == heartbeat_directory(None):
                with suppress(OSError):
                    self._directory.rmdir()

    def _begin(self) -> None:
        try:
            descriptor = self._made()
        except FileNotFoundError:
            # Another worker has just left and taken the folder along.
            descriptor = self._made()
        # Waits for who is just finding out whether somebody holds it.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor

    def _made(self) -> int:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        check_private(self._directory)
        for left in _heartbeats(self._directory):
            _remove_if_left(left)
        return os.open(self._directory / self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)


def heartbeat_directory(configured: str | None) -> Path:
    """Return where the workers of this user leave their heartbeats: as configured, or below the temporary directory."""
    if configured:
        return Path(configured)
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"creditlane-{os.geteuid()}"  # noqa: S108  checked to be private


def check_private(directory: Path) -> None:
    """Make sure that nobody but this user can have written what is in the directory, if others may write there, too.

    Raises:
        OSError: somebody else can have.
    """
    status, above = directory.lstat(), directory.parent.stat()
    is_shared = bool(above.st_mode & (stat.S_ISVTX | stat.S_IWOTH))
    if not stat.S_ISDIR(status.st_mode) or (is_shared and (status.st_uid != os.geteuid() or status.st_mode & 0o022)):
        raise PermissionError(
            f"{directory} is not a folder of this user alone; remove it, or set CREDITLANE_RUNTIME_DIR"
        )


def read_signs(directory: Path, prefix: str) -> list[Sign]:
    """Return what the worker processes of this user and this prefix of keys show, without those that have ended.

    Raises:
        OSError: the directory cannot be read, or is not this user's.
    """
    if not directory.exists():
        return []
    check_private(directory)
    own = [path for path in _heartbeats(directory) if path.name.partition(".")[2] == prefix]
    return [sign for sign in map(_read, own) if sign is not None]


def _heartbeats(directory: Path) -> Iterator[Path]:
    return directory.glob("heartbeat-*-*.*")


def _read(path: Path) -> Sign | None:
    """Return the sign; None where whoever made it is no more."""
    with _opened(path) as descriptor:
        if descriptor is None or _is_left(descriptor):
            return None
        now = time.monotonic()
        # Empty only for the moment between its making and the first beat.
        record = os.pread(descriptor, RECORD_BYTES, 0) or f"{now} 0".encode()
        moment, lease_seconds = map(float, record.split())
        return Sign(int(path.name.split("-")[1]), now - moment, now - moment <= 2 * lease_seconds + SLACK_SECONDS)


def _remove_if_left(path: Path) -> None:
    """Remove the heartbeat of a process that was killed."""
    with _opened(path) as descriptor:
        if descriptor is not None and _is_left(descriptor):
            path.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Give a descriptor of a heartbeat of this user; None where it is none, or gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPEN)
    except OSError:
        yield None
        return
    try:
        yield descriptor if os.fstat(descriptor).st_uid == os.geteuid() else None
    finally:
        os.close(descriptor)


def _is_left(descriptor: int) -> bool:
    """Return whether nobody holds the heartbeat. The system lets go of it when its process ends, however that ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
