"""Webhooks of the clients without servers: endpoints hear of what happens, and receivers can be tried with it."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from creditlane import (
    AccountClosed,
    ConfigurationError,
    InsufficientBalance,
    InvalidCommand,
    Settings,
    WebhookDisabled,
    WebhookLimitReached,
    WebhookNotFound,
)
from creditlane.schemas.webhooks import MAX_ENDPOINTS
from creditlane.testing import AsyncFakeClient, FakeClient, FakeClock, FakeLedger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
URL = "https://example.com/hook"


@pytest.fixture
def client() -> FakeClient:
    return FakeClient(ledger=FakeLedger(FakeClock(NOON)))


def types_of(client: FakeClient, webhook_id: str | None) -> list[str | None]:
    return [delivery.event_type for delivery in client.webhooks.deliveries(webhook_id)]


def test_an_endpoint_hears_of_what_it_wants(client: FakeClient) -> None:
    every, low = client.webhooks.create(url=URL), client.webhooks.create(url=URL, events=["balance.low"])
    off = client.webhooks.create(url=URL)
    client.webhooks.update(off.id, status="disabled")
    account = client.open_account(customer_id="ann", initial_balance=10)
    client.set_low_balance(account.id, 8)

    client.debit(account.id, 3, reference="order", idempotency_key="k")
    client.debit(account.id, 1, reference="order", idempotency_key="below already")
    with pytest.raises(InsufficientBalance):
        client.debit(account.id, 30, reference="order", idempotency_key="too much")
    client.debit(account.id, 3, reference="order", idempotency_key="k")
    client.freeze(account.id)

    assert sorted(map(str, types_of(client, every.id))) == [
        "account.created",
        "account.frozen",
        "account.limit_changed",
        "balance.low",
        "command.rejected",
        "credits.consumed",
        "credits.consumed",
        "credits.granted",
    ]
    assert types_of(client, low.id) == ["balance.low"]
    assert types_of(client, off.id) == []
    (delivery,) = client.webhooks.deliveries(low.id)
    body = json.loads(client.webhooks.delivery(low.id, delivery.event_id).body or "")
    assert (body["eventType"], body["object"]["threshold_minor_units"], body["sequence"]) == ("balance.low", "8", 3)
    assert (delivery.status, delivery.attempts) == ("pending", 0)


def test_sequences_count_every_decision_of_an_account_on(client: FakeClient) -> None:
    every = client.webhooks.create(url=URL)
    ann, bob = (client.open_account(customer_id=name, initial_balance=10) for name in ("ann", "bob"))
    client.freeze(ann.id)
    client.unfreeze(ann.id)
    entries = [{"account_id": ann.id, "side": side, "amount": 1} for side in ("debit", "credit")]
    client.post([*entries, *entries], reference="r", idempotency_key="post")
    client.freeze(bob.id)

    bodies = [
        json.loads(client.webhooks.delivery(every.id, delivery.event_id).body or "")
        for delivery in client.webhooks.deliveries(every.id)
    ]
    sequences = sorted(body["sequence"] for body in bodies if ann.id in body["object"].values())
    # The opening makes two events: of an account, and of a grant.
    assert sequences == [1, 1, 2, 3, 4, 5, 6, 7]


def test_a_callback_says_what_became_of_its_command_once(client: FakeClient) -> None:
    account = client.open_account(customer_id="ann", initial_balance=10)
    for _ in range(2):
        client.debit(account.id, 3, reference="r", idempotency_key="k", callback_url=URL)
    with pytest.raises(InsufficientBalance):
        client.debit(account.id, 30, reference="r", idempotency_key="too much", callback_url=URL)

    assert types_of(client, None) == ["command.rejected", "command.applied"]
    assert {delivery.url for delivery in client.webhooks.deliveries(None)} == {URL}


def test_delivering_without_what_signs_says_which_extra_has_it(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "creditlane.worker.webhooks.signing", raising=False)
    monkeypatch.setitem(sys.modules, "standardwebhooks.webhooks", None)

    with pytest.raises(ConfigurationError, match=r"creditlane\[worker\]"):
        client.webhooks.deliver(lambda *_: 204)


def test_a_receiver_is_handed_what_is_pending_and_can_verify_it(client: FakeClient) -> None:
    """Given a clock that is far from the real one, then signatures are made now: receivers refuse old ones."""
    made = client.webhooks.create(url=URL)
    client.open_account(customer_id="ann", initial_balance=10)
    client.webhooks.rotate_secret(made.id)
    received: list[str] = []

    def receive(headers: dict[str, str], body: bytes) -> int:
        event = Verifier(made.secret or "").verify(body, headers)
        received.append(event["eventType"])
        return 204 if event["eventType"] == "account.created" else 500

    done = client.webhooks.deliver(receive)

    assert received == ["account.created", "credits.granted"]
    assert [(each.status, each.response_status, each.attempts) for each in done] == [
        ("delivered", 204, 1),
        ("failed", 500, 1),
    ]
    assert client.webhooks.deliver(receive) == []
    assert client.webhooks.resend_failed(made.id, since=client.ledger.clock.now()) == 1
    assert len(client.webhooks.deliver(lambda *_: 200)) == 1
    assert {delivery.status for delivery in client.webhooks.deliveries(made.id)} == {"delivered"}
    again = client.webhooks.resend(made.id, done[0].event_id)
    assert (again.status, again.attempts) == ("pending", 0)
    assert client.webhooks.resend_failed(made.id, since=client.ledger.clock.now() + timedelta(days=1)) == 0


def test_a_test_event_can_be_delivered_and_callbacks_are_signed_too(client: FakeClient) -> None:
    made = client.webhooks.create(url=URL)
    event_id = client.webhooks.send_test(made.id)
    secret = client.webhooks.rotate_callback_secret()
    client.open_account(customer_id="ann", callback_url=URL)
    verified: list[str] = []

    def receive(headers: dict[str, str], body: bytes) -> int:
        kind = json.loads(body)["eventType"]
        Verifier(secret if kind.startswith("command.") else made.secret or "").verify(body, headers)
        verified.append(kind)
        return 200

    client.webhooks.deliver(receive)

    assert sorted(verified) == ["account.created", "command.applied", "webhook.test"]
    assert client.webhooks.delivery(made.id, event_id).status == "delivered"


def test_what_a_deleted_endpoint_has_not_got_fails_and_a_disabled_one_gets_nothing(client: FakeClient) -> None:
    made = client.webhooks.create(url=URL)
    event_id = client.webhooks.send_test(made.id)
    client.webhooks.update(made.id, status="disabled")

    with pytest.raises(WebhookDisabled):
        client.webhooks.send_test(made.id)
    with pytest.raises(WebhookDisabled):
        client.webhooks.resend(made.id, event_id)
    with pytest.raises(WebhookDisabled):
        client.webhooks.resend_failed(made.id, since=client.ledger.clock.now())
    client.webhooks.delete(made.id)

    failed = client.webhooks.delivery(made.id, event_id)
    assert (failed.status, failed.error, failed.next_attempt_at) == ("failed", "the endpoint was deleted", None)
    with pytest.raises(WebhookNotFound):
        list(client.webhooks.deliveries(made.id))


def test_deliveries_are_read_in_part(client: FakeClient) -> None:
    made = client.webhooks.create(url=URL)
    ids = []
    for _ in range(5):
        client.ledger.clock.advance(seconds=1)
        ids.append(client.webhooks.send_test(made.id))

    assert [each.event_id for each in client.webhooks.deliveries(made.id, limit=2)] == ids[:2:-1]
    assert list(client.webhooks.deliveries(made.id, status="failed")) == []
    assert list(client.webhooks.deliveries(made.id, limit=0)) == []


def test_a_store_has_so_many_endpoints_and_each_store_its_own(client: FakeClient) -> None:
    for _ in range(MAX_ENDPOINTS):
        client.webhooks.create(url=URL)

    with pytest.raises(WebhookLimitReached):
        client.webhooks.create(url=URL)
    assert FakeClient(Settings(store="store_other"), ledger=client.ledger).webhooks.list() == []


def test_a_threshold_is_judged_as_the_real_one(client: FakeClient) -> None:
    account = client.open_account(customer_id="ann")

    assert [client.set_low_balance(account.id, each).low_balance for each in (100, "7", 0, None)] == [100, 7, 0, None]
    for wrong in (-1, "1.5", 1.5, True, ""):
        with pytest.raises(InvalidCommand):
            client.set_low_balance(account.id, wrong)  # type: ignore[arg-type]
    client.close_account(account.id)
    with pytest.raises(AccountClosed):
        client.set_low_balance(account.id, 1)


async def test_the_asynchronous_kind_reads_the_same() -> None:
    client = AsyncFakeClient()
    made = await client.webhooks.create(url=URL)
    await client.webhooks.send_test(made.id)

    assert [delivery.event_type async for delivery in client.webhooks.deliveries(made.id)] == ["webhook.test"]
    assert [each.status for each in await client.webhooks.deliver(lambda *_: 200)] == ["delivered"]
