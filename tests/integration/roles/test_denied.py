"""What a role may not do is reported as that: at the start, while it works, and to operators."""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from creditlane import Client, OpenAccount
from creditlane.cli.app import app
from creditlane.cli.role_passwords import variable_of
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedPostgres
from creditlane.producer.api.app import create_app
from creditlane.producer.operations.api_keys import create_key
from creditlane.producer.operations.lane_status import read_lanes
from creditlane.schemas.errors import Unavailable
from creditlane.schemas.roles import PARTS, DeniedByRole, Part
from creditlane.schemas.settings import Settings
from creditlane.worker.jobs.process import JobsProcess
from creditlane.worker.process import Worker

from ...roles import settings_of, url_of
from .test_grants import names_of

#: Far more than anything here takes, since the machine may be busy, in seconds.
DEADLINE_SECONDS = 60.0

Take = Callable[[Part, str], None]


@pytest.fixture
def take(database_url: str) -> Take:
    """Takes a right from the role of a part."""

    def revoke(part: Part, right: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"revoke {right} from {names_of(database_url)[part]}".encode())

    return revoke


def run(settings: Settings, *arguments: str) -> Result:
    values = settings.model_dump(exclude_none=True)
    environment = {f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}
    return CliRunner().invoke(app, arguments, env=environment)


@pytest.mark.parametrize("part", ["worker", "api", "jobs", "client"])
def test_nobody_puts_what_runs_as_the_owner_on_a_table_of_their_own(part: Part, database_url: str) -> None:
    """Given tables of a role's own with the names that the guard of leases reads, which could be views that call its
    functions, then it cannot make the guard read them, as the owner."""
    with psycopg.connect(url_of(part, database_url)) as connection:
        connection.execute("create temporary table leases (worker_id text)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="leases_not_to_older_workers"):
            connection.execute(
                "create trigger guard before update on leases for each row "
                "execute function public.leases_not_to_older_workers()"
            )


def test_a_worker_without_a_right_does_not_start_and_says_which(settings: Settings, take: Take) -> None:
    """Given a worker's role without two of its rights, when it starts, then it ends and names both, and whom to be."""
    take("worker", "insert on outbox")
    take("worker", "update (status) on accounts")

    with pytest.raises(DeniedByRole, match=r"update \(status\) on accounts, insert on outbox.*migrate --roles"):
        Worker(settings).run()


def test_a_jobs_process_without_a_right_does_not_start_and_says_which(settings: Settings, take: Take) -> None:
    take("jobs", "delete on deliveries")

    with pytest.raises(DeniedByRole, match="delete on deliveries"):
        JobsProcess(settings, "jobs").run()


def test_a_right_that_is_taken_while_a_worker_works_is_reported(
    settings: Settings, take: Take, running_worker: "subprocess.Popen[bytes]"
) -> None:
    """Given a worker at work, when its role loses the right to write the journal, then its status says so, and with the
    right given back everything that waited is applied."""
    opening = OpenAccount(customer_id="ann", idempotency_key="first")
    with Client(settings) as client:
        client.wait(client.enqueue(opening), timeout=DEADLINE_SECONDS)
        take("worker", "insert on journal")
        ticket = client.enqueue(OpenAccount(customer_id="bob", idempotency_key="second"))

        assert wait_until(lambda: "42501" in problems_of(settings), seconds=DEADLINE_SECONDS)

        assert "migrate --roles" in problems_of(settings)
        assert running_worker.poll() is None
        result = run(
            settings.model_copy(update={"database_url": url_of("owner", settings.require_database_url())}), "migrate"
        )
        assert result.exit_code == 0, result.output
        assert client.wait(ticket, timeout=DEADLINE_SECONDS).balance == 0


def problems_of(settings: Settings) -> str:
    try:
        return read_lanes(settings).model_dump_json()
    except Unavailable:
        return ""


@pytest.fixture
def api(settings: Settings, database_url: str) -> Iterator[TestClient]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        key = create_key(connection, settings.store, "test")
    with TestClient(
        create_app(settings_of("api", settings)), headers={"x-api-key": key}, raise_server_exceptions=False
    ) as client:
        yield client


def test_the_api_says_what_its_role_lacks_to_the_operator_only(
    api: TestClient, take: Take, caplog: pytest.LogCaptureFixture
) -> None:
    """Given an API whose role may make no endpoint, when one is to be made, then the answer is not to send it again,
    the log has the reason, and the API is not ready and says why."""
    take("api", "insert on webhook_endpoints")

    answer = api.post("/v1/webhooks", json={"url": "https://example.com/hook"})
    # The check at the start may still be under way, and whoever asks meanwhile is given what it finds.
    assert wait_until(lambda: api.get("/readyz").json()["problems"].keys() >= {"postgres"}, seconds=DEADLINE_SECONDS)
    ready = api.get("/readyz")

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "webhook_endpoints" not in answer.text
    assert "permission denied for table webhook_endpoints" in caplog.text
    assert ready.status_code == 503
    assert "insert on webhook_endpoints" in ready.text


@pytest.mark.parametrize("arguments", [["keys", "create", "--store", "store_default"], ["stores", "create", "x"]])
def test_a_command_as_the_wrong_role_names_the_right_one(arguments: list[str], settings: Settings) -> None:
    """Given the URL of a client, when it is used for a command of an operator, then that says which role it takes."""
    result = run(settings_of("client", settings), *arguments)

    assert isinstance(result.exception, DeniedByRole)
    assert "Connect as creditlane_owner" in str(result.exception)


def test_operators_have_a_url_of_their_own(settings: Settings) -> None:
    """Given a client's URL and that for operators, then a command of operators takes its own."""
    both = settings_of("client", settings).model_copy(
        update={"operator_database_url": url_of("owner", settings.require_database_url())}
    )

    assert run(both, "keys", "create", "--store", "store_default").exit_code == 0
    assert run(both, "migrate").exit_code == 0


@pytest.mark.parametrize("arguments", [["status"], ["verify"], ["dead", "list"], ["webhooks", "list"]])
def test_a_client_may_read(arguments: list[str], settings: Settings) -> None:
    result = run(settings_of("client", settings), *arguments)

    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "permission denied" not in result.output


def test_the_roles_are_made_on_the_command_line_and_no_password_is_shown(
    postgres_server: EmbeddedPostgres, tmp_path: Any
) -> None:
    """Given passwords in the environment and in a file, when the roles are made, then what is said next is the URL of
    each role, without any password, and which have none."""
    url = postgres_server.create_database("of_named")
    file = tmp_path / "roles"
    file.write_text("worker=s3cr3tpw1\n")
    environment = {
        "CREDITLANE_DATABASE_URL": url,
        "CREDITLANE_ROLE_PREFIX": "named",
        "CREDITLANE_API_PASSWORD": "s3cr3tpw2",
    }

    result = CliRunner().invoke(app, ["migrate", "--roles", "--password-file", str(file)], env=environment)

    assert result.exit_code == 0, result.output
    assert "s3cr3tpw" not in result.output
    for part in PARTS:
        assert f"  postgresql://named_{part}@:5432/of_named?host=" in result.output
    without = ", ".join(variable_of(part) for part in PARTS if part not in {"worker", "api"})
    assert without in result.output
    postgres_server.drop_database("of_named")
