"""A callback goes from either client over the lane into the outbox, and whoever delivers is woken."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from creditlane import Client, Credit, Debit, InvalidCommand, OpenAccount, Settings
from creditlane.lanes.keys import Keys

from .outbox_reading import read_outbox, subscribe

DEADLINE_SECONDS = 60.0
URL = "https://example.com/hook"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def callbacks_of(settings: Settings) -> list[dict[str, Any]]:
    return [callback for row in read_outbox(settings.require_database_url()) for callback in row.callbacks or ()]


@pytest.mark.usefixtures("running_worker")
def test_every_way_to_send_a_command_takes_a_callback(client: Client, settings: Settings) -> None:
    ann = client.open_account(customer_id="ann", initial_balance=9, idempotency_key="open", callback_url=f"{URL}/open")
    bob = client.open_account(customer_id="bob")
    moved = {"reference": "r", "callback_url": URL}
    client.credit(ann.id, 5, idempotency_key="credit", **moved)
    client.debit(ann.id, 5, idempotency_key="debit", **moved)
    entries = [
        {"account_id": ann.id, "side": "debit", "amount": 2},
        {"account_id": bob.id, "side": "credit", "amount": 2},
    ]
    client.post(entries, idempotency_key="post", **moved)
    client.wait(client.enqueue(Debit(account_id=ann.id, amount=1, idempotency_key="queued", **moved)))  # type: ignore[arg-type]
    tickets = client.enqueue_many([Credit(account_id=ann.id, amount=1, idempotency_key="many", **moved)])  # type: ignore[arg-type]
    assert [result.status for result in client.wait_many(tickets)] == ["applied"]

    callbacks = callbacks_of(settings)

    assert [(each["idempotency_key"], each["seq"], each["sequence"]) for each in callbacks] == [
        ("open", 1, 1),
        ("credit", 2, 2),
        ("debit", 3, 3),
        ("post", 4, 4),
        ("queued", 5, 5),
        ("many", 6, 6),
    ]
    assert [each["url"] for each in callbacks] == [f"{URL}/open"] + [URL] * 5
    assert all(each["account_id"] == ann.id and each["refusal"] is None for each in callbacks)


@pytest.mark.usefixtures("running_worker")
def test_a_retry_with_another_callback_is_the_same_request(client: Client, settings: Settings) -> None:
    ann = client.open_account(customer_id="ann", initial_balance=9)
    first = Debit(account_id=ann.id, amount=5, reference="r", idempotency_key="d")
    tickets = [
        client.enqueue(command)
        for command in (first, *(first.model_copy(update={"callback_url": f"{URL}/{n}"}) for n in range(2)))
    ]

    results = [client.wait(str(ticket)) for ticket in tickets]

    assert [result.status for result in results] == ["applied"] * 3
    assert len({result.transaction_id for result in results}) == 1
    assert [client.result(ticket).status for ticket in tickets] == ["applied"] * 3
    # The key's first result answers for all three; what comes after them on the lane is decided after them.
    assert client.credit(ann.id, 1, reference="r", idempotency_key="barrier").balance == 5
    assert [each["url"] for each in callbacks_of(settings)] == [f"{URL}/0", f"{URL}/1"]


def test_a_bad_callback_is_refused_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(InvalidCommand, match="callback_url: must be an absolute") as refusal:
        client.debit("cca_" + "a" * 32, 1, reference="r", idempotency_key="k", callback_url="ftp://example.com/")

    assert refusal.value.field == "callback_url"


def test_a_worker_wakes_who_delivers_when_there_are_outbox_rows_and_not_before(
    settings: Settings, redis_url: str, start_worker: Callable[[], Any]
) -> None:
    key = Keys(settings.redis_prefix).wake_deliveries
    start_worker()
    with Client(settings) as client, redis.Redis.from_url(redis_url) as wire:
        quiet = client.wait(client.enqueue(OpenAccount(customer_id="ann")))
        assert (quiet.status, wire.exists(key)) == ("applied", 0)
        subscribe(settings.require_database_url())
        client.wait(client.enqueue(OpenAccount(customer_id="bob")))
        client.wait(client.enqueue(OpenAccount(customer_id="cat")))
        assert wire.blpop([key], timeout=int(DEADLINE_SECONDS)) == (key.encode(), b"1")
    assert len(read_outbox(settings.require_database_url())) == 2
