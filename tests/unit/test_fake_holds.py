"""Holds of the clients without servers: they end when the test's clock has come there, and endpoints hear of it all."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from creditlane import CaptureExceedsHold, Debit, HoldExpired, InsufficientBalance, Settings
from creditlane.testing import FakeClient, FakeClock, FakeLedger

from ..described_events import assert_described

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
URL = "https://example.com/hook"


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger(FakeClock(NOON))


@pytest.fixture
def client(ledger: FakeLedger) -> FakeClient:
    return FakeClient(ledger=ledger)


def hold(client: FakeClient, account_id: str, key: str = "hold", amount: int = 60, seconds: int = 900) -> str:
    held = client.hold(account_id, amount, reference="call", idempotency_key=key, expires_in_seconds=seconds)
    return held.id


def test_a_hold_ends_by_itself_when_the_clock_has_come_there(client: FakeClient, ledger: FakeLedger) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100)
    held = client.hold_by_id(hold(client, account.id))

    ledger.clock.move_to(held.expires_at - timedelta(microseconds=1))
    before = client.hold_by_id(held.id)
    ledger.clock.move_to(held.expires_at)
    after = client.hold_by_id(held.id)

    assert (before.status, before.remaining) == ("open", 60)
    assert (after.status, after.remaining, after.ended_at) == ("expired", 0, held.expires_at)
    assert (client.account(account.id).held, client.account(account.id).available) == (0, 100)
    assert list(client.holds(account.id, status="open")) == []
    with pytest.raises(HoldExpired):
        client.capture(held.id, idempotency_key="capture")
    client.close_account(account.id)


def test_what_has_ended_while_nothing_was_decided_is_not_held_either(client: FakeClient, ledger: FakeLedger) -> None:
    """Given a hold whose end comes while the ledger is paused, then it reads as expired, and so it does after."""
    account = client.open_account(customer_id="ann", initial_balance=100)
    first = hold(client, account.id)
    ledger.pause()
    ledger.clock.advance(hours=1)

    paused = client.hold_by_id(first)
    assert (paused.status, client.account(account.id).held) == ("expired", 0)

    ledger.resume()
    assert client.hold_by_id(first) == paused


def test_a_scheduled_debit_takes_what_a_hold_has_released_before_it(client: FakeClient, ledger: FakeLedger) -> None:
    """Given debits that are due before and after the end of a hold, when the clock passes all of that at once, then
    each meets what was available at its time."""
    account = client.open_account(customer_id="ann", initial_balance=100)
    hold(client, account.id)
    early, late = (Debit(account_id=account.id, amount=50, reference="r", idempotency_key=key) for key in "el")
    client.schedule(early, at=NOON + timedelta(seconds=899))
    client.schedule(late, at=NOON + timedelta(seconds=901))

    ledger.clock.advance(hours=1)

    assert client.balance(account.id) == 50
    with pytest.raises(InsufficientBalance):
        client.debit(account.id, 50, reference="r", idempotency_key="e")
    assert client.debit(account.id, 50, reference="r", idempotency_key="l").replayed


def test_endpoints_hear_of_what_becomes_of_holds(client: FakeClient, ledger: FakeLedger) -> None:
    """Given holds that are captured in parts, extended, voided and left alone, then each of that is sent as it is
    documented, in the order of the account's sequence."""
    endpoint = client.webhooks.create(url=URL)
    account = client.open_account(customer_id="ann", initial_balance=100)
    captured, voided, left = (hold(client, account.id, key, 20) for key in ("captured", "voided", "left"))
    client.extend(left, expires_in_seconds=60)
    client.capture(captured, 5, idempotency_key="1", final=False)
    client.capture(captured, 10, idempotency_key="2", reference="other")
    client.void(voided)
    ledger.clock.advance(hours=1)

    sent = sorted(events(client, endpoint.id), key=lambda event: (event["sequence"], event["eventType"]))
    assert_described(sent)
    assert [event["sequence"] for event in sent] == [1, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 9]
    assert [facts(event) for event in sent if event["eventType"].startswith("hold.")] == [
        ("hold.created", captured, "20", "20"),
        ("hold.created", voided, "20", "40"),
        ("hold.created", left, "20", "60"),
        ("hold.extended", left, None, "60"),
        ("hold.captured", captured, "5", "55"),
        ("hold.captured", captured, "10", "40"),
        ("hold.voided", voided, "20", "20"),
        ("hold.expired", left, "20", "0"),
    ]
    first, last = (event["object"] for event in sent if event["eventType"] == "hold.captured")
    assert (first["remaining_minor_units"], last["remaining_minor_units"]) == ("15", "0")
    assert (first["reference"], last["reference"], last["balance_after_minor_units"]) == ("call", "other", "85")
    consumed = [event["object"]["id"] for event in sent if event["eventType"] == "credits.consumed"]
    assert consumed == [first["transaction_id"], last["transaction_id"]]


def test_the_result_of_a_hold_is_called_back_with_its_id(client: FakeClient) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100)

    held = client.hold(account.id, 1, reference="call", idempotency_key="k", callback_url="https://example.com/result")

    (event,) = events(client, None)
    assert_described([event])
    assert (event["eventType"], event["object"]["kind"], event["object"]["hold_id"]) == (
        "command.applied",
        "hold",
        held.id,
    )


def test_stores_of_one_ledger_see_no_holds_of_each_other(client: FakeClient, ledger: FakeLedger) -> None:
    other = FakeClient(Settings(store="store_b"), ledger=ledger)
    account = client.open_account(customer_id="ann", initial_balance=100)
    held = hold(client, account.id)

    for identifier in (held, held + "f"):
        with pytest.raises(Exception, match="There is no such") as caught:
            other.void(identifier)
        assert caught.value.code == "account_not_found"  # type: ignore[attr-defined]
    assert client.hold_by_id(held).status == "open"


def test_a_dry_run_says_what_would_become_of_a_hold_and_leaves_it_as_it_is(client: FakeClient) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100)

    would_be = client.hold(account.id, 60, reference="call", idempotency_key="k", dry_run=True)
    assert (would_be.id, would_be.status, would_be.remaining) == ("", "open", 60)
    assert list(client.holds(account.id)) == []

    held = client.hold_by_id(hold(client, account.id))
    assert client.void(held.id, dry_run=True).status == "voided"
    assert client.extend(held.id, expires_in_seconds=1, dry_run=True).expires_at < held.expires_at
    assert client.capture(held.id, 25, idempotency_key="c", dry_run=True).balance == 75
    with pytest.raises(CaptureExceedsHold):
        client.capture(held.id, 61, idempotency_key="c", dry_run=True)
    assert client.hold_by_id(held.id) == held
    assert (client.account(account.id).balance, client.account(account.id).held) == (100, 60)


def events(client: FakeClient, webhook_id: str | None) -> list[dict[str, Any]]:
    found = [client.webhooks.delivery(webhook_id, each.event_id) for each in client.webhooks.deliveries(webhook_id)]
    return [json.loads(each.body or "") for each in found]


def facts(event: dict[str, Any]) -> tuple[str, str, str | None, str]:
    what = event["object"]
    return event["eventType"], what["id"], what.get("amount_minor_units"), what["held_after_minor_units"]
