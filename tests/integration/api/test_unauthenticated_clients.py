"""An API process among clients without a key: whose word it takes for an address, what one of them can do to others."""

import contextlib
import http.client
import json
import re
import resource
import subprocess
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import pytest

from creditlane import Settings
from creditlane.benchmarks.unauthenticated_clients import unauthenticated_client
from creditlane.local.processes import wait_until
from creditlane.producer.api.middleware.connection_limits import OTHER_DESCRIPTORS
from creditlane.producer.api.serving import _raise_descriptor_limit

from .requests_of import DEADLINE_SECONDS

StartApi = Callable[..., tuple["subprocess.Popen[str]", str]]
#: What the log's own colours are made of.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FORWARDED = {"x-forwarded-for": "198.51.100.7, 192.0.2.9"}


def ask(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def clients_logged(process: "subprocess.Popen[str]") -> list[str]:
    process.terminate()
    _, log = process.communicate(timeout=DEADLINE_SECONDS)
    lines = [json.loads(line) for line in log.splitlines()]
    return [line["client"] for line in lines if line["event"] == "request"]


@pytest.mark.parametrize(
    ("trusted", "client"),
    [("", "127.0.0.1"), ("127.0.0.2, 10.0.0.0/8", "127.0.0.1"), ("loopback", "192.0.2.9"), ("127.0.0.1", "192.0.2.9")],
)
def test_only_a_trusted_proxy_says_for_whom_it_asks(
    start_api: StartApi, settings: Settings, trusted: str, client: str
) -> None:
    process, url = start_api(api_settings=settings.model_copy(update={"api_trusted_proxies": trusted}))

    assert ask(url, "/none", FORWARDED)[0] == 404

    assert clients_logged(process) == [client]


def test_a_proxy_that_is_none_is_one_clear_line(start_api: StartApi, settings: Settings) -> None:
    process, _ = start_api(api_settings=settings.model_copy(update={"api_trusted_proxies": "proxy.internal"}))

    _, log = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 1
    assert "CREDITLANE_API_TRUSTED_PROXIES: 'proxy.internal'" in log


def test_nothing_of_a_path_moves_the_terminal_of_who_reads_the_log(start_api: StartApi, settings: Settings) -> None:
    process, url = start_api(api_settings=settings.model_copy(update={"log_format": "console"}))

    ask(url, "/%1b]0;OWNED%07%1b[2J%c2%9b%e2%80%ae")
    process.terminate()
    _, log = process.communicate(timeout=DEADLINE_SECONDS)

    (line,) = [COLOUR.sub("", line) for line in log.splitlines() if "OWNED" in line]
    assert line.isprintable()


def test_as_many_files_may_be_open_as_connections_need() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 300), hard))
        _raise_descriptor_limit(400)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 400)
        _raise_descriptor_limit(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 400)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert OTHER_DESCRIPTORS < 400


#: What clients without a key do at the same time, and the limits that they meet. Silent ones push each other out, and
#: who is slow.
MET = [
    {"a header of 40 MiB": "head_bytes", "a URL of 8 MiB": "url", "3,645,000 header lines": "headers"},
    {"slow heads": "slow_head"},
    {"silent connections": "address_connections"},
]


@pytest.mark.timeout(300)
def test_others_are_answered_while_clients_without_a_key_meet_their_limits(
    start_api: StartApi, settings: Settings
) -> None:
    """Given what clients without a key do, then each meets its limit, and others are answered meanwhile."""
    limits = {"api_connections_per_address": 50, "api_head_seconds": 3.0}
    url = start_api(api_settings=settings.model_copy(update=limits))[1]
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None

    def is_answered(text: str, path: str) -> bool:
        try:
            return text in ask(url, path)[1].decode()
        except ConnectionError:
            # The test itself was too slow.
            return False

    for together in MET:
        with contextlib.ExitStack() as clients:
            for name in together:
                connections = 60 if name == "silent connections" else 5
                clients.enter_context(
                    unauthenticated_client(name, parts.hostname, parts.port, most_connections=connections)
                )

            for limit in together.values():
                text = f'refused_connections_total{{limit="{limit}"}}'
                assert wait_until(partial(is_answered, text, "/metrics"), seconds=DEADLINE_SECONDS), limit
            assert wait_until(partial(is_answered, '"alive"', "/healthz"), seconds=DEADLINE_SECONDS)
