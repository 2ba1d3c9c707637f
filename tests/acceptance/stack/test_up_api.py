"""`creditlane up` serves the API beside the workers, prints where, and keeps it up."""

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
from creditlane.local import api_server
from creditlane.local import up as up_command
from creditlane.local.api_server import KEY_FILE, PORT_FILE, Api, _development_key, _listening
from creditlane.local.processes import wait_until
from creditlane.producer.api.listening_socket import listening_socket
from creditlane.producer.operations.api_keys import key_id_of, revoke_key
from creditlane.schemas.errors import ConfigurationError


def settings_of(stack: Path, environment: dict[str, str]) -> dict[str, str]:
    result = subprocess.run(
        ["creditlane", "env", "--json"],  # noqa: S607  found on the path of its environment
        cwd=stack,
        env=environment,
        capture_output=True,
        check=True,
    )
    found: dict[str, str] = json.loads(result.stdout)["settings"]
    return found


def get(url: str, key: str = "") -> int:
    request = urllib.request.Request(url, headers={"x-api-key": key})  # noqa: S310  the address is the test's own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        status: int = answer.status
    return status


def test_it_prints_the_address_and_the_key_and_env_knows_them(
    started_stack: tuple[Path, list[str]], shell_environment: dict[str, str]
) -> None:
    stack, lines = started_stack
    values = settings_of(stack, shell_environment)
    url, key = values["CREDITLANE_API_URL"], values["CREDITLANE_API_KEY"]

    assert f"The HTTP API listens on {url}; {url}/docs shows every operation." in lines
    assert f"    Its development key, shown this once: {key}" in lines
    assert get(f"{url}/v1/customer-credits/accounts", key) == 200
    assert (stack / ".creditlane" / PORT_FILE).read_text() == f"{url.rpartition(':')[2]}\n"
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


class Ports:
    """Stands for the ports of a machine, some of which are taken; any that is free is this one."""

    ANY = 41_000

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self._port = 0

    def listen(self, _host: str, port: int) -> "Ports":
        if port in self.taken:
            raise ConfigurationError(f"cannot listen on 127.0.0.1 port {port}")
        self._port = port or self.ANY
        return self

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Ports:
    made = Ports()
    monkeypatch.setattr(api_server, "listening_socket", made.listen)
    return made


def test_the_port_stays_from_start_to_start(ports: Ports, tmp_path: Path) -> None:
    said: list[str] = []

    def start(wanted: int | None = None) -> int:
        port: int = _listening(tmp_path / PORT_FILE, wanted, said.append).getsockname()[1]
        return port

    ports.taken = {8_000}
    assert start() == Ports.ANY
    ports.taken = set()
    assert start() == Ports.ANY
    assert start(8_080) == 8_080
    assert start() == 8_080
    assert said == []

    ports.taken = {8_080}
    assert start() == Ports.ANY
    (line,) = said
    assert line.startswith("The API's port of the last start is taken (cannot listen on 127.0.0.1 port 8080): ")
    ports.taken = set()
    assert start() == 8_080


def test_a_port_that_is_asked_for_and_taken_is_refused(ports: Ports, tmp_path: Path) -> None:
    ports.taken = {8_080}
    with pytest.raises(ConfigurationError, match="port 8080"):
        _listening(tmp_path / PORT_FILE, 8_080, print)
    assert not (tmp_path / PORT_FILE).exists()


@pytest.mark.parametrize("text", ["", "x", "0", "70000", "-1"])
def test_a_kept_port_that_is_none_is_nothing(text: str, ports: Ports, tmp_path: Path) -> None:
    (tmp_path / PORT_FILE).write_text(text)
    assert _listening(tmp_path / PORT_FILE, None, print).getsockname() == ("127.0.0.1", 8_000)
    assert ports.taken == set()


def test_a_preferred_port_that_is_taken_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with listening_socket("127.0.0.1", 0) as first:
        monkeypatch.setattr(api_server, "PREFERRED_PORT", first.getsockname()[1])
        with _listening(tmp_path / PORT_FILE, None, print) as second:
            assert second.getsockname()[1] not in {0, first.getsockname()[1]}


def test_up_takes_a_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    def run(*_: object, **options: object) -> None:
        asked.append(options["api_port"])
        raise KeyboardInterrupt

    monkeypatch.setattr(up_command, "running_stack", run)
    up_command.up_command(tmp_path, 1, 8_080)
    assert asked == [8_080]


def test_a_kept_key_is_not_shown_again() -> None:
    printed = up_command._about(Api("http://127.0.0.1:8000", "cl_secret", is_key_new=False), Path(".creditlane"))

    assert "cl_secret" not in printed
    assert ".creditlane/api-key" in printed


def test_without_its_packages_the_stack_runs_and_says_so() -> None:
    assert up_command._about(None, Path()) == "The HTTP API is not served: it needs `pip install 'creditlane[api]'`."
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('fastapi', 'starlette', 'uvicorn', 'prometheus_client')))\n"
        "import creditlane.local.up, creditlane.local.api_server\n"
        "import creditlane.cli.api, creditlane.cli.keys"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True).returncode == 0
