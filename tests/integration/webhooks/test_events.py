"""What happens in the ledger reaches those who asked for it, in the words that are documented."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks.webhooks import Webhook

from creditlane.local.processes import wait_until
from creditlane.schemas.commands import (
    Capture,
    Close,
    Command,
    Credit,
    Debit,
    Extend,
    Freeze,
    Hold,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    SetLimit,
    Unfreeze,
    Void,
)
from creditlane.schemas.events import EVENT_TYPES, event_id, new_secret, public_event_id
from creditlane.schemas.results import Result
from creditlane.worker.webhooks.hold_events import HOLD_EVENTS

from ...described_events import assert_described
from .publisher import Publisher
from .receiver import Receiver

Deliver = Callable[[], dict[str, int]]

ANN, BOB = "cca_" + "a" * 32, "cca_" + "b" * 32
ANNS = {"customer_id": "ann", "account_id": ANN, "bucket_name": "Größe", "unit_label": "tokens"}
BOBS = {"customer_id": "bob", "account_id": BOB, "bucket_name": "default", "unit_label": "credits"}
BIG = 10**30
#: How long a test waits for what must come, in seconds.
DEADLINE_SECONDS = 30.0

OPEN_ANN = OpenAccount(
    account_id=ANN,
    idempotency_key="open",
    customer_id="ann",
    name="Größe",
    unit_label="tokens",
    initial_balance=BIG,
)
OPEN_BOB = OpenAccount(account_id=BOB, idempotency_key="open bob", customer_id="bob")


def moment(result: Result) -> str:
    assert result.decided_at is not None
    return result.decided_at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{result.decided_at.microsecond // 1000:03}Z"


def received(receiver: Receiver) -> list[tuple[str, int, dict[str, Any]]]:
    """Return type, sequence and object of what came, in order of account and sequence."""
    events = [each.event for each in receiver.received]
    found = [(event["eventType"], event["sequence"], event["object"]) for event in events]
    return sorted(found, key=lambda event: (str(event[2].get("account_id")), event[1], event[0]))


def account_body(status: str, balance: int, opened: Result, result: Result, sequence: int) -> dict[str, Any]:
    return {
        "id": ANN,
        "object": "customer_credits_account",
        "store_id": "store_default",
        "customer_id": "ann",
        "name": "Größe",
        "unit_label": "tokens",
        "status": status,
        "balance": str(balance),
        "created_at": moment(opened),
        "occurred_at": moment(result),
        "sequence": sequence,
    }


def movement_body(result: Result, kind: str, amount: int, balance: int, sequence: int, **more: str) -> dict[str, Any]:
    return {
        "id": result.transaction_id,
        "object": f"customer_credits_{kind}",
        **ANNS,
        "amount_minor_units": str(amount),
        "balance_after_minor_units": str(balance),
        "reference": result.reference,
        "occurred_at": moment(result),
        "sequence": sequence,
        **more,
    }


def low_balance_body(debit: Result) -> dict[str, Any]:
    return {
        "object": "customer_credits_balance",
        **ANNS,
        "balance_minor_units": "10",
        "threshold_minor_units": "50",
        "occurred_at": moment(debit),
        "sequence": 3,
    }


def limit_body(limit: Result) -> dict[str, Any]:
    return {
        "object": "customer_credits_limit",
        **ANNS,
        "limit": "low_balance",
        "amount_minor_units": "50",
        "balance_minor_units": str(BIG),
        "occurred_at": moment(limit),
        "sequence": 2,
    }


def rejection_body(refused: Result) -> dict[str, Any]:
    return {
        "object": "command",
        "idempotency_key": "too much",
        "kind": "debit",
        "account_id": ANN,
        "customer_id": "ann",
        "reference": "job 2",
        "amount_minor_units": "600",
        "error": {
            "code": "insufficient_balance",
            "message": refused.error and refused.error.message,
            "details": {"needed": "600", "available": "10"},
        },
        "occurred_at": moment(refused),
        "sequence": 4,
    }


def test_every_event_has_the_documented_body(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    endpoint = publisher.add_endpoint(receiver.url())
    opened, _ = publisher.happen(OPEN_ANN, OPEN_BOB)
    (limit,) = publisher.happen(SetLimit(account_id=ANN, idempotency_key="limit", limit="low_balance", amount=50))
    debit, refused, reversal, freeze, unfreeze, close = publisher.happen(
        Debit(account_id=ANN, idempotency_key="debit", amount=BIG - 10, reference="job"),
        Debit(account_id=ANN, idempotency_key="too much", amount=600, reference="job 2"),
        Reverse(account_id=ANN, transaction_id=f"cct_{ANN[4:]}2"),
        Freeze(account_id=ANN, idempotency_key="freeze"),
        Unfreeze(account_id=ANN, idempotency_key="unfreeze"),
        Close(account_id=ANN, idempotency_key="close"),
    )

    done = deliver()

    expected = [
        ("account.created", 1, account_body("active", BIG, opened, opened, 1)),
        ("credits.granted", 1, movement_body(opened, "grant", BIG, BIG, 1)),
        ("account.limit_changed", 2, limit_body(limit)),
        ("credits.consumed", 3, movement_body(debit, "consumption", BIG - 10, 10, 3)),
        ("balance.low", 3, low_balance_body(debit)),
        ("command.rejected", 4, rejection_body(refused)),
        (
            "credits.reversed",
            5,
            movement_body(reversal, "reversal", BIG - 10, BIG, 5, side="credit", reversal_of=str(debit.transaction_id)),
        ),
        ("account.frozen", 6, account_body("frozen", BIG, opened, freeze, 6)),
        ("account.unfrozen", 7, account_body("active", BIG, opened, unfreeze, 7)),
        ("account.closed", 8, account_body("closed", BIG, opened, close, 8)),
    ]
    found = [event for event in received(receiver) if BOB not in str(event)]
    assert {kind for kind, _, _ in found} == set(EVENT_TYPES) - HOLD_EVENTS
    for kind, sequence, what in expected:
        assert (kind, sequence, what) in found
    assert len(found) == len(expected)
    assert done == {"fanned_out": 9, "delivered": 11, "failed": 0, "unfinished": 0}
    assert {row["status"] for row in publisher.deliveries(endpoint)} == {2}
    assert publisher.database.execute("select count(*) from outbox").fetchone() == (0,)


def test_events_of_holds_are_sent_as_they_are_documented(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given holds that are captured, extended, voided and past their end, then endpoints hear of each of it."""
    publisher.happen(OPEN_ANN)
    publisher.database.execute("delete from outbox")
    publisher.add_endpoint(receiver.url())

    def holding(key: str, amount: int) -> Command:
        return Hold(account_id=ANN, idempotency_key=key, amount=amount, reference="call", expires_in_seconds=900)

    first, second, third = (publisher.happen(holding(f"hold {number}", 20))[0].hold_id or "" for number in range(3))
    (done,) = publisher.happen(Capture(hold_id=first, idempotency_key="capture", amount=5))
    publisher.happen(Void(hold_id=second, idempotency_key="void"))
    (moved,) = publisher.happen(Extend(hold_id=third, idempotency_key="extend", expires_in_seconds=1))
    assert moved.expires_at is not None
    wait_until(lambda: datetime.now(UTC) > moved.expires_at, seconds=DEADLINE_SECONDS)
    publisher.happen(Credit(account_id=ANN, idempotency_key="after it", amount=1, reference="r"))

    deliver()

    assert_described([each.event for each in receiver.received])
    found = [(kind, what) for kind, _, what in received(receiver) if kind in HOLD_EVENTS]
    assert [(kind, what["id"], what["held_after_minor_units"]) for kind, what in found] == [
        ("hold.created", first, "20"),
        ("hold.created", second, "40"),
        ("hold.created", third, "60"),
        ("hold.captured", first, "40"),
        ("hold.voided", second, "20"),
        ("hold.extended", third, "20"),
        ("hold.expired", third, "0"),
    ]
    assert found[3][1]["transaction_id"] == done.transaction_id
    consumed = [what for kind, _, what in received(receiver) if kind == "credits.consumed"]
    assert [(what["id"], what["amount_minor_units"]) for what in consumed] == [(done.transaction_id, "5")]


def test_the_envelope_and_the_headers(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    secret = new_secret()
    publisher.add_endpoint(receiver.url("/hook?from=credits"), secret=secret, events=("credits.granted",))
    opened, _ = publisher.happen(OPEN_ANN, OPEN_BOB)

    deliver()

    (request,) = receiver.received
    assert opened.decided_at is not None
    identifier = public_event_id(event_id(1, ANN, 1, "credits.granted"))
    assert list(request.event) == ["id", "eventType", "created_at", "sequence", "object"]
    assert request.event["id"] == request.webhook_id == identifier
    assert request.event["created_at"] == int(opened.decided_at.timestamp() * 1_000)
    assert request.headers["content-type"] == "application/json"
    assert request.path == "/hook?from=credits"
    assert b": " not in request.body
    assert "Größe".encode() in request.body
    assert Webhook(secret).verify(request.body, request.headers) == request.event
    assert datetime.fromisoformat(request.event["object"]["occurred_at"]).tzinfo is not None


def test_each_entry_of_a_transaction_is_sent_for_its_account(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given a post over two accounts and its reversal, then each account's part has the ids of the transactions."""
    publisher.happen(OPEN_ANN, OPEN_BOB)
    publisher.database.execute("delete from outbox")
    publisher.add_endpoint(receiver.url())
    entries = (
        PostEntry(account_id=ANN, side="debit", amount=30),
        PostEntry(account_id=BOB, side="credit", amount=30),
    )
    (post,) = publisher.happen(Post(idempotency_key="post", reference="gift", entries=entries))
    (reversal,) = publisher.happen(Reverse(account_id=ANN, transaction_id=str(post.transaction_id)))

    deliver()

    parts = [
        (kind, sequence, what["account_id"], what["id"], what["amount_minor_units"], what.get("reversal_of"))
        for kind, sequence, what in received(receiver)
    ]
    assert parts == [
        ("credits.consumed", 2, ANN, post.transaction_id, "30", None),
        ("credits.reversed", 3, ANN, reversal.transaction_id, "30", post.transaction_id),
        ("credits.granted", 2, BOB, post.transaction_id, "30", None),
        ("credits.reversed", 3, BOB, reversal.transaction_id, "30", post.transaction_id),
    ]
    assert [what.get("side") for _, _, what in received(receiver)] == [None, "credit", None, "debit"]


def test_a_partial_reversal_names_what_it_undoes(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    """Given a key of the caller's behind the transaction, then the event has the transaction alone."""
    publisher.happen(OPEN_ANN)
    publisher.database.execute("delete from outbox")
    publisher.add_endpoint(receiver.url())
    undone = f"cct_{ANN[4:]}1"
    part = Reverse(account_id=ANN, transaction_id=undone, amount=4, idempotency_key="case:1")
    (made,) = publisher.happen(part)

    deliver()

    ((kind, _, what),) = received(receiver)
    assert (kind, what["id"], what["side"], what["amount_minor_units"]) == (
        "credits.reversed",
        made.transaction_id,
        "debit",
        "4",
    )
    assert what["reversal_of"] == undone


@pytest.mark.parametrize(
    "command",
    [
        Debit(account_id=BOB, idempotency_key="k", amount=1, reference="r"),
        Reverse(account_id=BOB, transaction_id=f"cct_{BOB[4:]}9"),
        Freeze(account_id=BOB, idempotency_key="k"),
    ],
    ids=["debit", "reverse", "freeze"],
)
def test_a_command_for_an_unknown_account_is_sent_as_rejected(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, command: Command
) -> None:
    publisher.add_endpoint(receiver.url())
    publisher.happen(command)

    deliver()

    ((kind, sequence, what),) = received(receiver)
    assert (kind, sequence, what["customer_id"]) == ("command.rejected", 1, None)
    assert (what["error"]["code"], what["kind"]) == ("account_not_found", command.kind)


def test_low_balance_is_judged_by_what_was_set_at_its_turn(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given thresholds that are set, crossed, and set again in one batch, all before anything is sent, then each
    crossing is sent, with the threshold that it crossed, and no other entry."""

    def low(key: str, amount: int | None) -> Command:
        return SetLimit(account_id=BOB, idempotency_key=key, limit="low_balance", amount=amount)

    def debit(key: str, amount: int) -> Command:
        return Debit(account_id=BOB, idempotency_key=key, amount=amount, reference="r")

    publisher.add_endpoint(receiver.url(), events=("balance.low",))
    publisher.happen(
        OPEN_BOB,
        Credit(account_id=BOB, idempotency_key="1", amount=100, reference="r"),
        debit("before it is set", 10),
        low("2", 80),
        debit("crosses 80", 20),
        low("3", 60),
        debit("crosses 60", 20),
        low("4", None),
        Credit(account_id=BOB, idempotency_key="5", amount=50, reference="r"),
        debit("crosses what was", 50),
    )

    deliver()

    crossed = [(what["balance_minor_units"], what["threshold_minor_units"]) for _, _, what in received(receiver)]
    assert crossed == [("70", "80"), ("50", "60")]


def test_low_balance_is_sent_on_the_crossing_and_again_after_the_way_back(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    publisher.add_endpoint(receiver.url(), events=("balance.low",))
    publisher.happen(OPEN_BOB, Credit(account_id=BOB, idempotency_key="1", amount=100, reference="r"))
    publisher.happen(Debit(account_id=BOB, idempotency_key="2", amount=100, reference="before it was set"))
    publisher.happen(Credit(account_id=BOB, idempotency_key="3", amount=100, reference="r"))
    publisher.database.execute("update accounts set low_balance = 50, low_balance_since = now()")

    def debit(key: str, amount: int) -> Command:
        return Debit(account_id=BOB, idempotency_key=key, amount=amount, reference="r")

    publisher.happen(
        debit("to the threshold", 50),
        debit("below it", 1),
        debit("further below", 9),
        Credit(account_id=BOB, idempotency_key="up to it", amount=10, reference="r"),
        debit("below again", 20),
        Credit(account_id=BOB, idempotency_key="up, and not to it", amount=5, reference="r"),
        debit("still below", 5),
    )

    deliver()

    assert [(sequence, what["balance_minor_units"]) for _, sequence, what in received(receiver)] == [
        (6, "49"),
        (9, "30"),
    ]
    assert {what["threshold_minor_units"] for _, _, what in received(receiver)} == {"50"}
    assert received(receiver)[0][2]["customer_id"] == BOBS["customer_id"]


def test_an_endpoint_gets_what_it_asked_for(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    publisher.add_endpoint(receiver.url("/all"))
    publisher.add_endpoint(receiver.url("/some"), events=("account.created", "credits.consumed"))
    publisher.add_endpoint(receiver.url("/none"), events=("account.closed",))
    publisher.happen(OPEN_ANN, Debit(account_id=ANN, idempotency_key="d", amount=1, reference="r"))

    deliver()

    kinds = {path: sorted(each.event["eventType"] for each in receiver.at(path)) for path in ("/all", "/some", "/none")}
    assert kinds == {
        "/all": ["account.created", "credits.consumed", "credits.granted"],
        "/some": ["account.created", "credits.consumed"],
        "/none": [],
    }


def test_a_store_gets_no_events_of_another(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    publisher.database.execute("insert into stores (public_id, name) values ('store_other', 'Other')")
    publisher.add_endpoint(receiver.url("/other"), store_id=2)
    publisher.add_endpoint(receiver.url("/own"))
    publisher.happen(OPEN_BOB)

    deliver()

    assert [each.path for each in receiver.received] == ["/own"]


def test_an_endpoint_hears_nothing_from_before_it_was_there(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    """Given an event that another endpoint wants and that waits to be fanned out, when an endpoint is added, it gets
    what happens from then on."""
    publisher.add_endpoint(receiver.url("/first"))
    publisher.happen(OPEN_BOB)
    publisher.add_endpoint(receiver.url("/later"))
    publisher.happen(Freeze(account_id=BOB, idempotency_key="f"))

    deliver()

    assert [each.event["eventType"] for each in receiver.at("/later")] == ["account.frozen"]
    assert len(receiver.at("/first")) == 2


def test_events_that_stand_in_the_outbox_twice_are_sent_once(
    publisher: Publisher, receiver: Receiver, deliver: Deliver
) -> None:
    endpoint = publisher.add_endpoint(receiver.url())
    publisher.happen(OPEN_BOB)
    publisher.publish([(UUID(BOB[4:]), -1, 1)])
    deliver()
    publisher.publish([(UUID(BOB[4:]), -1, 1)])
    deliver()

    assert len(receiver.received) == len(publisher.deliveries(endpoint)) == 1


def test_a_large_batch_is_sent_whole(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    """Given a batch with more items than one part has, and many small ones after it, then all are sent."""
    publisher.add_endpoint(receiver.url(), events=("credits.granted",))
    commands = [Credit(account_id=BOB, idempotency_key=f"k{n}", amount=1, reference="r") for n in range(1_500)]
    publisher.store.apply(OPEN_BOB)
    publisher.store.apply(*commands[:1_200])
    publisher.happen(*commands[1_200:])

    done = deliver()

    sequences = [each.event["sequence"] for each in receiver.received]
    assert sorted(sequences) == list(range(2, 1_502))
    # The many are three rows: one has no more than so many that those of another store do not wait for long.
    assert (done["fanned_out"], done["delivered"]) == (303, 1_500)
