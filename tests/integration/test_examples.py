"""Each app takes credits in a request, once however often it is repeated; the receiver takes what is signed."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from creditlane import Client, Settings
from creditlane.worker.webhooks.rounds import deliver_round

EXAMPLES = Path(__file__).parents[2] / "examples"


class Answer(NamedTuple):
    status: int
    body: Any


#: Posts to the path with the headers.
Post = Callable[[str, dict[str, str]], Answer]


def load(name: str) -> ModuleType:
    """Import an example under its own name, as its server would."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def fastapi_app() -> Iterator[Post]:
    from fastapi.testclient import TestClient

    with TestClient(load("fastapi_app").app) as client:

        def post(path: str, headers: dict[str, str]) -> Answer:
            answer = client.post(path, headers=headers)
            return Answer(answer.status_code, answer.json())

        yield post


def flask_app() -> Iterator[Post]:
    app = load("flask_app").create_app()

    def post(path: str, headers: dict[str, str]) -> Answer:
        answer = app.test_client().post(path, headers=headers)
        return Answer(answer.status_code, answer.get_json(silent=True) or answer.text)

    yield post
    app.extensions["creditlane"].close()


def django_app() -> Iterator[Post]:
    module = load("django_app")
    import django
    from django.test import Client as DjangoClient

    django.setup()

    def post(path: str, headers: dict[str, str]) -> Answer:
        answer = DjangoClient().post(path, headers=headers)
        is_json = answer.headers["content-type"] == "application/json"
        return Answer(answer.status_code, answer.json() if is_json else answer.content.decode())

    yield post
    module.ledger().close()


@pytest.fixture(params=[fastapi_app, flask_app, django_app], ids=lambda example: example.__name__)
def post(
    request: pytest.FixtureRequest,
    settings: Settings,
    environment_of: Callable[[Settings], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Post]:
    """The app of each example in turn, behind its own test client, on this test's stack."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    yield from request.param()


def test_a_request_takes_its_price_once(post: Post, settings: Settings, running_worker: object) -> None:
    assert running_worker
    with Client(settings) as client:
        account = client.open_account(customer_id="c", initial_balance=9).id
        first = post("/answers", {"X-Account": account, "Idempotency-Key": "1"})
        again = post("/answers", {"X-Account": account, "Idempotency-Key": "1"})
        poor = post("/answers", {"X-Account": account, "Idempotency-Key": "2"})
        client.freeze(account)
        frozen = post("/answers", {"X-Account": account, "Idempotency-Key": "3"})

        assert client.balance(account) == 4
        assert next(iter(client.entries(account))).reference == "/answers"

    assert first == again == Answer(200, {"answer": 42, "credits_left": 4})
    assert poor.status == 402
    assert "credits" in str(poor.body)
    assert frozen.status == 409


@pytest.fixture
def start_receiver() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts the receiver of webhooks with a secret, on a free port; it is gone after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(secret: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": "0"}
        command = [sys.executable, str(EXAMPLES / "webhook_receiver.py")]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate()


def test_the_receiver_takes_what_is_signed_and_nothing_else(
    settings: Settings, start_receiver: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    settings = settings.model_copy(update={"webhook_allowed_networks": "loopback"})
    with Client(settings) as client:
        made = client.webhooks.create(url="http://127.0.0.1:9000/")
        process = start_receiver(str(made.secret))
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().split()[-1]}/"
        client.webhooks.update(made.id, url=url)
        stranger = client.webhooks.create(url=url)
        sent, forged = client.webhooks.send_test(made.id), client.webhooks.send_test(stranger.id)

        deliver_round(settings)

        assert (client.webhooks.delivery(made.id, sent).response_status) == 204
        assert (client.webhooks.delivery(stranger.id, forged).response_status) == 400
        assert process.stdout.readline().startswith("webhook.test None {'object': 'webhook_test'")
