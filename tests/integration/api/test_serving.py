"""`creditlane api` as a process: it says where it listens, finishes what is under way, and ends with 0."""

import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from queue import Queue

import pytest

from creditlane import Settings
from creditlane.cli import api as api_command
from creditlane.local.processes import wait_until
from creditlane.producer.api.listening_socket import address_of, listening_socket
from creditlane.schemas.errors import ConfigurationError

StartApi = Callable[..., tuple["subprocess.Popen[str]", str]]


def post(url: str, key: str, body: object) -> tuple[int, bytes]:
    request = urllib.request.Request(  # noqa: S310  the address is the test's own
        url, json.dumps(body).encode(), {"x-api-key": key, "content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize(("log_format", "is_json"), [(None, True), ("json", True), ("console", False)])
def test_the_address_is_printed_as_the_log_is(log_format: str | None, is_json: bool) -> None:
    """Given output that no terminal shows, then its reader, who may have the log beside it, gets JSON."""
    line = api_command._listens("http://127.0.0.1:8000", log_format)

    assert line.startswith("{") == is_json
    if is_json:
        assert json.loads(line)["url"] == "http://127.0.0.1:8000"
    else:
        assert line == "The API listens on http://127.0.0.1:8000"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_under_way(
    start_api: StartApi, settings: Settings, api_key: str, number: signal.Signals
) -> None:
    # Nobody decides the command: the request waits as long as the setting says, and is answered before the end.
    process, url = start_api(api_settings=settings.model_copy(update={"wait_timeout_seconds": 2.0}))
    answers: Queue[tuple[int, bytes]] = Queue()
    body = {"customer_id": "c"}
    asking = threading.Thread(
        target=lambda: answers.put(post(f"{url}/v1/customer-credits/accounts", api_key, body)), daemon=True
    )
    asking.start()
    assert wait_until(lambda: in_flight(url) == 2, seconds=20)

    process.send_signal(number)
    _, log = process.communicate(timeout=30)

    assert process.returncode == 0
    assert answers.get(timeout=10)[0] == 503
    lines = [json.loads(line) for line in log.splitlines()]
    (request,) = [line for line in lines if line["event"] == "request"]
    assert (request["operation"], request["status"]) == ("create_account", 503)
    assert api_key not in log


def in_flight(url: str) -> float:
    """Return how many requests are being answered; this one is among them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("creditlane_http_requests_in_flight ")]
    return float(line.split()[-1])


def test_it_starts_without_its_servers_and_says_so(start_api: StartApi, settings: Settings) -> None:
    away = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"}
    _, url = start_api(api_settings=settings.model_copy(update=away))

    with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:  # noqa: S310
        assert answer.status == 200


def test_an_address_that_is_taken_is_one_clear_line() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            listening_socket("127.0.0.1", port)


def test_an_address_of_no_machine_is_one_clear_line() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on no\.such\.host\.invalid port 0"):
        listening_socket("no.such.host.invalid", 0)


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_command, "API_PACKAGES", ("fastapi_that_is_not_there",))

    with pytest.raises(ConfigurationError, match=r"pip install 'creditlane\[api\]'"):
        api_command.api_command()
