"""Arguments that no type checker would let pass: each is refused as what it is, never as a server that is away, and the
clients without servers refuse it alike."""

from datetime import UTC, datetime
from typing import Any

import pytest

from creditlane import Client, CreditlaneError, InvalidCommand, WebhookNotFound

ACCOUNT = "cca_" + "7" * 32
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
NO_NUMBERS: list[Any] = ["1", b"1", [1]]

pytestmark = pytest.mark.conformance


def test_what_is_no_key_is_not_looked_for_among_the_scheduled(client: Client) -> None:
    no_keys: list[Any] = ["", "k" * 256, "a\0b", "\ud800", 5, True, b"k", None, ["k"], {}]
    for key in no_keys:
        with pytest.raises(InvalidCommand) as caught:
            client.cancel(key)
        assert caught.value.field == "idempotency_key"


def test_what_is_no_transaction_is_not_reversed(client: Client) -> None:
    no_transactions: list[Any] = [None, 5, b"cct_1", ["cct_1"]]
    for transaction in no_transactions:
        with pytest.raises(InvalidCommand) as caught:
            client.reverse(ACCOUNT, transaction)
        assert caught.value.field == "transaction_id"


def test_what_is_no_endpoint_or_event_is_not_found(client: Client) -> None:
    webhooks = client.webhooks
    no_ids: list[Any] = [None, 5, "", "wh_1", ["wh_1"], {}]
    for identifier in no_ids:
        for call in (webhooks.get, webhooks.delete, webhooks.rotate_secret, webhooks.send_test):
            with pytest.raises(WebhookNotFound):
                call(identifier)
        with pytest.raises(WebhookNotFound):
            webhooks.update(identifier, name="n")
        with pytest.raises(WebhookNotFound):
            webhooks.resend_failed(identifier, since=MOMENT)
        for of_event in (webhooks.delivery, webhooks.resend):
            with pytest.raises(WebhookNotFound):
                of_event(None, identifier)


def test_a_status_that_no_delivery_has_is_refused_by_name(client: Client) -> None:
    no_statuses: list[Any] = ["sent", "PENDING", "", 0, 1.5, ["pending"]]
    for status in no_statuses:
        with pytest.raises(InvalidCommand, match="pending, delivered, failed") as caught:
            list(client.webhooks.deliveries(None, status=status))
        assert caught.value.field == "status"


def test_a_timeout_that_is_no_number_is_refused_before_anything_is_read(client: Client) -> None:
    for timeout in NO_NUMBERS:
        with pytest.raises(TypeError):
            client.balance(ACCOUNT, timeout=timeout)
        with pytest.raises(TypeError):
            client.balance_at(ACCOUNT, MOMENT, timeout=timeout)


def test_a_timeout_that_is_no_number_sends_nothing(client: Client) -> None:
    for timeout in NO_NUMBERS:
        with pytest.raises(TypeError):
            client.credit(ACCOUNT, 1, reference="r", idempotency_key="k", timeout=timeout)
    assert client.pending(ACCOUNT) == 0


def test_a_limit_that_is_no_number_is_refused_at_the_first_item(client: Client) -> None:
    for limit in NO_NUMBERS:
        accounts = iter(client.accounts(limit=limit))
        with pytest.raises(TypeError):
            next(accounts)


def test_a_limit_may_be_any_number(client: Client) -> None:
    numbers: list[Any] = [0, -1, 1.0, 10**40]
    for limit in numbers:
        assert list(client.accounts(limit=limit)) == []


def test_a_closed_client_refuses_at_once_to_wait_for_many(client: Client) -> None:
    client.close()

    with pytest.raises(CreditlaneError, match="closed"):
        client.wait_many([])
