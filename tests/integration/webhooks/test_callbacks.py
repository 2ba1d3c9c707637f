"""What became of a command is sent to the URL that came with it."""

from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from creditlane.schemas.commands import Command, Credit, Debit, Freeze, OpenAccount, Reverse, Unfreeze
from creditlane.schemas.events import callback_event_id, new_secret, public_event_id
from creditlane.worker.webhooks.fan_out import origin_of
from creditlane.worker.webhooks.sql import READ_CALLBACKS

from ...query_plans import nodes_of
from .publisher import Publisher
from .receiver import Receiver, plain

Deliver = Callable[[], dict[str, int]]

BOB = "cca_" + "b" * 32
OPEN_BOB = OpenAccount(account_id=BOB, idempotency_key="open bob", customer_id="bob")
CREDIT = Credit(account_id=BOB, idempotency_key="credit", amount=10**20, reference="order")
TOO_MUCH = Debit(account_id=BOB, idempotency_key="debit", amount=10**21, reference="job")


def events(receiver: Receiver) -> list[dict[str, Any]]:
    return [each.event for each in receiver.received]


def test_an_applied_command_is_sent_with_its_result(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    publisher.happen(OPEN_BOB)
    (credit,) = publisher.happen(CREDIT, callback_url=receiver.url("/hook?by=me"))

    deliver()

    (request,) = receiver.received
    received = request.event["object"]
    assert request.path == "/hook?by=me"
    assert request.webhook_id == public_event_id(callback_event_id(1, BOB, "credit", receiver.url("/hook?by=me")))
    assert (request.event["eventType"], request.event["sequence"]) == ("command.applied", 2)
    assert received.pop("decided_at").endswith("Z")
    assert received == {
        "object": "command",
        "status": "applied",
        "account_id": BOB,
        "idempotency_key": "credit",
        "kind": "credit",
        "transaction_id": credit.transaction_id,
        "side": "credit",
        "amount": str(10**20),
        "balance": str(10**20),
        "reference": "order",
        "reversal_of": None,
        "hold_id": None,
        "error": None,
    }


def test_a_rejected_command_is_sent_with_its_error(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    publisher.happen(OPEN_BOB, CREDIT)
    (refused,) = publisher.happen(TOO_MUCH, callback_url=receiver.url())

    deliver()

    (event,) = events(receiver)
    assert (event["eventType"], event["object"]["status"]) == ("command.rejected", "rejected")
    assert refused.error is not None
    assert event["object"]["error"] == refused.error.model_dump()


def test_a_reversal_is_sent_under_the_key_that_was_given(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    _, credit = publisher.happen(OPEN_BOB, CREDIT)
    reverse = Reverse(account_id=BOB, transaction_id=str(credit.transaction_id))
    publisher.happen(reverse, callback_url=receiver.url())

    deliver()

    (event,) = events(receiver)
    assert event["object"]["idempotency_key"] == reverse.idempotency_key
    assert event["object"]["reversal_of"] == credit.transaction_id


def test_a_dead_letter_is_sent_and_so_is_what_becomes_of_it(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given a command that became a dead letter, was replayed and then applied, then both are sent, each once."""
    refusal = {"code": "dead_lettered", "message": "It could not be decided.", "details": {}}
    callback = {"url": receiver.url(), "idempotency_key": "credit", "account_id": BOB, "seq": None, "sequence": None}
    publisher.happen(OPEN_BOB)
    publisher.publish([], [{**callback, "refusal": refusal}])
    publisher.publish([], [{**callback, "refusal": refusal}])
    publisher.happen(CREDIT, callback_url=receiver.url())

    deliver()

    received = {event["eventType"]: event for event in events(receiver)}
    assert sorted(received) == ["command.applied", "command.dead_lettered"]
    assert len(receiver.received) == 2
    dead = received["command.dead_lettered"]
    assert (dead["sequence"], dead["object"]["error"], dead["object"]["decided_at"]) == (None, refusal, None)
    assert dead["object"]["idempotency_key"] == "credit"


def test_a_repeated_command_is_sent_once(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    publisher.happen(OPEN_BOB, CREDIT, callback_url=receiver.url())
    again = {"url": receiver.url(), "idempotency_key": "credit", "account_id": BOB, "seq": 1, "sequence": 2}
    publisher.publish([], [{**again, "refusal": None}])
    deliver()
    publisher.publish([], [{**again, "refusal": None}])
    deliver()

    assert [event["object"]["idempotency_key"] for event in events(receiver)].count("credit") == 1


HISTORY: list[Command] = [
    Debit(account_id=BOB, idempotency_key="too early", amount=1, reference="r"),
    OPEN_BOB,
    CREDIT,
    TOO_MUCH,
    Credit(account_id=BOB, idempotency_key="credit 2", amount=1, reference="r"),
    Credit(account_id=BOB, idempotency_key="credit 3", amount=1, reference="r"),
    Freeze(account_id=BOB, idempotency_key="freeze"),
    Debit(account_id=BOB, idempotency_key="frozen", amount=1, reference="r"),
    Unfreeze(account_id=BOB, idempotency_key="unfreeze"),
    Credit(account_id=BOB, idempotency_key="credit 4", amount=1, reference="r"),
]


SEQUENCES = {each.idempotency_key: sequence for sequence, each in enumerate(HISTORY, start=1)}


def publish_again(publisher: Publisher, url: str) -> None:
    for command in HISTORY:
        publisher.store.apply(command.model_copy(update={"callback_url": url}), careful=True)


def sequences_received(receiver: Receiver) -> dict[str, int | None]:
    return {event["object"]["idempotency_key"]: event["sequence"] for event in events(receiver)}


def test_what_was_decided_before_is_sent_with_its_number(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given a history in one batch that was sent to nobody, when each of its commands is sent again with a callback,
    then each is sent with the number it has among all decisions of the account."""
    publisher.store.apply(*HISTORY)
    publish_again(publisher, receiver.url())

    deliver()

    assert sequences_received(receiver) == SEQUENCES


def test_an_entry_among_decisions_without_a_number_is_numbered_by_their_times(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given decisions from before numbers were written down, when an entry is sent, then their times are compared."""
    publisher.happen(*HISTORY)
    publisher.database.execute("alter table journal disable trigger user")
    publisher.database.execute("update journal set entries_before = null")
    publish_again(publisher, receiver.url())

    deliver()

    moved = {each.idempotency_key for each in HISTORY if isinstance(each, Credit)}
    assert {key: sequence for key, sequence in sequences_received(receiver).items() if key in moved} == {
        key: sequence for key, sequence in SEQUENCES.items() if key in moved
    }


def test_the_number_of_a_row_is_found_among_many_decisions_by_halving(publisher: Publisher) -> None:
    """Given thousands of refusals after an entry, when its number is asked for, then few of them are read."""
    refusals = 20_000
    publisher.happen(OPEN_BOB, CREDIT)
    publisher.database.execute(
        "insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, "
        "idempotency_key, rejection, entries_before) "
        "select 1, 3, -1, -n, now(), %s, 1, 0, 'refused ' || n, 'insufficient_balance', 1 "
        "from generate_series(2, %s) as n",
        [BOB[4:], refusals],
    )
    publisher.database.execute("vacuum analyze journal")
    publisher.publish([], [{"url": "https://example.com", "idempotency_key": "credit", "account_id": BOB, "seq": 1}])
    (outbox_id,) = publisher.database.execute("select outbox_id from outbox").fetchone() or (0,)
    values = {"stores": [1], "ids": [outbox_id]}

    (record,) = publisher.database.execute(READ_CALLBACKS, values).fetchall()
    (explained,) = publisher.database.execute(f"explain (analyze, format json) {READ_CALLBACKS}".encode(), values)

    assert record[5] == 2
    reads = [node for node in nodes_of(explained[0][0]["Plan"]) if node.get("Relation Name") == "journal"]
    assert reads
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in reads) < 100


def test_callbacks_to_several_origins_fare_on_their_own(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given callbacks to two origins, one of which fails, then each has an endpoint of its own, with one secret."""
    with Receiver() as second:
        second.answer("/x", plain(500))
        publisher.happen(OPEN_BOB, callback_url=receiver.url("/a"))
        publisher.happen(CREDIT, callback_url=receiver.url("/b"))
        publisher.happen(TOO_MUCH, callback_url=second.url("/x"))

        deliver()

        origins = publisher.database.execute(
            "select url, kind, failing_since is not null from webhook_endpoints order by url = %s", [second.url("")]
        ).fetchall()
        assert origins == [(receiver.url(""), 2, False), (second.url(""), 2, True)]
        secret = publisher.database.execute("select secret from callback_secrets").fetchone()
        assert secret is not None
        for request in (*receiver.received, *second.received):
            assert Webhook(secret[0]).verify(request.body, request.headers)
        assert sorted(each.path for each in receiver.received) == ["/a", "/b"]
        assert len(second.received) == 1


def test_callbacks_are_signed_with_the_secret_of_today(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    publisher.happen(OPEN_BOB, callback_url=receiver.url())
    deliver()
    new, old = new_secret(), new_secret()
    publisher.database.execute(
        "update callback_secrets set secret = %s, previous_secret = %s, previous_secret_until = now() + '1 day'",
        [new, old],
    )
    publisher.happen(CREDIT, callback_url=receiver.url())

    deliver()

    request = receiver.received[1]
    assert Webhook(new).verify(request.body, request.headers)
    assert Webhook(old).verify(request.body, request.headers)


def test_an_origin_that_was_given_up_gets_another_chance_with_the_next_callback(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answer("/a", plain(500), plain(500), plain(200))
    publisher.happen(OPEN_BOB, callback_url=receiver.url("/a"))
    deliver()
    publisher.database.execute(
        "update webhook_endpoints set failing_since = now() - interval '25 hours', paused_until = null"
    )
    publisher.database.execute("update deliveries set next_attempt_at = now()")
    deliver()
    assert publisher.database.execute("select status from webhook_endpoints").fetchone() == (2,)

    publisher.happen(CREDIT, callback_url=receiver.url("/a"))
    publisher.database.execute("update webhook_endpoints set paused_until = null")
    deliver()

    assert publisher.database.execute("select status, disabled_reason from webhook_endpoints").fetchone() == (1, None)
    assert receiver.received[-1].event["object"]["idempotency_key"] == "credit"


def test_a_callback_url_that_is_gone_is_not_the_end_of_its_origin(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.answer("/gone", plain(410))
    publisher.happen(OPEN_BOB, callback_url=receiver.url("/gone"))
    deliver()
    publisher.happen(Freeze(account_id=BOB, idempotency_key="f"), callback_url=receiver.url("/there"))

    deliver()

    statuses = publisher.database.execute("select url, status from deliveries order by status").fetchall()
    assert statuses == [(receiver.url("/there"), 2), (receiver.url("/gone"), 3)]


def test_a_callback_of_nothing_does_not_hold_up_the_others(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    nothing = {"url": receiver.url(), "idempotency_key": "k", "account_id": BOB, "seq": 99, "sequence": 99}
    publisher.publish([], [{**nothing, "refusal": None}])
    publisher.happen(OPEN_BOB, callback_url=receiver.url())

    deliver()

    assert [event["object"]["idempotency_key"] for event in events(receiver)] == ["open bob"]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.COM/a?b", "https://example.com"),
        ("https://example.com:8443/a", "https://example.com:8443"),
        ("HTTP://[::1]:80/", "http://[::1]:80"),
        ("https://example.com:port/", "unreadable"),
        ("https://[::1/", "unreadable"),
        ("nonsense", "://"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin
