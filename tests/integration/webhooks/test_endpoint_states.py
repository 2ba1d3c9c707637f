"""Endpoints that fail for long, are disabled, paused, or change their secret."""

from collections.abc import Callable

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from creditlane.schemas.commands import Freeze, OpenAccount, Unfreeze
from creditlane.schemas.errors import TargetRefused
from creditlane.schemas.events import new_secret
from creditlane.schemas.settings import Settings
from creditlane.worker.webhooks.delivery_round import deliver_round

from .publisher import Publisher
from .receiver import Receiver, plain

Deliver = Callable[[], dict[str, int]]

BOB = "cca_" + "b" * 32
OPEN_BOB = OpenAccount(account_id=BOB, idempotency_key="open bob", customer_id="bob")
FREEZE = Freeze(account_id=BOB, idempotency_key="freeze")


def since(publisher: Publisher, interval: str) -> None:
    """Let every failing endpoint have failed for so long."""
    publisher.database.execute(
        "update webhook_endpoints set failing_since = now() - %s::interval where failing_since is not null", [interval]
    )


def test_an_endpoint_that_fails_for_a_day_is_disabled_and_says_so(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", plain(500))
    publisher.happen(OPEN_BOB)
    deliver()
    since(publisher, "23 hours 59 minutes")
    publisher.make_due(endpoint)
    deliver()
    assert publisher.endpoint(endpoint)["status"] == 1

    since(publisher, "24 hours 1 second")
    publisher.make_due(endpoint)
    deliver()

    after = publisher.endpoint(endpoint)
    assert (after["status"], after["disabled_reason"]) == (2, "no delivery succeeded for a day")
    assert after["updated_at"] > after["created_at"]
    assert publisher.database.execute("select subscriptions_version from installation").fetchone() == (2,)
    assert "webhook endpoint disabled" in "".join(capfd.readouterr())
    publisher.make_due(endpoint)
    deliver()
    assert len(receiver.received) == 3


def test_one_success_within_the_day_begins_it_anew(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", plain(500), plain(200), plain(500))
    publisher.happen(OPEN_BOB)
    deliver()
    since(publisher, "23 hours")
    publisher.make_due(endpoint)
    deliver()
    publisher.happen(FREEZE)
    deliver()

    after = publisher.endpoint(endpoint)
    assert after["status"] == 1
    assert publisher.database.execute(
        "select failing_since > now() - interval '1 minute' from webhook_endpoints"
    ).fetchone() == (True,)


@pytest.mark.parametrize("status", [2, 3], ids=["disabled", "deleted"])
def test_what_happens_while_an_endpoint_is_off_is_not_sent_to_it(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, status: int
) -> None:
    """Given an endpoint with a delivery pending, when it is disabled, then that stays, and nothing is added until it is
    enabled again."""
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", plain(500), plain(200))
    publisher.happen(OPEN_BOB)
    deliver()

    publisher.database.execute("update webhook_endpoints set status = %s", [status])
    publisher.make_due(endpoint)
    publisher.happen(FREEZE)
    deliver()
    assert len(receiver.received) == 1
    publisher.database.execute("update webhook_endpoints set status = 1, failing_since = null")
    publisher.happen(Unfreeze(account_id=BOB, idempotency_key="unfreeze"))
    deliver()

    kinds = [each.event["eventType"] for each in receiver.received[1:]]
    assert sorted(kinds) == ["account.created", "account.unfrozen"]


def test_a_paused_endpoint_is_left_alone_until_then(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    endpoint = publisher.add_endpoint(receiver.url())
    publisher.database.execute("update webhook_endpoints set paused_until = now() + interval '1 hour'")
    publisher.happen(OPEN_BOB)

    assert deliver()["delivered"] == 0
    publisher.database.execute("update webhook_endpoints set paused_until = now()")
    assert deliver()["delivered"] == 1

    assert [row["attempts"] for row in publisher.deliveries(endpoint)] == [1]


def test_an_endpoint_that_keeps_failing_is_not_hammered(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given many events and an endpoint that has been failing for a while, when they are due, then one of them is tried
    and the others wait with it."""
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    receiver.answer("/hook", plain(500))
    publisher.happen(OPEN_BOB)
    deliver()
    since(publisher, "10 seconds")
    for number in range(20):
        publisher.happen(Freeze(account_id=BOB, idempotency_key=f"f{number}"))

    deliver()

    assert len(receiver.received) == 2
    assert 4 <= publisher.endpoint(endpoint)["pause"].total_seconds() <= 6
    attempts = [row["attempts"] for row in publisher.deliveries(endpoint)]
    assert sorted(attempts) == [0] * 19 + [1, 1]


@pytest.mark.parametrize(("until", "both"), [("1 minute", True), ("-1 second", False)])
def test_an_old_secret_signs_until_its_time_is_over(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, until: str, both: bool
) -> None:
    new, old = new_secret(), new_secret()
    publisher.add_endpoint(receiver.url(), secret=new, previous_secret=old)
    publisher.database.execute("update webhook_endpoints set previous_secret_until = now() + %s::interval", [until])
    publisher.happen(OPEN_BOB)

    deliver()

    (request,) = receiver.received
    assert Webhook(new).verify(request.body, request.headers)
    assert ("creem-signature-previous" in request.headers) == both
    if both:
        assert Webhook(old).verify(request.body, request.headers)
    else:
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(request.body, request.headers)


def test_nothing_is_sent_inside_unless_the_operator_allows_it(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, settings: Settings
) -> None:
    """Given the settings as they are by default, when an event is due to an endpoint on loopback, then it fails."""
    endpoint = publisher.add_endpoint(receiver.url())
    publisher.happen(OPEN_BOB)

    done = deliver_round(settings)

    (row,) = publisher.deliveries(endpoint)
    assert (done["failed"], row["status"], row["response_status"]) == (1, 1, None)
    assert row["error"] == TargetRefused().message
    assert receiver.connections == 0
    publisher.make_due(endpoint)
    assert deliver()["delivered"] == 1


def test_nothing_is_sent_into_a_network_that_the_operator_denies(
    publisher: Publisher, receiver: Receiver, sending: Settings
) -> None:
    """Given loopback is allowed and denied, when an event is due to an endpoint there, then it fails."""
    endpoint = publisher.add_endpoint(receiver.url())
    publisher.happen(OPEN_BOB)

    done = deliver_round(sending.model_copy(update={"webhook_denied_networks": "loopback"}))

    (row,) = publisher.deliveries(endpoint)
    assert (done["failed"], row["error"], receiver.connections) == (1, TargetRefused().message, 0)
