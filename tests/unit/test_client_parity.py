"""The two clients read alike, load lightly, and keep secrets."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

from creditlane import AsyncClient, Client, ConfigurationError, CreditlaneError, Settings
from creditlane.producer.client._async.webhooks import AsyncWebhooks
from creditlane.producer.client._sync.webhooks import Webhooks

HEAVY = ("psycopg", "psycopg_pool", "sqlalchemy", "alembic", "rq", "fastapi", "typer", "rich")


def public_methods(kind: type) -> dict[str, Any]:
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


TWINS = ((Client, AsyncClient), (Webhooks, AsyncWebhooks))
METHODS = [(*twins, name) for twins in TWINS for name in sorted(public_methods(twins[0]))]


@pytest.mark.parametrize(("kind", "twin"), TWINS)
def test_both_clients_have_the_same_public_names(kind: type, twin: type) -> None:
    assert list(public_methods(kind)) == list(public_methods(twin))


@pytest.mark.parametrize(("kind", "twin", "name"), METHODS)
def test_both_clients_take_the_same_parameters(kind: type, twin: type, name: str) -> None:
    def parameters(owner: type) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(getattr(owner, name))
        return [(parameter.name, parameter.kind, parameter.default) for parameter in signature.parameters.values()]

    assert parameters(kind) == parameters(twin)


@pytest.mark.parametrize(("kind", "twin", "name"), METHODS)
def test_every_public_method_states_its_contract(kind: type, twin: type, name: str) -> None:
    for owner in (kind, twin):
        assert inspect.getdoc(getattr(owner, name))


def test_importing_the_client_loads_no_database_driver_and_no_web_package() -> None:
    program = f"import creditlane, sys; print([name for name in {HEAVY!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_no_representation_or_message_tells_a_secret() -> None:
    settings = Settings(redis_url="redis://:hunter2@localhost:x/0", database_url="postgresql//u:hunter2@localhost/db")

    with pytest.raises(ConfigurationError) as caught:
        Client(settings).pending("cca_" + "0" * 32)

    assert "hunter2" not in repr(Client(settings)) + repr(AsyncClient(settings)) + str(caught.value)


def test_a_client_without_a_redis_url_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="CREDITLANE_REDIS_URL is not set"):
        Client(Settings()).pending("cca_" + "0" * 32)


def test_a_closed_client_says_so() -> None:
    client = Client(Settings(redis_url="redis://localhost:1/0"))
    client.close()
    client.close()

    with pytest.raises(CreditlaneError, match="closed"):
        client.balance("cca_" + "0" * 32)


def test_from_env_puts_its_arguments_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITLANE_STORE", "store_env")
    monkeypatch.setenv("CREDITLANE_REDIS_URL", "redis://localhost:1/0")

    client = Client.from_env(store="store_mine")

    assert (client.settings.store, client.settings.redis_url) == ("store_mine", "redis://localhost:1/0")
    with pytest.raises(ConfigurationError, match="store"):
        AsyncClient.from_env(store="mine")
