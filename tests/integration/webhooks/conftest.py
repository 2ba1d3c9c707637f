"""A ledger with news, a receiver, and rounds of deliveries that may reach loopback."""

from collections.abc import Callable, Iterator

import pytest

from creditlane.schemas.settings import Settings
from creditlane.worker.webhooks import rounds

from .news import Newsroom
from .receiver import Receiver


@pytest.fixture
def newsroom(database_url: str) -> Iterator[Newsroom]:
    with Newsroom(database_url) as newsroom:
        yield newsroom


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def sending(settings: Settings) -> Settings:
    """Settings of a sender that may reach the receiver, and waits so long that nothing times out by accident."""
    return settings.model_copy(update={"webhook_allowed_networks": "loopback", "webhook_timeout_seconds": 20.0})


@pytest.fixture
def deliver(sending: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, int]]:
    """Runs one round, which ends when nothing is left to do."""
    monkeypatch.setattr(rounds, "IDLE_SECONDS", 0.15)
    return lambda: rounds.deliver_round(sending)
