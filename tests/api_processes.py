"""API processes with worker processes beside them, for the tests that ask over HTTP; gone after the test."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import psycopg
import pytest

from creditlane.local.processes import wait_until
from creditlane.producer.operations.api_keys import create_key
from creditlane.schemas.roles import Part
from creditlane.schemas.settings import Settings

from .api_address import address_printed
from .roles import settings_of

#: How long processes may take to start and to stop, in seconds; the machine may be busy.
DEADLINE_SECONDS = 60.0
#: Longer than any test waits: a result that does not come is a failure there, and no 202.
WAIT_SECONDS = 60.0
_OWNERS = "select count(distinct worker_id), count(*) filter (where worker_id is null) from leases"

Served = tuple[str, str]
ServeApi = Callable[..., Served]


@pytest.fixture
def serve_api(settings: Settings) -> Iterator[ServeApi]:
    """Serves the API with so many workers, and gives its address and a key once they share all the lanes."""
    processes: list[subprocess.Popen[str]] = []

    def start(part: Part, *arguments: str) -> "subprocess.Popen[str]":
        long_waiting = settings_of(part, settings).model_copy(update={"wait_timeout_seconds": WAIT_SECONDS})
        values = long_waiting.model_dump(exclude_none=True)
        environment = {**os.environ, **{f"CREDITLANE_{name.upper()}": str(value) for name, value in values.items()}}
        processes.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        return processes[-1]

    def serve(*, workers: int = 1) -> Served:
        for _ in range(workers):
            start("worker", "-m", "creditlane.worker")
        api = start("api", "-c", "from creditlane.cli.main import main; main()", "api", "--port", "0")
        assert api.stdout is not None
        url = address_printed(api.stdout.readline())
        with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
            shared = (workers, 0)
            assert wait_until(lambda: connection.execute(_OWNERS).fetchone() == shared, seconds=DEADLINE_SECONDS)
            assert wait_until(lambda: _is_ready(url), seconds=DEADLINE_SECONDS)
            return url, create_key(connection, settings.store, "test")

    yield serve
    for process in processes:
        process.terminate()
    for process in processes:
        process.communicate(timeout=DEADLINE_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310  an address of the test's own
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
