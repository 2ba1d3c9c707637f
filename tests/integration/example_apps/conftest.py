"""Each example of an app behind one face, on this test's stack, with a database of its own."""

import asyncio
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from creditlane import AsyncClient, Client, Settings

from ...roles import settings_of
from ...tcp_link import TcpLink, redis_address

EXAMPLES = Path(__file__).parents[3] / "examples"

#: How long a result may take, in seconds; the machine may be busy.
DEADLINE_SECONDS = 60.0

Work = Callable[[str], str]


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class App(NamedTuple):
    """An example that runs."""

    #: Posts these bytes with these headers; from any thread.
    send: Callable[[bytes, dict[str, str]], Answer]
    #: Runs the example's own command and returns what it printed.
    command: Callable[..., str]
    #: Has this done instead of the example's work.
    set_work: Callable[[Work], None]
    #: Lets purchases count as abandoned when their claim ended so many seconds ago.
    set_abandoned: Callable[[float], None]
    #: Lets a claim last so many seconds.
    set_claim: Callable[[float], None]
    #: The app's client.
    ledger: Client | AsyncClient

    def sign_up(self, customer: str) -> str:
        """Return a token."""
        return self.command("sign-up", customer)

    def set_wait_timeout(self, seconds: float) -> None:
        """Wait so long for results of the ledger."""
        self.ledger.settings = self.ledger.settings.model_copy(update={"wait_timeout_seconds": seconds})

    def ask(self, token: str, key: str, question: bytes = b'{"question": "Why?"}') -> Answer:
        return self.send(question, {"Authorization": f"Bearer {token}", "Idempotency-Key": key})


def fastapi_app(patch: pytest.MonkeyPatch) -> Iterator[App]:
    from fastapi.testclient import TestClient

    module, purchases = importlib.import_module("fastapi_app"), importlib.import_module("purchases")

    def command(*arguments: str) -> str:
        with redirect_stdout(StringIO()) as output:
            asyncio.run(module.main(list(arguments)))
        return output.getvalue().strip()

    def set_work(work: Work) -> None:
        async def in_a_thread(question: str) -> str:
            return await asyncio.to_thread(work, question)

        patch.setattr(module, "work", in_a_thread)

    with TestClient(module.app) as client:

        def send(body: bytes, headers: dict[str, str]) -> Answer:
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = client.post("/answers", content=body, headers={"Content-Type": b"application/json", **encoded})
            return Answer(answer.status_code, answer.json(), {**answer.headers})

        yield App(
            send,
            command,
            set_work,
            lambda seconds: patch.setattr(purchases, "ABANDONED_SECONDS", seconds),
            lambda seconds: patch.setattr(purchases, "CLAIM_SECONDS", seconds),
            client.app_state["shop"].ledger,
        )


def flask_app(patch: pytest.MonkeyPatch) -> Iterator[App]:
    module, purchases = importlib.import_module("flask_app"), importlib.import_module("purchases")
    app = module.create_app()

    def command(*arguments: str) -> str:
        ran = app.test_cli_runner().invoke(args=arguments)
        assert ran.exit_code == 0, ran.output
        return str(ran.output).strip()

    def send(body: bytes, headers: dict[str, str]) -> Answer:
        answer = app.test_client().post("/answers", data=body, headers=headers)
        return Answer(answer.status_code, answer.get_json(), {k.lower(): v for k, v in answer.headers.items()})

    yield App(
        send,
        command,
        lambda work: patch.setattr(module, "work", work),
        lambda seconds: patch.setattr(purchases, "ABANDONED_SECONDS", seconds),
        lambda seconds: patch.setattr(purchases, "CLAIM_SECONDS", seconds),
        app.extensions["shop"].ledger,
    )
    app.extensions["shop"].ledger.close()


def django_app(patch: pytest.MonkeyPatch) -> Iterator[App]:
    import django
    from django.core.management import call_command
    from django.db import connections
    from django.test import Client as Browser

    patch.syspath_prepend(EXAMPLES / "django_app")
    patch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    django.setup()
    # Django reads its settings once in a process.
    connections.databases["default"]["NAME"] = os.environ["SHOP_DATABASE"]
    selling, models = importlib.import_module("shop.selling"), importlib.import_module("shop.models")

    def command(*arguments: str) -> str:
        output = StringIO()
        call_command(arguments[0].replace("-", "_"), *arguments[1:], stdout=output)
        return output.getvalue().strip()

    def send(body: bytes, headers: dict[str, str]) -> Answer:
        try:
            answer = Browser().post(
                "/answers", body, content_type="text/plain", headers={"Host": "localhost", **headers}
            )
            return Answer(answer.status_code, answer.json(), {k.lower(): v for k, v in answer.headers.items()})
        finally:
            connections.close_all()

    call_command("migrate", run_syncdb=True, verbosity=0)
    yield App(
        send,
        command,
        lambda work: patch.setattr(selling, "work", work),
        lambda seconds: patch.setattr(models, "ABANDONED", timedelta(seconds=seconds)),
        lambda seconds: patch.setattr(models, "CLAIM", timedelta(seconds=seconds)),
        selling.ledger(),
    )
    selling.ledger().close()
    selling.ledger.cache_clear()
    connections.close_all()
    del connections["default"]


APPS = {"fastapi": fastapi_app, "flask": flask_app, "django": django_app}


@pytest.fixture
def redis_link(redis_url: str) -> Iterator[TcpLink]:
    """The app's way to Redis."""
    with TcpLink(redis_address(redis_url)) as link:
        yield link


@pytest.fixture
def app_environment(
    settings: Settings,
    redis_link: TcpLink,
    environment_of: Callable[[Settings], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> pytest.MonkeyPatch:
    """What an app finds around it: the settings of this test's stack, and where its own database goes."""
    theirs = settings_of("client", settings)
    theirs = theirs.model_copy(
        update={"redis_url": redis_link.redis_url(theirs.require_redis_url()), "wait_timeout_seconds": DEADLINE_SECONDS}
    )
    for name, value in environment_of(theirs).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.sqlite3"))
    monkeypatch.syspath_prepend(EXAMPLES)
    return monkeypatch


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest, app_environment: pytest.MonkeyPatch) -> Iterator[App]:
    """Each example in turn."""
    yield from APPS[request.param](app_environment)
