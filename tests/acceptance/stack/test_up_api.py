"""`creditlane up` serves the API beside the workers, tells where, and keeps it up."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from creditlane import Settings
from creditlane.local import api_server, up_command
from creditlane.local.api_server import KEY_FILE, Api, _development_key, _listening
from creditlane.local.processes import wait_until
from creditlane.producer.api.keys import key_id_of, revoke_key

#: One process starts one stack for all of them.
pytestmark = pytest.mark.xdist_group("up")


def settings_of(stack: Path, environment: dict[str, str]) -> dict[str, str]:
    told = subprocess.run(
        ["creditlane", "env", "--json"],  # noqa: S607  found on the path of its environment
        cwd=stack,
        env=environment,
        capture_output=True,
        check=True,
    )
    found: dict[str, str] = json.loads(told.stdout)["settings"]
    return found


def get(url: str, key: str = "") -> int:
    request = urllib.request.Request(url, headers={"x-api-key": key})  # noqa: S310  the address is the test's own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        status: int = answer.status
    return status


def test_it_tells_the_address_and_the_key_and_env_knows_them(
    started_stack: tuple[Path, list[str]], shell_environment: dict[str, str]
) -> None:
    stack, lines = started_stack
    values = settings_of(stack, shell_environment)
    url, key = values["CREDITLANE_API_URL"], values["CREDITLANE_API_KEY"]

    assert f"The HTTP API listens on {url}; {url}/docs shows every operation." in lines
    assert f"    Its development key, shown this once: {key}" in lines
    assert get(f"{url}/v1/customer-credits/accounts", key) == 200
    path = stack / ".creditlane" / KEY_FILE
    assert path.read_text() == f"{key}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert key not in (stack / "up.log").read_text()


def test_an_api_that_dies_is_started_again_on_the_same_address(
    started_stack: tuple[Path, list[str]], shell_environment: dict[str, str]
) -> None:
    stack, _ = started_stack
    url = settings_of(stack, shell_environment)["CREDITLANE_API_URL"]
    assert get(f"{url}/healthz") == 200
    log = stack / "up.log"
    # Whoever answers says in its first line which process it is.
    (line,) = [line for line in log.read_text().splitlines() if "Started server process" in line]
    pid = int(line.split("process [")[1].split("]")[0])

    os.kill(pid, signal.SIGKILL)

    assert wait_until(lambda: "ended with -9; starts again" in log.read_text(), seconds=20)
    # It waits on the socket, which is open all the time, and is not refused.
    assert get(f"{url}/healthz") == 200


def test_the_key_stays_as_long_as_it_works(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    key, is_new = _development_key(path, settings)
    assert is_new
    assert _development_key(path, settings) == (key, False)

    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        revoke_key(connection, key_id_of(key) or "")
    another, is_new = _development_key(path, settings)

    assert is_new
    assert another != key
    assert path.read_text() == f"{another}\n"


def test_a_preferred_port_that_is_taken_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with _listening() as first:
        monkeypatch.setattr(api_server, "PREFERRED_PORT", first.getsockname()[1])
        with _listening() as second:
            assert second.getsockname()[1] not in {0, first.getsockname()[1]}


def test_a_kept_key_is_not_shown_again() -> None:
    told = up_command._about(Api("http://127.0.0.1:8000", "cl_secret", is_key_new=False), Path(".creditlane"))

    assert "cl_secret" not in told
    assert ".creditlane/api-key" in told


def test_without_its_packages_the_stack_runs_and_says_so() -> None:
    assert up_command._about(None, Path()) == "The HTTP API is not served: it needs `pip install 'creditlane[api]'`."
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('fastapi', 'starlette', 'uvicorn', 'prometheus_client')))\n"
        "import creditlane.local.up_command, creditlane.local.api_server\n"
        "import creditlane.producer.cli.api_command, creditlane.producer.cli.keys_command"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True).returncode == 0
