"""What both embedded servers need from the operating system: locks, sockets, logs, waiting. Knows no server by name."""

import fcntl
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..schemas.errors import ConfigurationError

#: Longest socket path in bytes that every supported system takes (macOS: 104 with the closing NUL, Linux: 108).
MAX_SOCKET_PATH_BYTES = 100
#: Paths of these characters mean themselves in a URL, in postgresql.conf and in libpq's comma-separated host list.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")
#: Pause between two checks of a condition, in seconds.
POLL_SECONDS = 0.005
#: How long one process waits for another that starts or stops the same server, in seconds.
LOCK_DEADLINE_SECONDS = 120.0
#: How much of a server's log goes into an error message, in lines.
LOG_TAIL_LINES = 12


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Check the condition until it holds or the deadline passes; return whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def try_lock(path: Path) -> int | None:
    """Take the lock file and return its descriptor, or None while another process holds it.

    A child that inherits the descriptor holds the lock too, for as long as it lives.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        is_taken = is_free(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if is_taken:
        return descriptor
    os.close(descriptor)
    return None


def is_free(descriptor: int) -> bool:
    """Take the lock of an open file, for as long as it stays open; False while another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def usable(data_dir: Path) -> Iterator[None]:
    """Say in one line what to do when the data directory is not for this user."""
    try:
        yield
    except PermissionError as error:
        raise ConfigurationError(f"cannot use {data_dir}: {error}; run as its owner, or elsewhere") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file; it is freed by the system even when this process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_DEADLINE_SECONDS
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise ConfigurationError(f"another process does not let go of {path}; stop it first")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def is_running(pid: int, argument: str) -> bool:
    """Return whether the process lives and was started with this argument: a recycled pid is not taken for it."""
    return f" {argument} " in f" {_command_line(pid)} "


def _command_line(pid: int) -> str:
    """Return a process's arguments joined by spaces; empty for one that is gone, also for an unreaped zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip())
        except (FileNotFoundError, ProcessLookupError):
            return ""
    listed = subprocess.run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return os.fsdecode(listed.stdout.strip())


def send_signal(pid: int, request: signal.Signals) -> None:
    """Signal a process that may have ended a moment ago, which is what the signal is for."""
    with suppress(ProcessLookupError):
        os.kill(pid, request)


def socket_directory(data_dir: Path, socket_name: str, owner: int) -> Path:
    """Return a directory in which only ``owner`` can reach the socket: the data directory if its path will do.

    Too long a path is cut silently by some servers and refused by others; a comma or a space breaks URLs. Then it is a
    private directory under the runtime or temporary one, named after the data directory so that no two stacks share it.
    """
    if _fits(data_dir / socket_name):
        return data_dir
    status = data_dir.stat()
    identity = os.fsencode(f"{data_dir}:{status.st_dev}:{status.st_ino}")
    name = hashlib.sha256(identity).hexdigest()[:12]
    for root in _runtime_roots(owner):
        candidate = root / f"creditlane-{owner}-{name}"
        if _fits(candidate / socket_name) and root.is_dir():
            return _private_directory(candidate, owner)
    raise ConfigurationError(f"no directory's path is short enough for a socket; shorten TMPDIR or {data_dir}")


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(str(path)) is not None


def _runtime_roots(owner: int) -> Iterator[Path]:
    if (runtime := os.environ.get("XDG_RUNTIME_DIR")) and owner == os.geteuid():
        yield Path(runtime)
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")  # noqa: S108  the directory made in it is private, and checked


def _private_directory(path: Path, owner: int) -> Path:
    """Make the directory, or make sure that the one there is ours alone: anyone may create names under /tmp."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = path.lstat()
        if path.is_symlink() or not path.is_dir() or status.st_uid != owner or status.st_mode & 0o077:
            raise ConfigurationError(f"{path} is not a private directory of user {owner}; remove it") from None
    else:
        os.chown(path, owner, -1)
    return path


def remove_socket_directory(path: Path, data_dir: Path) -> None:
    """Remove a directory that was made for a socket alone; the data directory stays."""
    if path != data_dir and path.is_dir() and not any(path.iterdir()):
        path.rmdir()


@contextmanager
def fresh_log(path: Path) -> Iterator[int]:
    """Open a new log and keep the one before it, so that logs cannot fill the disk over many starts."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def log_tail(path: Path) -> str:
    """Return the last lines of a log for an error message."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join([f"The end of {path}:", *lines[-LOG_TAIL_LINES:]])
