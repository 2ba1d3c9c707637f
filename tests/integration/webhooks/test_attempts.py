"""What counts as delivered, when it is tried again, and when no more."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest

from creditlane.schemas.commands import Freeze, OpenAccount
from creditlane.schemas.settings import Settings
from creditlane.worker.webhooks import attempt as sending_module
from creditlane.worker.webhooks.delivery_round import deliver_round

from .publisher import Publisher
from .receiver import Receiver, hang, plain

Deliver = Callable[[], dict[str, int]]

BOB = "cca_" + "b" * 32
OPEN_BOB = OpenAccount(account_id=BOB, idempotency_key="open bob", customer_id="bob")
#: Bounds of each pause of the schedule, in seconds.
PAUSES = [(27, 33), (270, 330), (1_620, 1_980), (19_440, 23_760)]


@pytest.fixture
def endpoint(publisher: Publisher, receiver: Receiver) -> UUID:
    """An endpoint with one delivery due."""
    endpoint = publisher.add_endpoint(receiver.url("/hook"))
    publisher.happen(OPEN_BOB)
    return endpoint


def delivery(publisher: Publisher, endpoint: UUID) -> dict[str, Any]:
    (row,) = publisher.deliveries(endpoint)
    return row


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID, status: int
) -> None:
    receiver.answer("/hook", plain(status, b""))

    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["attempts"], row["response_status"], row["next_attempt_at"]) == (2, 1, status, None)
    assert (row["error"], row["response_body"]) == (None, None)
    assert row["latency_ms"] < 1_000
    assert publisher.endpoint(endpoint)["failing_since"] is None


def test_failures_are_retried_by_the_schedule_and_then_no_more(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID
) -> None:
    receiver.answer("/hook", plain(500, b"broken"))

    for attempt, (least, most) in enumerate(PAUSES, start=1):
        deliver()
        row = delivery(publisher, endpoint)
        assert (row["status"], row["attempts"], row["response_status"]) == (1, attempt, 500)
        assert least <= row["pause"].total_seconds() <= most
        assert deliver()["failed"] == 0, "it was sent before its time"
        publisher.make_due(endpoint)
    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["attempts"], row["next_attempt_at"], row["response_body"]) == (3, 5, None, "broken")
    assert len({each.webhook_id for each in receiver.received}) == 1
    assert len({each.body for each in receiver.received}) == 1
    assert len(receiver.received) == 5


def test_a_success_after_failures_is_a_success(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID
) -> None:
    receiver.answer("/hook", plain(500), plain(200, b"thanks"))
    deliver()
    assert publisher.endpoint(endpoint)["failing_since"] is not None

    publisher.make_due(endpoint)
    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["attempts"], row["response_status"], row["response_body"]) == (2, 2, 200, "thanks")
    after = publisher.endpoint(endpoint)
    assert (after["failing_since"], after["paused_until"], after["sender"]) == (None, None, None)


def test_an_endpoint_that_does_not_answer_in_time_has_failed(
    publisher: Publisher, receiver: Receiver, sending: Settings, endpoint: UUID
) -> None:
    receiver.answer("/hook", hang)

    deliver_round(sending.model_copy(update={"webhook_timeout_seconds": 1.0}))

    row = delivery(publisher, endpoint)
    assert (row["status"], row["attempts"], row["response_status"]) == (1, 1, None)
    assert "no answer in time" in row["error"]
    assert 900 <= row["latency_ms"] <= 3_000
    assert 27 <= row["pause"].total_seconds() <= 33


def test_an_endpoint_that_is_not_there_has_failed(publisher: Publisher, receiver: Receiver, deliver: Deliver) -> None:
    endpoint = publisher.add_endpoint("http://127.0.0.1:1/")
    publisher.happen(OPEN_BOB)

    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["attempts"], row["response_status"]) == (1, 1, None)
    assert row["error"] == "Connection refused"
    assert receiver.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID, status: int
) -> None:
    receiver.answer("/hook", plain(status, b"", location=receiver.url("/secret")))

    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["response_status"]) == (1, status)
    assert "redirect" in row["error"]
    assert receiver.at("/secret") == []


def test_retry_after_in_seconds_is_honoured_when_it_is_later(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID
) -> None:
    receiver.answer("/hook", plain(500, retry_after="120"), plain(500, retry_after="1"))

    deliver()
    assert 119 <= delivery(publisher, endpoint)["pause"].total_seconds() <= 121
    publisher.make_due(endpoint)
    deliver()

    assert 270 <= delivery(publisher, endpoint)["pause"].total_seconds() <= 330


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_that_asks_for_it_is_left_alone_with_everything(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID, status: int
) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    receiver.answer("/hook", plain(status, b"", retry_after=until), plain(200))
    deliver()

    publisher.happen(Freeze(account_id=BOB, idempotency_key="f"))
    deliver()

    assert len(receiver.received) == 1
    assert 590 <= publisher.endpoint(endpoint)["pause"].total_seconds() <= 600
    assert 590 <= publisher.deliveries(endpoint)[0]["pause"].total_seconds() <= 601
    publisher.make_due(endpoint)
    assert deliver()["delivered"] == 2
    assert publisher.endpoint(endpoint)["paused_until"] is None


def test_gone_disables_at_once(publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID) -> None:
    publisher.happen(Freeze(account_id=BOB, idempotency_key="f"))
    receiver.answer("/hook", plain(410))

    deliver()

    after = publisher.endpoint(endpoint)
    assert (after["status"], after["disabled_reason"]) == (2, "the endpoint answered 410 Gone")
    assert sorted(row["status"] for row in publisher.deliveries(endpoint)) == [1, 3]
    assert len(receiver.received) == 1
    assert publisher.database.execute("select subscriptions_version from installation").fetchone() == (2,)


def test_a_huge_body_is_cut_off(publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    receiver.answer("/hook", endless)

    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["response_body"]) == (2, "x" * 500)
    assert sent < 16_000_000


def test_a_body_that_never_ends_does_not_undo_a_success(
    publisher: Publisher,
    receiver: Receiver,
    deliver: Deliver,
    endpoint: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending_module, "BODY_SECONDS", 0.1)

    async def stalling(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nalmost \x00\xff")
        await hang(writer)

    receiver.answer("/hook", stalling)

    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], row["response_body"]) == (2, "almost \ufffd\ufffd")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\x01\x02",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 999999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
        b"220 mail.example ESMTP\r\n",
    ],
    ids=["nothing", "bytes", "length", "status", "long header", "many headers", "mail"],
)
def test_an_answer_that_is_no_answer_is_a_failure_of_that_endpoint_only(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID, answer: bytes
) -> None:
    async def nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    receiver.answer("/hook", nonsense)
    other = publisher.add_endpoint(receiver.url("/other"))
    publisher.happen(Freeze(account_id=BOB, idempotency_key="f"))

    deliver()

    assert {row["status"] for row in publisher.deliveries(endpoint)} == {1}
    assert {row["status"] for row in publisher.deliveries(other)} == {2}


def test_a_compressed_body_is_not_unpacked(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID
) -> None:
    receiver.answer("/hook", plain(200, b"\x1f\x8b" + b"\0" * 50, content_encoding="gzip"))

    deliver()

    row = delivery(publisher, endpoint)
    assert (row["status"], len(row["response_body"])) == (2, 52)


def test_an_event_that_is_not_kept_any_more_is_given_up(
    publisher: Publisher, receiver: Receiver, deliver: Deliver, endpoint: UUID
) -> None:
    receiver.answer("/hook", plain(500))
    deliver()
    publisher.database.execute("delete from events")
    publisher.make_due(endpoint)

    deliver()

    row = publisher.database.execute("select status, error from deliveries").fetchone()
    assert row == (3, "the event is not kept any more")
    assert len(receiver.received) == 1
