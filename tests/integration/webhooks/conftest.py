"""A ledger whose changes are published, a receiver, and rounds of deliveries that may reach loopback."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from creditlane.schemas.settings import Settings
from creditlane.worker.webhooks import delivery_round

from ...described_events import assert_described
from .publisher import Publisher
from .receiver import Receiver

#: Events of one type that came to one receiver and are held to the document.
EXAMINED_EVENTS = 10


@pytest.fixture
def publisher(database_url: str) -> Iterator[Publisher]:
    with Publisher(database_url) as publisher:
        yield publisher


def few_of_each_type(receiver: Receiver) -> list[dict[str, Any]]:
    """Return what stands for all that came: some tests send thousands."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in (each.event for each in receiver.received):
        if len(found[event["eventType"]]) < EXAMINED_EVENTS:
            found[event["eventType"]].append(event)
    return [event for events in found.values() for event in events]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that takes webhooks. Whatever comes there must be as the OpenAPI document says."""
    with Receiver() as receiver:
        yield receiver
    assert_described(few_of_each_type(receiver))


@pytest.fixture
def sending(settings: Settings) -> Settings:
    """Settings of a sender that may reach the receiver, and waits so long that nothing times out by accident."""
    return settings.model_copy(update={"webhook_allowed_networks": "loopback", "webhook_timeout_seconds": 20.0})


@pytest.fixture
def deliver(sending: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, int]]:
    """Runs one round, which ends when nothing is left to do."""
    monkeypatch.setattr(delivery_round, "IDLE_SECONDS", 0.15)
    return lambda: delivery_round.deliver_round(sending)
