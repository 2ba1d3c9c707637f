"""Servers as people have them: every process and command says what is wrong with them, in one line, at its start."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from structlog.testing import capture_logs

from creditlane import Settings
from creditlane.local import redis_server
from creditlane.local.processes import wait_until
from creditlane.local.servers import EmbeddedRedis
from creditlane.producer.api.app import create_app
from creditlane.schemas.roles import Part

from ..ports import free_port
from ..roles import settings_of

#: Far more than anything here takes, since the machine may be busy, in seconds.
DEADLINE_SECONDS = 60.0
ENTRY = [sys.executable, "-P", "-c", "from creditlane.cli.main import main; main()"]
PROCESSES: dict[str, tuple[Part, list[str]]] = {
    "worker": ("worker", ["worker"]),
    "jobs": ("jobs", ["jobs", "work", "--queue", "jobs"]),
}
CLUSTER = "Redis runs in cluster mode, in which one command cannot reach all lanes; take one without cluster mode"
EVICTS = "(maxmemory-policy allkeys-lru); set maxmemory-policy to noeviction"
SMALL = "may use 32 MB of memory, which few waiting commands fill, and then takes no more; set maxmemory to 64mb"
WARNED = "commands can be lost or refused"

Environment = Callable[[Settings], dict[str, str]]


@pytest.fixture
def clustered(settings: Settings, own_redis: Callable[[], EmbeddedRedis], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a Redis in cluster mode that has all of the slots."""
    options = redis_server._options
    # The nodes of a cluster speak by TCP, on a port that is the same for all who name none.
    cluster = ["--cluster-enabled", "yes", "--bind", "127.0.0.1", "--cluster-port", str(free_port())]
    monkeypatch.setattr(redis_server, "_options", lambda *given: [*options(*given), *cluster])
    url = own_redis().url
    with redis.Redis.from_url(url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    return settings.model_copy(update={"redis_url": url})


@pytest.fixture
def cramped(settings: Settings, own_redis: Callable[[], EmbeddedRedis]) -> Settings:
    """Settings with a Redis that is set up as a small cache."""
    url = own_redis().url
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", "32mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    return settings.model_copy(update={"redis_url": url})


def run(arguments: list[str], part: Part, settings: Settings, environment_of: Environment) -> tuple[int, str]:
    """Run a command of this part to its end; return its exit code and what it said on standard error."""
    environment = os.environ | environment_of(settings_of(part, settings))
    result = subprocess.run(
        [*ENTRY, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize("kind", [*PROCESSES, "status"])
def test_a_redis_in_cluster_mode_is_refused(kind: str, clustered: Settings, environment_of: Environment) -> None:
    part, arguments = PROCESSES.get(kind, ("owner", [kind]))

    code, output = run(arguments, part, clustered, environment_of)

    assert code == 1
    assert CLUSTER in output.splitlines()[-1]
    assert "Traceback" not in output


def test_an_api_on_a_redis_in_cluster_mode_says_so_and_serves_nothing(clustered: Settings) -> None:
    with capture_logs() as logs, TestClient(create_app(settings_of("api", clustered))) as api:
        answer = api.get("/readyz")
        assert wait_until(lambda: bool(logs), seconds=DEADLINE_SECONDS)

    assert answer.status_code == 503
    assert answer.json()["problems"]["redis"].startswith(CLUSTER)
    assert [entry["redis"] for entry in logs if entry["event"] == "cannot serve"] == [
        answer.json()["problems"]["redis"]
    ]


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_redis_that_is_set_up_as_a_cache_is_warned_of_in_the_log(
    kind: str, cramped: Settings, environment_of: Environment
) -> None:
    part, arguments = PROCESSES[kind]
    environment = os.environ | environment_of(settings_of(part, cramped))
    command = [*ENTRY, *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        warnings: list[Any] = []
        for line in process.stderr:
            entry = json.loads(line)
            if entry["event"] == WARNED:
                warnings.append((entry["level"], entry["redis"]))
            if entry["event"] in {"worker started", "jobs process started"}:
                break
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)

    assert [level for level, _ in warnings] == ["warning"] * 2
    assert EVICTS in warnings[0][1]
    assert SMALL in warnings[1][1]
    assert process.returncode == 0


def test_a_redis_that_is_set_up_as_a_cache_is_warned_of_by_status_and_the_api(
    cramped: Settings, environment_of: Environment
) -> None:
    environment = os.environ | environment_of(settings_of("owner", cramped))
    result = subprocess.run([*ENTRY, "status", "--json"], env=environment, capture_output=True, check=True)
    with capture_logs() as logs, TestClient(create_app(settings_of("api", cramped))) as api:
        warning = api.get("/readyz").json()["warnings"]["redis"]
        again = api.get("/readyz").json()["warnings"]["redis"]

    assert json.loads(result.stdout)["redis_problem"] == warning == again
    assert EVICTS in warning
    assert SMALL in warning
    # Once, and not whenever somebody asks.
    assert "; ".join(entry["redis"] for entry in logs if entry["event"] == WARNED) == warning


@pytest.mark.parametrize("kind", [*PROCESSES, "status", "dead list"])
def test_a_database_that_is_not_migrated_is_refused(
    kind: str, settings: Settings, empty_database_url: str, environment_of: Environment
) -> None:
    part, arguments = PROCESSES.get(kind, ("owner", kind.split()))
    empty = settings.model_copy(update={"database_url": empty_database_url})

    code, output = run(arguments, part, empty, environment_of)

    assert (code, output.splitlines()[-1]) == (
        1,
        "creditlane: The database has not the current schema; run `creditlane migrate`.",
    )


def test_an_api_whose_role_lacks_a_right_logs_it(settings: Settings, database_url: str) -> None:
    """Given a right taken from the API's role, then its log names it at once, and not the first request."""
    mine = settings_of("api", settings)
    with psycopg.connect(database_url, autocommit=True) as connection:
        role = sql.Identifier(str(conninfo_to_dict(mine.require_database_url())["user"]))
        connection.execute(sql.SQL("revoke select on api_keys from {}").format(role))
    with capture_logs() as logs, TestClient(create_app(mine)):
        assert wait_until(lambda: any("postgres" in entry for entry in logs), seconds=DEADLINE_SECONDS)

    (output,) = [entry for entry in logs if entry["event"] == "cannot serve yet"]
    assert "select on api_keys" in output["postgres"]
