"""The API as an application in this process, with keys of the test's own; and as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.api.app import create_app
from creditlane.producer.operations.api_keys import create_key

from ...api_address import address_printed
from ...roles import settings_of

#: How long an API process may take to stop, in seconds.
STOP_SECONDS = 30.0


@pytest.fixture
def make_key(database_url: str) -> Callable[..., str]:
    """Makes keys of any store."""

    def make(store: str = "store_default", name: str = "test") -> str:
        with psycopg.connect(database_url, autocommit=True) as connection:
            return create_key(connection, store, name)

    return make


@pytest.fixture
def api_key(make_key: Callable[..., str]) -> str:
    """A key of the default store."""
    return make_key()


@pytest.fixture
def make_api(api_key: str) -> Iterator[Callable[[Settings], TestClient]]:
    """Makes applications with the given settings, each behind a client that has the key."""
    made: list[TestClient] = []

    def make(settings: Settings) -> TestClient:
        client = TestClient(create_app(settings), headers={"x-api-key": api_key}, raise_server_exceptions=False)
        client.__enter__()
        made.append(client)
        return client

    yield make
    for client in made:
        client.__exit__(None, None, None)


@pytest.fixture
def api(make_api: Callable[[Settings], TestClient], settings: Settings) -> TestClient:
    """An application with the test's settings."""
    return make_api(settings)


@pytest.fixture
def start_api(
    settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> Iterator[Callable[..., tuple["subprocess.Popen[str]", str]]]:
    """Starts `creditlane api` on a free port and gives the process and its address; stopped at the end by its id."""
    processes: list[subprocess.Popen[str]] = []

    def start(*, api_settings: Settings = settings) -> tuple["subprocess.Popen[str]", str]:
        command = [sys.executable, "-c", "from creditlane.cli.main import main; main()", "api", "--port", "0"]
        environment = {**os.environ, **environment_of(settings_of("api", api_settings))}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, address_printed(process.stdout.readline())

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=STOP_SECONDS)
