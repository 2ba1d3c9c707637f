"""The container files are as they should be: durable, healthy, not root, no secret, nothing published by accident."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from creditlane.cli import role_passwords
from creditlane.cli.redis_users import variable_of
from creditlane.lanes.redis.users import REDIS_USERS, RedisUser, acl_lines, user_name
from creditlane.local.postgres_server import SETTINGS
from creditlane.schemas.roles import Part, role_name

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def dockerfile_instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)


def test_has_the_services_of_the_stack(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "redis", "migrate", "worker", "deliveries", "jobs", "api", "operator"}


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("migrate", ["creditlane", "migrate", "--roles"]),
        ("worker", ["creditlane", "worker"]),
        ("deliveries", ["creditlane", "jobs", "work", "--queue", "deliveries"]),
        ("jobs", ["creditlane", "jobs", "work", "--queue", "jobs"]),
        ("api", ["creditlane", "api", "--host", "0.0.0.0", "--port", "8000"]),  # noqa: S104  inside a container
    ],
)
def test_runs_the_command(services: dict[str, Any], service: str, command: list[str]) -> None:
    assert services[service]["command"] == command


def test_redis_writes_before_it_answers_and_evicts_nothing(services: dict[str, Any]) -> None:
    words = services["redis"]["command"][4:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options == {
        "--aclfile": "/tmp/users.acl",  # noqa: S108  memory of the container's own
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--save": "",
        "--maxmemory": "${REDIS_MAXMEMORY:-1gb}",
        "--maxmemory-policy": "noeviction",
    }


def test_redis_starts_with_the_users_and_no_other(services: dict[str, Any], tmp_path: Path) -> None:
    """Given the script that writes the users, then the server that it starts finds them, with their passwords."""
    passwords = {user: f"{user}-password-of-the-test" for user in REDIS_USERS}
    server = tmp_path / "valkey-server"
    server.write_text(f'#!/bin/sh\necho "$@"\ncat {tmp_path}/users.acl\n')
    server.chmod(0o700)
    # As compose does: $$ is a $.
    script = services["redis"]["command"][2].replace("$$", "$").replace("/tmp/", f"{tmp_path}/")  # noqa: S108  the same
    environment = {variable_of(user): password for user, password in passwords.items()}
    said = subprocess.run(
        ["/bin/sh", "-euc", script, "valkey-server", "--an", "option"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    secrets = {user: f">{password}" for user, password in passwords.items()}
    assert said == ["--an option", "user default reset off", *acl_lines("creditlane", secrets)]
    assert (tmp_path / "users.acl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("service", "user"), [("worker", "worker"), ("deliveries", "jobs"), ("jobs", "jobs"), ("api", "producer")]
)
def test_each_service_is_its_own_user_in_redis(services: dict[str, Any], service: str, user: RedisUser) -> None:
    url = services[service]["environment"]["CREDITLANE_REDIS_URL"]
    password = f"${{{variable_of(user)}:?set it to a long random string}}"
    assert url == f"redis://{user_name(user, 'creditlane')}:{password}@redis:6379/0"
    others = [variable_of(other) for other in REDIS_USERS if other != user]
    assert not any(name in yaml.safe_dump(services[service]) for name in others)


def test_a_service_reaches_what_it_needs_and_no_more(compose: dict[str, Any]) -> None:
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}
    assert networks == {
        "postgres": {"ledger"},
        "redis": {"lanes"},
        "migrate": {"ledger"},
        "worker": {"ledger", "lanes"},
        "jobs": {"ledger", "lanes"},
        "deliveries": {"ledger", "lanes", "world"},
        "api": {"ledger", "lanes", "front"},
        "operator": {"ledger", "lanes"},
    }
    assert {name for name, network in compose["networks"].items() if network == {"internal": True}} == {
        "ledger",
        "lanes",
    }


def test_every_service_is_hardened_and_limited(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all("size=" in mount for mount in service["tmpfs"]), name
        assert {"cpus", "mem_limit", "pids_limit"} <= service.keys(), name
        assert service["ulimits"] == {"nofile": 65536}, name
        # The image of ours has its user in the Dockerfile.
        assert service.get("user") == {"postgres": "postgres", "redis": "valkey"}.get(name), name


def test_postgres_is_set_as_the_embedded_one(services: dict[str, Any]) -> None:
    words = services["postgres"]["command"]
    settings = dict(word.split("=") for word in words[2::2])
    assert set(words[1::2]) == {"-c"}
    assert settings == {name: SETTINGS[name] for name in settings}


def test_data_is_on_volumes(compose: dict[str, Any]) -> None:
    mounted = {name: compose["services"][name]["volumes"] for name in ("postgres", "redis")}
    assert mounted == {"postgres": ["postgres-data:/var/lib/postgresql"], "redis": ["redis-data:/data"]}
    assert set(compose["volumes"]) == {"postgres-data", "redis-data"}


@pytest.mark.parametrize("service", ["postgres", "redis", "worker", "deliveries", "jobs", "api"])
def test_every_lasting_service_is_checked_for_health(services: dict[str, Any], service: str) -> None:
    assert services[service]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("service", ["worker", "deliveries", "jobs", "api"])
def test_waits_for_healthy_servers_and_for_the_migration(services: dict[str, Any], service: str) -> None:
    assert {name: wait["condition"] for name, wait in services[service]["depends_on"].items()} == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_passwords_come_from_the_environment_and_are_demanded(services: dict[str, Any]) -> None:
    found = [
        (name, value)
        for service in services.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert len(found) == 11 + len(REDIS_USERS)
    for name, value in found:
        variable = r"(CREDITLANE_[A-Z]+|POSTGRES)_PASSWORD" if name == "PGPASSWORD" else name
        assert re.match(rf"\$\{{{variable}:\?set ", value), name


#: The role of each service, and of nobody else.
ROLES: dict[str, Part] = {"worker": "worker", "deliveries": "jobs", "jobs": "jobs", "api": "api", "operator": "owner"}


@pytest.mark.parametrize(("service", "part"), list(ROLES.items()))
def test_each_service_has_its_own_role_and_its_password_only(
    services: dict[str, Any], service: str, part: Part
) -> None:
    environment = services[service]["environment"]
    assert environment["CREDITLANE_DATABASE_URL"] == f"postgresql://{role_name(part)}@postgres:5432/creditlane"
    passwords = {name: value.partition(":?")[0] for name, value in environment.items() if "PASSWORD" in name}
    assert passwords == {"PGPASSWORD": f"${{{role_passwords.variable_of(part)}"}


def test_only_the_migration_has_the_superuser_s_password(services: dict[str, Any]) -> None:
    found = {name for name, service in services.items() if "POSTGRES_PASSWORD" in str(service.get("environment"))}
    assert found == {"postgres", "migrate"}
    given = services["migrate"]["environment"]
    assert {name for name in given if name.startswith("CREDITLANE_")} == {
        "CREDITLANE_DATABASE_URL",
        *(role_passwords.variable_of(part) for part in ROLES.values()),
    }


def test_a_worker_is_healthy_while_its_heart_beats(services: dict[str, Any]) -> None:
    check = ["creditlane", "worker", "alive"]
    assert services["worker"]["healthcheck"]["test"] == ["CMD", *check]
    (instruction,) = dockerfile_instructions("HEALTHCHECK")
    assert json.loads(instruction.partition("CMD ")[2]) == check
    # Where its heartbeat goes.
    assert any(mount.startswith("/tmp:") for mount in services["worker"]["tmpfs"])  # noqa: S108  memory of its own


@pytest.mark.parametrize("service", ["deliveries", "jobs"])
def test_an_rq_process_is_healthy_when_rq_sees_it_alive(services: dict[str, Any], service: str) -> None:
    assert services[service]["healthcheck"]["test"] == ["CMD", "creditlane", "jobs", "alive", "--queue", service]


def test_only_the_api_is_published_and_only_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${CREDITLANE_API_PORT:-8000}:8000"]}


def test_a_plain_up_starts_every_service(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "profiles" in service] == ["operator"]


def test_the_api_is_healthy_when_it_says_that_it_is_ready(services: dict[str, Any]) -> None:
    command = services["api"]["healthcheck"]["test"]
    assert command[:3] == ["CMD", "python", "-c"]
    assert "http://127.0.0.1:8000/readyz" in command[3]
    assert services["api"]["ports"][0].endswith(":8000")


def test_the_image_runs_as_a_normal_user_and_is_checked() -> None:
    assert dockerfile_instructions("USER") == ["creditlane"]
    assert len(dockerfile_instructions("HEALTHCHECK")) == 1
    assert len(dockerfile_instructions("FROM")) == 2


def test_the_build_context_has_every_file_of_the_wheel() -> None:
    allowed = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert allowed >= packages | {"pyproject.toml", "README.md", "LICENSE", "py.typed", "__init__.py"}


def test_the_keys_of_webhook_secrets_are_with_who_seals_and_who_signs(services: dict[str, Any]) -> None:
    found = {name for name, service in services.items() if "CREDITLANE_WEBHOOK_SECRET_KEYS" in str(service)}

    assert found == {"api", "deliveries", "operator"}
    assert services["jobs"]["environment"].items() <= services["deliveries"]["environment"].items()
