"""`creditlane up` runs the whole stack, lets others find it, and leaves no process behind, however it ends."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from creditlane.local.processes import wait_until

if TYPE_CHECKING:
    from conftest import StackDirectory

StartUp = Callable[[], "subprocess.Popen[str]"]
ReadLines = Callable[["subprocess.Popen[str]", str], list[str]]
WorkersOf = Callable[[int], list[int]]
AreGone = Callable[[list[int]], bool]

USE_IT = """
from creditlane import Client
with Client.from_env() as credits:
    account = credits.open_account(customer_id="ann", initial_balance=10, idempotency_key="open ann")
    print(credits.debit(account.id, 3, reference="r", idempotency_key="once").balance)
"""

#: Ctrl-C goes to the processes of the session whose controlling terminal it is.
IN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from creditlane.cli.main import main
main()
"""

#: What is connected, and as whom; but for who asks.
SESSIONS = """
select distinct split_part(application_name, ' ', 1), usename::text from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


def settings_of(stack_directory: "StackDirectory") -> dict[str, str]:
    settings: dict[str, str] = json.loads(stack_directory.run("env", "--json").stdout)["settings"]
    return settings


def use(stack_directory: "StackDirectory") -> str:
    """Open an account and debit it as another process does that knows only what `env` prints."""
    lines = stack_directory.run("env").stdout.split()
    command = ["/usr/bin/env", *lines, sys.executable, "-P", "-c", USE_IT]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_stack_works_and_is_gone_after_a_stop(
    stack_directory: "StackDirectory", start_up: StartUp, workers_of: WorkersOf, are_gone: AreGone
) -> None:
    up = start_up()
    workers = workers_of(up.pid)

    assert use(stack_directory) == "7\n"
    up.send_signal(signal.SIGTERM)
    output, _ = up.communicate(timeout=60)

    assert up.returncode == 0
    stopped = [line for line in output.splitlines() if "stopped" in line and not line.startswith("{")]
    assert stopped == [
        "The jobs have stopped",
        "The workers have stopped",
        "Redis has stopped",
        "Postgres has stopped",
        "All of it has stopped",
    ]
    assert output.count('"event": "worker stopped"') == 2
    assert output.count('"event": "jobs process stopped"') == 2
    assert are_gone(workers)
    assert stack_directory.servers() == [None, None]
    assert not (stack_directory.data_dir / "stack.json").exists()
    assert stack_directory.run("env").returncode == 1


def test_the_data_survives_a_stop_also_where_the_shell_still_has_its_settings(
    stack_directory: "StackDirectory", start_up: StartUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_up()
    assert use(stack_directory) == "7\n"
    for line in stack_directory.run("env").stdout.splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    first.terminate()
    first.communicate(timeout=60)

    start_up()

    assert use(stack_directory) == "7\n"
    assert None not in stack_directory.servers()


def test_a_server_of_the_environment_that_is_away_is_reported_as_such(
    stack_directory: "StackDirectory", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "CREDITLANE_DATABASE_URL", f"postgresql://creditlane@:5432/creditlane?host={stack_directory.directory}"
    )

    result = stack_directory.run("up")

    assert result.returncode == 1
    assert "Postgres cannot be reached" in result.stderr
    assert "unset CREDITLANE_DATABASE_URL" in result.stderr
    assert stack_directory.servers() == [None, None]


def test_its_workers_end_when_it_is_killed_and_the_next_one_takes_the_servers_over(
    stack_directory: "StackDirectory", start_up: StartUp, workers_of: WorkersOf, are_gone: AreGone
) -> None:
    killed = start_up()
    workers, servers = workers_of(killed.pid), stack_directory.servers()
    assert use(stack_directory) == "7\n"

    killed.kill()
    killed.wait()

    assert are_gone(workers)
    assert stack_directory.run("env").returncode == 1
    assert stack_directory.servers() == servers
    next_one = start_up()
    assert stack_directory.servers() == servers
    assert use(stack_directory) == "7\n"
    next_one.terminate()
    next_one.communicate(timeout=60)
    assert stack_directory.servers() == [None, None]


def test_whatever_of_it_is_killed_comes_back(
    stack_directory: "StackDirectory", start_up: StartUp, workers_of: WorkersOf, read_lines: ReadLines
) -> None:
    up = start_up()
    worker, redis_id = workers_of(up.pid)[0], stack_directory.servers()[1]
    assert redis_id is not None

    os.kill(worker, signal.SIGKILL)
    read_lines(up, "ended with -9; starts again")
    os.kill(redis_id, signal.SIGKILL)
    read_lines(up, "Redis is gone; it starts again")

    assert len(workers_of(up.pid)) == 2
    assert worker not in workers_of(up.pid)
    assert use(stack_directory) == "7\n"


def test_each_part_connects_as_its_own_role(
    stack_directory: "StackDirectory", start_up: StartUp, workers_of: WorkersOf
) -> None:
    """Given a stack of one's own, then no process of it owns the ledger, others get the client's URL, and
    operators' commands have the owner's."""
    up = start_up()
    workers_of(up.pid)
    settings = settings_of(stack_directory)
    assert use(stack_directory) == "7\n"

    superuser = settings["CREDITLANE_DATABASE_URL"].replace("creditlane_client@", "postgres@")
    with psycopg.connect(superuser, autocommit=True) as connection:
        expected = {(f"creditlane-{part}", f"creditlane_{part}") for part in ("worker", "jobs", "api")}
        assert wait_until(lambda: expected <= set(connection.execute(SESSIONS).fetchall()), seconds=60)
        assert {role for _, role in connection.execute(SESSIONS)} <= {role for _, role in expected}
        owners = "select distinct tableowner::text from pg_tables where schemaname = 'public'"
        assert connection.execute(owners).fetchall() == [("creditlane_owner",)]

    # And in Redis its own user, while others have what the system user has.
    with redis.Redis.from_url(settings["CREDITLANE_REDIS_URL"], protocol=2) as client:

        def users() -> set[str]:
            # The API connects when it is asked for something.
            try:
                urllib.request.urlopen(f"{settings['CREDITLANE_API_URL']}/readyz", timeout=60).close()  # noqa: S310
            except urllib.error.HTTPError as error:
                error.close()
            return {one["user"] for one in client.client_list()} - {"default"}

        assert "@" not in settings["CREDITLANE_REDIS_URL"]
        assert wait_until(
            lambda: users() == {f"creditlane_{user}" for user in ("worker", "jobs", "producer")}, seconds=60
        )
    assert settings["CREDITLANE_OPERATOR_DATABASE_URL"] == superuser.replace("postgres@", "creditlane_owner@")


def test_servers_that_are_given_are_used_and_left_alone(
    stack_directory: "StackDirectory",
    start_up: StartUp,
    empty_database_url: str,
    redis_url: str,
    redis_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CREDITLANE_DATABASE_URL", empty_database_url)
    monkeypatch.setenv("CREDITLANE_REDIS_URL", redis_url)
    monkeypatch.setenv("CREDITLANE_REDIS_PREFIX", redis_prefix)

    up = start_up()

    assert stack_directory.servers() == [None, None]
    assert settings_of(stack_directory)["CREDITLANE_REDIS_URL"] == redis_url
    assert use(stack_directory) == "7\n"
    up.terminate()
    up.communicate(timeout=60)
    assert stack_directory.run("verify").stdout.splitlines()[-1] == "0 discrepancies"


def test_ctrl_c_in_a_terminal_stops_all_of_it(
    stack_directory: "StackDirectory", workers_of: WorkersOf, are_gone: AreGone
) -> None:
    """Given a terminal, when Ctrl-C is pressed three times, then one orderly stop is all that happens."""
    terminal, inner = pty.openpty()
    up = subprocess.Popen(
        [sys.executable, "-P", "-c", IN_TERMINAL, "up"],
        cwd=stack_directory.directory,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    output = read_terminal(terminal, until="partitions changed")
    workers = workers_of(up.pid)

    os.write(terminal, b"\x03\x03\x03")
    output += read_terminal(terminal)
    os.close(terminal)

    assert up.wait(60) == 0
    assert re.search(r"worker [12] \| ", output)
    assert "Traceback" not in output
    assert "All of it has stopped" in output
    assert stack_directory.servers() == [None, None]
    assert are_gone(workers)


def read_terminal(terminal: int, until: str | None = None, seconds: float = 60) -> str:
    """Return what the terminal shows, up to this text or the end."""
    output, deadline = "", time.monotonic() + seconds
    while until is None or until not in output:
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], output
        try:
            data = os.read(terminal, 65_536)
        except OSError:  # Linux says so when the last process behind the terminal has gone
            data = b""
        if not data:
            assert until is None, output
            return output
        output += data.decode(errors="replace")
    return output


@pytest.mark.parametrize("moment", ["Postgres runs", "The ledger is at"])
def test_an_interrupted_start_leaves_nothing_behind(
    moment: str, stack_directory: "StackDirectory", read_lines: ReadLines
) -> None:
    up = stack_directory.start("up")
    read_lines(up, moment)

    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=60)

    assert up.returncode == 0
    assert "Traceback" not in output
    assert stack_directory.servers() == [None, None]


def test_a_directory_that_cannot_be_used_is_one_line(stack_directory: "StackDirectory") -> None:
    Path(stack_directory.directory / "file").write_text("")

    result = stack_directory.run("up", "--data-dir", stack_directory.directory / "file")

    assert result.returncode == 1
    assert result.stderr.startswith("creditlane: ")
    assert result.stderr.count("\n") == 1
