"""Each example as its first lines say: a customer signs up on the command line and is served over HTTP."""

import http.client
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .conftest import DEADLINE_SECONDS, EXAMPLES

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Commands(NamedTuple):
    """What is run with Python, and where."""

    folder: Path
    prepare: tuple[str, ...] | None
    sign_up: tuple[str, ...]
    serve: tuple[str, ...]


COMMANDS = {
    "fastapi": Commands(
        EXAMPLES.parent,
        None,
        ("examples/fastapi_app.py", "sign-up", "ada"),
        ("-m", "uvicorn", "--app-dir", "examples", "fastapi_app:app", "--port", "0"),
    ),
    "flask": Commands(
        EXAMPLES.parent,
        None,
        ("-m", "flask", "--app", "examples/flask_app.py", "sign-up", "ada"),
        ("-m", "flask", "--app", "examples/flask_app.py", "run", "--port", "0"),
    ),
    "django": Commands(
        EXAMPLES / "django_app",
        ("manage.py", "migrate", "--run-syncdb"),
        ("manage.py", "sign_up", "ada"),
        ("manage.py", "runserver", "--noreload", "0"),
    ),
}


@pytest.fixture
def serve() -> Iterator[Callable[[Commands], str]]:
    """Starts a server and gives its address; it is gone after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(commands: Commands) -> str:
        process = subprocess.Popen(
            [sys.executable, *commands.serve],
            cwd=commands.folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if found := ADDRESS.search(line):
                return found.group()
        raise AssertionError("".join(printed))

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)


def run(arguments: tuple[str, ...], folder: Path) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def ask(address: str, token: str) -> tuple[int, Any]:
    headers = {
        "Authorization": f"Bearer {token}",
        "Idempotency-Key": "1",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(f"{address}/answers", b'{"question": "Why?"}', headers)  # noqa: S310  a test's own
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:  # noqa: S310
        return answer.status, json.load(answer)


def status_of_two_keys(address: str, token: str) -> int:
    """Return what a request with two different keys is answered with."""
    link = http.client.HTTPConnection(address.removeprefix("http://"), timeout=DEADLINE_SECONDS)
    body = b'{"question": "Which?"}'
    link.putrequest("POST", "/answers")
    for header in (
        ("Authorization", f"Bearer {token}"),
        ("Idempotency-Key", "2"),
        ("Idempotency-Key", "3"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ):
        link.putheader(*header)
    link.endheaders(body)
    try:
        return link.getresponse().status
    finally:
        link.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_customer_signs_up_and_is_served(
    name: str,
    app_environment: pytest.MonkeyPatch,
    running_worker: object,
    serve: Callable[[Commands], str],
) -> None:
    assert app_environment
    assert running_worker
    commands = COMMANDS[name]
    if commands.prepare:
        run(commands.prepare, commands.folder)
    token = run(commands.sign_up, commands.folder)
    address = serve(commands)

    first, again = ask(address, token), ask(address, token)
    two_keys = status_of_two_keys(address, token)

    assert first == again
    assert two_keys in {400, 422}
    assert first[0] == 200
    assert (first[1]["answer"], first[1]["credits_left"]) == ("Why? 42.", 15)
