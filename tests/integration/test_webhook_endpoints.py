"""All clients manage webhooks alike: endpoints, what was sent to them, and the secret of callbacks."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis

from creditlane import (
    AccountClosed,
    AccountNotFound,
    Client,
    InvalidCommand,
    Settings,
    Unavailable,
    WebhookDisabled,
    WebhookLimitReached,
    WebhookNotFound,
)
from creditlane.lanes.keys import Keys
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.schemas.statuses import StoredDeliveryStatus
from creditlane.schemas.webhooks import MAX_ENDPOINTS
from creditlane.testing import FakeLedger
from creditlane.worker.webhooks.event_bodies import Event

from .conftest import is_fake

#: Adds a delivery to an endpoint: of an event, with a status, so many seconds after the first.
AddOne = Callable[[str, uuid.UUID, int, int], None]

URL = "https://example.com/hook"
ANN = "cca_" + "a" * 32
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def add_deliveries(request: pytest.FixtureRequest, fake_ledger: FakeLedger) -> Callable[..., list[str]]:
    """Adds deliveries of the given statuses, a second after one another, and gives their events' ids."""
    if is_fake(request):
        add_one = delivery_in_memory(fake_ledger)
    else:
        add_one = delivery_in_postgres(request.getfixturevalue("database"))

    def add(webhook_id: str, *statuses: int) -> list[str]:
        ids = [uuid.uuid4() for _ in statuses]
        for second, (identifier, status) in enumerate(zip(ids, statuses, strict=True)):
            add_one(webhook_id, identifier, status, second)
        return ["evt_" + identifier.hex for identifier in ids]

    return add


def delivery_in_postgres(database: psycopg.Connection[Any]) -> AddOne:
    def add(webhook_id: str, event: uuid.UUID, status: int, second: int) -> None:
        values = {"endpoint": webhook_id[3:], "event": event, "status": status, "second": second}
        database.execute(
            "insert into events select 1, %(event)s, 'balance.low', now(), '{\"n\":' || %(second)s || '}'", values
        )
        database.execute(
            "insert into deliveries (store_id, endpoint_id, event_id, status, attempts, created_at, "
            "next_attempt_at) select 1, %(endpoint)s, %(event)s, %(status)s, 5, "
            "'2026-02-01'::timestamptz + %(second)s * interval '1 s', case %(status)s when 1 then now() end",
            values,
        )

    return add


def delivery_in_memory(ledger: FakeLedger) -> AddOne:
    def add(webhook_id: str, event: uuid.UUID, status: int, second: int) -> None:
        webhooks, at = ledger.webhooks(DEFAULT_STORE), datetime(2026, 2, 1, tzinfo=UTC) + timedelta(seconds=second)
        webhooks.add(webhook_id, Event(1, event, "balance.low", at, f'{{"n":{second}}}'), at)
        name = StoredDeliveryStatus(status).name.lower()
        webhooks.change_delivery(webhook_id, "evt_" + event.hex, status=name, attempts=5)

    return add


@pytest.mark.conformance
def test_an_endpoint_is_made_changed_and_deleted(client: Client) -> None:
    made = client.webhooks.create(url=URL, events=["balance.low", "credits.granted", "balance.low"], name="Billing")

    assert (made.url, made.name, made.status, made.store_id) == (URL, "Billing", "enabled", "store_default")
    assert made.events == ("balance.low", "credits.granted")
    assert (made.secret or "").startswith("whsec_")
    assert "whsec_" not in repr(made)
    assert client.webhooks.get(made.id) == made.model_copy(update={"secret": None})
    assert client.webhooks.list() == [client.webhooks.get(made.id)]

    changed = client.webhooks.update(made.id, events=[], name="", status="disabled")
    assert (changed.events, changed.name, changed.status, changed.url) == ((), None, "disabled", URL)
    assert client.webhooks.update(made.id, url=URL + "/2").url == URL + "/2"

    assert client.webhooks.delete(made.id).id == made.id
    assert client.webhooks.list() == []
    for call in (client.webhooks.get, client.webhooks.delete, client.webhooks.rotate_secret):
        with pytest.raises(WebhookNotFound):
            call(made.id)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("url", {"url": "http://example.com/"}),
        ("url", {"url": "https://localhost/"}),
        ("url", {"url": "hook"}),
        ("name", {"url": URL, "name": "n" * 101}),
        ("0", {"url": URL, "events": ["nothing"]}),
        ("0", {"url": URL, "events": "nothing"}),
    ],
)
@pytest.mark.conformance
def test_what_breaks_a_rule_is_refused(client: Client, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidCommand) as caught:
        client.webhooks.create(**values)

    assert caught.value.field == field
    assert client.webhooks.list() == []


def test_a_store_has_so_many_and_an_unknown_one_none(
    client: Client, make_client: Callable[[Settings], Client], settings: Settings, database: psycopg.Connection[Any]
) -> None:
    database.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "select 1, gen_random_uuid(), 1, 1, 'https://example.com', 'whsec_x' from generate_series(1, %s)",
        [MAX_ENDPOINTS],
    )

    with pytest.raises(WebhookLimitReached):
        client.webhooks.create(url=URL)
    nowhere = make_client(settings.model_copy(update={"store": "store_nowhere"})).webhooks
    with pytest.raises(InvalidCommand, match="there is no store store_nowhere"):
        nowhere.create(url=URL)
    with pytest.raises(InvalidCommand, match="there is no store store_nowhere"):
        nowhere.rotate_callback_secret()


def test_endpoints_that_are_made_at_once_keep_to_the_limit(
    settings: Settings, database: psycopg.Connection[Any]
) -> None:
    """Given room for two, when eight are made at the same time, then two are."""
    database.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "select 1, gen_random_uuid(), 1, 1, 'https://example.com', 'whsec_x' from generate_series(3, %s)",
        [MAX_ENDPOINTS],
    )
    together = threading.Barrier(8)

    with ExitStack() as stack:
        clients = [stack.enter_context(Client(settings)) for _ in range(8)]
        for each in clients:
            each.webhooks.list()

        def create(client: Client) -> bool:
            together.wait()
            try:
                client.webhooks.create(url=URL)
            except WebhookLimitReached:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(create, clients))

    assert sorted(made) == [False] * 6 + [True] * 2
    assert database.execute("select count(*) from webhook_endpoints").fetchone() == (MAX_ENDPOINTS,)


def test_what_was_not_sent_to_a_deleted_endpoint_fails(
    client: Client, add_deliveries: Callable[..., list[str]], database: psycopg.Connection[Any]
) -> None:
    made = client.webhooks.create(url=URL)
    add_deliveries(made.id, 1, 2, 1)

    client.webhooks.delete(made.id)

    rows = database.execute("select status, error, next_attempt_at from deliveries order by created_at").fetchall()
    gone = (3, "the endpoint was deleted", None)
    assert rows == [gone, (2, None, None), gone]


@pytest.mark.conformance
def test_deliveries_are_listed_newest_first_in_pages(
    client: Client, add_deliveries: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creditlane.producer.operations.webhooks.PAGE_DELIVERIES", 2)
    made = client.webhooks.create(url=URL)
    ids = add_deliveries(made.id, 1, 2, 3, 1, 2, 3, 3)

    def listed(**choice: Any) -> list[str]:
        return [delivery.event_id for delivery in client.webhooks.deliveries(made.id, **choice)]

    assert listed() == ids[::-1]
    assert listed(limit=3) == ids[:3:-1]
    assert listed(status="failed") == [ids[6], ids[5], ids[2]]
    assert listed(status="pending", limit=1) == [ids[3]]
    first = next(iter(client.webhooks.deliveries(made.id, limit=1)))
    assert (first.event_type, first.status, first.attempts) == ("balance.low", "failed", 5)
    assert client.webhooks.delivery(made.id, ids[3]).body == '{"n":3}'
    with pytest.raises(WebhookNotFound):
        list(client.webhooks.deliveries("wh_" + "0" * 32))
    with pytest.raises(WebhookNotFound):
        client.webhooks.delivery(made.id, "evt_" + "0" * 32)


@pytest.mark.conformance
def test_one_event_is_sent_again(client: Client, add_deliveries: Callable[..., list[str]]) -> None:
    made = client.webhooks.create(url=URL)
    delivered, failed = add_deliveries(made.id, 2, 3)

    again = [client.webhooks.resend(made.id, delivered), client.webhooks.resend(made.id, failed)]

    assert [(each.status, each.attempts) for each in again] == [("pending", 0)] * 2
    assert all(each.next_attempt_at for each in again)
    with pytest.raises(WebhookNotFound):
        client.webhooks.resend(made.id, "evt_" + "0" * 32)


@pytest.mark.conformance
def test_what_failed_is_sent_again_from_a_moment_on(
    client: Client, add_deliveries: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creditlane.producer.operations.webhooks.SLICE_DELIVERIES", 2)
    made, other = client.webhooks.create(url=URL), client.webhooks.create(url=URL)
    ids = add_deliveries(made.id, 3, 3, 2, 3, 1, 3, 3)
    add_deliveries(other.id, 3, 3)
    since = datetime(2026, 2, 1, 0, 0, 1, tzinfo=UTC)

    assert client.webhooks.resend_failed(made.id, since=since + timedelta(days=1)) == 0
    assert client.webhooks.resend_failed(made.id, since=since, at_most=2) == 2
    assert client.webhooks.resend_failed(made.id, since=since) == 2

    assert [delivery.event_id for delivery in client.webhooks.deliveries(made.id, status="failed")] == [ids[0]]
    assert len(list(client.webhooks.deliveries(other.id, status="failed"))) == 2


@pytest.mark.conformance
def test_nothing_is_sent_to_a_disabled_endpoint(client: Client, add_deliveries: Callable[..., list[str]]) -> None:
    made = client.webhooks.create(url=URL)
    (failed,) = add_deliveries(made.id, 3)
    client.webhooks.update(made.id, status="disabled")

    with pytest.raises(WebhookDisabled):
        client.webhooks.send_test(made.id)
    with pytest.raises(WebhookDisabled):
        client.webhooks.resend(made.id, failed)
    with pytest.raises(WebhookDisabled):
        client.webhooks.resend_failed(made.id, since=LONG_AGO)

    assert client.webhooks.delivery(made.id, failed).status == "failed"


def test_whoever_delivers_is_woken_once(
    client: Client, settings: Settings, redis_url: str, add_deliveries: Callable[..., list[str]]
) -> None:
    made = client.webhooks.create(url=URL)
    (failed,) = add_deliveries(made.id, 3)
    key = Keys(settings.redis_prefix).wake_deliveries

    with redis.Redis.from_url(redis_url) as server:
        for call in (
            lambda: client.webhooks.send_test(made.id),
            lambda: client.webhooks.resend(made.id, failed),
            lambda: client.webhooks.resend_failed(made.id, since=LONG_AGO),
            lambda: client.webhooks.update(made.id, status="enabled"),
        ):
            call()
            call()
            assert server.llen(key) == 1
            server.delete(key)


def test_without_redis_a_test_event_is_on_its_way_all_the_same(
    make_client: Callable[[Settings], Client], settings: Settings
) -> None:
    client = make_client(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    made = client.webhooks.create(url=URL)

    event_id = client.webhooks.send_test(made.id)

    delivery = client.webhooks.delivery(made.id, event_id)
    assert (delivery.event_type, delivery.status, delivery.attempts) == ("webhook.test", "pending", 0)
    with pytest.raises(Unavailable):
        client.pending(ANN)


def test_the_secret_of_callbacks_is_made_and_replaced(client: Client, database: psycopg.Connection[Any]) -> None:
    first = client.webhooks.rotate_callback_secret()
    database.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
        "values (1, gen_random_uuid(), 2, 1, 'https://example.com', %s)",
        [first],
    )

    second = client.webhooks.rotate_callback_secret()

    columns = "secret, previous_secret, previous_secret_until > now() + interval '23 hours'"
    kept = [database.execute(f"select {columns} from {table}").fetchall() for table in SECRETS]  # type: ignore[arg-type]
    assert first != second
    assert kept == [[(second, first, True)]] * 2


SECRETS = ("callback_secrets", "webhook_endpoints")


@pytest.mark.usefixtures("running_worker")
def test_a_threshold_is_set_and_taken_away(client: Client) -> None:
    huge = 10**200
    account = client.open_account(customer_id="ann").id

    shown = [client.set_low_balance(account, each).low_balance for each in (100, str(huge), 0, None)]

    assert shown == [100, huge, 0, None]
    assert client.account(account).low_balance is None


@pytest.mark.usefixtures("running_worker")
def test_a_threshold_needs_a_whole_number_and_an_account_that_is_not_closed(client: Client) -> None:
    account = client.open_account(customer_id="ann").id
    for wrong in (-1, "1.5", 1.5, True, ""):
        with pytest.raises(InvalidCommand):
            client.set_low_balance(account, wrong)  # type: ignore[arg-type]
    with pytest.raises(AccountNotFound):
        client.set_low_balance("cca_" + "b" * 32, 1)
    client.close_account(account)
    with pytest.raises(AccountClosed):
        client.set_low_balance(account, 1)
    assert client.account(account).low_balance is None
