"""PgBouncer as it is shipped, in transaction mode, between Postgres and every part: nothing relies on a session."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg.conninfo import conninfo_to_dict

from creditlane import Client, Debit, Settings
from creditlane.lanes.postgres.migrate import migrate
from creditlane.local.processes import wait_until
from creditlane.local.server_user import server_user
from creditlane.producer.api.app import create_app
from creditlane.producer.operations.api_keys import create_key
from creditlane.schemas.roles import PARTS, Part
from creditlane.schemas.schema_revision import SCHEMA_REVISION

from ..roles import settings_of, url_of

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
ENTRY = [sys.executable, "-P", "-c", "from creditlane.cli.main import main; main()"]
#: Far more than anything here takes, since the machine may be busy, in seconds.
DEADLINE_SECONDS = 60.0
#: Part of the socket's name only: it opens no TCP port.
PORT = 6432
#: Fewer sessions with Postgres than there are with it, so that they are shared.
CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr =
listen_port = {own_port}
unix_socket_dir = {directory}
auth_type = trust
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = 4
logfile = {directory}/log
"""

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed"),
    pytest.mark.skipif("CREDITLANE_TEST_DATABASE_URL" in os.environ, reason="it is put before the embedded Postgres"),
]


@pytest.fixture
def pooled(settings: Settings, workspace: Path) -> Iterator[Settings]:
    """Settings that reach the test's database through a PgBouncer."""
    database_url = settings.require_database_url()
    target = conninfo_to_dict(database_url)
    directory = workspace / f"bouncer-{uuid.uuid4().hex[:8]}"
    directory.mkdir(mode=0o700)
    users = {conninfo_to_dict(url_of(part, database_url))["user"] for part in PARTS} | {target["user"]}
    (directory / "users").write_text("".join(f'"{user}" ""\n' for user in users))
    (directory / "ini").write_text(
        CONFIGURATION.format(host=target["host"], port=target["port"], own_port=PORT, directory=directory)
    )
    # Only its own user gets to the socket of Postgres, and root is not let run this.
    user = server_user(Path(str(target["host"])))
    for path in (directory, directory / "users", directory / "ini"):
        user.own(path)
    url = f"postgresql://{target['user']}@/{target['dbname']}?host={directory}&port={PORT}"
    bouncer = subprocess.Popen(
        [str(PROGRAM), "-q", str(directory / "ini")], stderr=subprocess.DEVNULL, **user.child_identity()
    )
    try:
        assert wait_until(lambda: bouncer.poll() is not None or answers(url), seconds=DEADLINE_SECONDS)
        assert bouncer.poll() is None, (directory / "log").read_text()
        yield settings.model_copy(update={"database_url": url})
    finally:
        bouncer.kill()
        bouncer.wait()
        shutil.rmtree(directory)


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_every_part_works_through_a_pooler_in_transaction_mode(
    pooled: Settings, database_url: str, environment_of: Callable[[Settings], dict[str, str]], tmp_path: Path
) -> None:
    def environment(part: Part) -> dict[str, str]:
        return os.environ | environment_of(settings_of(part, pooled))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*ENTRY, *arguments],
            env=environment("owner"),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    # Given a ledger that was migrated through it, and one of each process behind it
    assert migrate(pooled.require_database_url()) == SCHEMA_REVISION
    commands: dict[str, tuple[Part, list[str]]] = {
        "worker": ("worker", ["worker"]),
        "jobs": ("jobs", ["jobs", "work", "--queue", "jobs"]),
        "deliveries": ("jobs", ["jobs", "work", "--queue", "deliveries"]),
    }
    with ExitStack() as stack:
        processes = []
        for name, (part, arguments) in commands.items():
            log = stack.enter_context((tmp_path / name).open("wb"))
            process = subprocess.Popen([*ENTRY, *arguments], env=environment(part), stderr=log)
            stack.callback(process.kill)
            processes.append(process)
        # When a client and the API work with it
        with Client(pooled.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})) as client:
            account = client.open_account(customer_id="ann", initial_balance=100)
            assert client.debit(account.id, 5, reference="r", idempotency_key="k").balance == 95
            tickets = client.enqueue_many(
                Debit(account_id=account.id, amount=1, reference="b", idempotency_key=f"b{number}")
                for number in range(50)
            )
            assert {result.status for result in client.wait_many(tickets)} == {"applied"}
            assert client.balance(account.id) == 45
            assert len(list(client.entries(account.id))) == 52
        with psycopg.connect(database_url, autocommit=True) as connection:
            key = create_key(connection, "store_default", "test")
        with TestClient(create_app(settings_of("api", pooled)), headers={"x-api-key": key}) as api:
            assert api.get("/readyz").json() == {"status": "ready", "problems": {}, "warnings": {}}
            assert api.get(f"/v1/customer-credits/accounts/{account.id}/balance").json()["balance"] == "45"
        # And an operator's commands do
        status = json.loads(run("status", "--json"))
        assert (status["backlog"], [worker["alive"] for worker in status["workers"]]) == (0, [True])
        assert "0 discrepancies" in run("verify")
        run("jobs", "run", "statistics")
        # Then all of them end in order, and nothing was amiss on the way
        for process in processes:
            process.terminate()
        assert [process.wait(DEADLINE_SECONDS) for process in processes] == [0] * len(processes)
    lines = [json.loads(line) for name in commands for line in (tmp_path / name).read_text().splitlines()]
    assert [line for line in lines if line["level"] in {"warning", "error"}] == []
