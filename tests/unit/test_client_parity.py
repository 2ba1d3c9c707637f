"""The two clients read alike, load lightly, and keep secrets."""

import importlib
import inspect
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from creditlane import AsyncClient, Client, ConfigurationError, CreditlaneError, Settings
from creditlane.producer.client._async.webhooks import AsyncWebhooks
from creditlane.producer.client._sync.webhooks import Webhooks

HEAVY = ("psycopg", "psycopg_pool", "sqlalchemy", "alembic", "rq", "fastapi", "typer", "rich")


#: The modules that each client has of its own, by hand; the rest of the blocking one is generated.
BY_HAND = ("concurrency", "redis_socket")


def public_methods(kind: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


METHODS = [(kind, name) for kind in (Client, AsyncClient, Webhooks, AsyncWebhooks) for name in public_methods(kind)]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_every_public_method_states_its_contract(kind: type, name: str) -> None:
    assert inspect.getdoc(getattr(kind, name))


def test_the_blocking_client_says_nothing_of_event_loops() -> None:
    for kind in (Client, Webhooks):
        texts = [inspect.getdoc(kind), *map(inspect.getdoc, public_methods(kind).values())]
        assert not re.search(r"async|await\b|event loop|\btask", " ".join(text or "" for text in texts))


@pytest.mark.parametrize("module", BY_HAND)
def test_what_is_written_by_hand_has_the_same_face_in_both_clients(module: str) -> None:
    blocking, asynchronous = (
        importlib.import_module(f"creditlane.producer.client.{kind}.{module}") for kind in ("_sync", "_async")
    )

    assert own_face(blocking) == own_face(asynchronous)


def own_face(module: ModuleType) -> dict[str, list[str]]:
    """Return the public functions, classes and methods that the module defines, with the names of their parameters."""
    face: dict[str, list[str]] = {}
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        face[name] = list(inspect.signature(member).parameters)
        if inspect.isclass(member):
            face |= {
                f"{name}.{method}": list(inspect.signature(function).parameters)
                for method, function in vars(member).items()
                if inspect.isfunction(function) and not method.startswith("_")
            }
    return face


def test_importing_the_client_loads_no_database_driver_and_no_web_package() -> None:
    program = f"import creditlane, sys; print([name for name in {HEAVY!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_no_representation_or_message_shows_a_secret() -> None:
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
