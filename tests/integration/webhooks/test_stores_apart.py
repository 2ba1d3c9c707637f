"""What one store has delivered, wherever to, does not keep another's waiting."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from creditlane.schemas.commands import OpenAccount
from creditlane.schemas.settings import Settings
from creditlane.schemas.webhook_secrets import SecretKeys
from creditlane.worker.webhooks import delivery_round, fan_out
from creditlane.worker.webhooks.endpoint_leases import EndpointLeases
from creditlane.worker.webhooks.fan_out import FanOut

from ..direct_store import add_store
from .publisher import Publisher
from .receiver import Receiver, plain

Side = Callable[[Callable[[], dict[str, int]]], "Future[dict[str, int]]"]

#: Origins of the one store that refuse every connection.
ORIGINS = 1_500
OTHER, OTHER_ID = "store_other", 2
BOB = "cca_" + "b" * 32


@pytest.fixture
def side() -> Iterator[Side]:
    with ThreadPoolExecutor() as threads:
        yield threads.submit


@pytest.fixture
def other(publisher: Publisher, receiver: Receiver, database_url: str) -> Publisher:
    """A second store, whose endpoint was delivered to lately and works."""
    add_store(database_url, OTHER)
    publisher.add_endpoint(receiver.url("/other"), events=("account.created",), store_id=OTHER_ID)
    publisher.database.execute("update webhook_endpoints set sender_until = now()")
    return publisher


def refusing(number: int) -> str:
    """Return a URL of an origin of its own, where nobody listens."""
    return f"http://127.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}:1/hook"


def publish_callbacks(publisher: Publisher, urls: list[str]) -> None:
    """Write one row of the outbox, with a result for each of these URLs."""
    callbacks = [
        {
            "url": url,
            "idempotency_key": f"k{number}",
            "account_id": BOB,
            "seq": None,
            "sequence": None,
            "refusal": {"code": "account_not_found", "message": "There is none.", "details": {}},
        }
        for number, url in enumerate(urls)
    ]
    publisher.publish([], callbacks)


def publish_other(publisher: Publisher, number: int = 0) -> None:
    """Let one thing happen in the second store."""
    account = f"cca_{number:032x}"
    publisher.store.apply(
        OpenAccount(account_id=account, idempotency_key=f"open {number}", customer_id="c"), store=OTHER
    )


def counted(publisher: Publisher, condition: str) -> int:
    row = publisher.database.execute(f"select count(*) from deliveries where {condition}".encode()).fetchone()
    assert row is not None
    return int(row[0])


async def fan_out_parts(database_url: str, parts: int) -> list[int]:
    """Fan out so many parts; return how many rows of the outbox each was."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        outbox = FanOut(connection, SecretKeys(""), most_origins=10_000)
        return [await outbox.next_part() for _ in range(parts)]


async def test_new_origins_that_refuse_do_not_delay_another_store(
    other: Publisher,
    receiver: Receiver,
    sending: Settings,
    side: Side,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given callbacks to many new origins that refuse, when another store has events after them, then its endpoint has
    them while nearly all the others are yet to be tried, and these are taken more and more at once, until all are."""
    attempted: list[int] = []
    taken: list[int] = []
    take = EndpointLeases.take

    async def noted(leases: EndpointLeases, *, also_failing: bool) -> int:
        count = await take(leases, also_failing=also_failing)
        taken.extend([count] if count else [])
        return count

    monkeypatch.setattr(EndpointLeases, "take", noted)

    async def count_and_answer(writer: Any) -> None:
        attempted.append(counted(other, "store_id = 1 and attempts > 0"))
        await plain(200)(writer)

    receiver.answer("/other", count_and_answer)
    publish_callbacks(other, [refusing(number) for number in range(ORIGINS)])
    await fan_out_parts(database_url, 1)
    assert counted(other, "store_id = 1") == ORIGINS
    publish_other(other)

    done = side(lambda: delivery_round.deliver_round(sending))
    receiver.wait_for(lambda: len(receiver.at("/other")) == 1)

    done.result()
    assert attempted[0] < ORIGINS / 3
    # Where a slow machine ends a slice before that, the next one goes on.
    rounds_left = 5
    while counted(other, "store_id = 1 and attempts = 0") and rounds_left:
        delivery_round.deliver_round(sending)
        rounds_left -= 1
    assert counted(other, "store_id = 1 and attempts = 0") == 0
    assert len(taken) < ORIGINS / 4 / 3, "taken four at a time"


async def test_the_fewest_events_are_fanned_out_first_and_the_oldest_next(other: Publisher, database_url: str) -> None:
    """Given rows of one store with many items, and then one of another with a single one, then that is fanned out with
    the first part, and the first store's oldest with the second."""
    for start in range(0, 8_000, 800):
        publish_callbacks(other, [refusing(start) + f"?{number}" for number in range(800)])
    publish_other(other)

    # The first part has the oldest row of each; there is no room for the first store's next one.
    assert await fan_out_parts(database_url, 2) == [2, 1]
    assert counted(other, f"store_id = {OTHER_ID}") == 1
    assert counted(other, "store_id = 1") == 1_600


def test_a_batch_writes_its_events_in_outbox_rows_of_a_bounded_size(other: Publisher) -> None:
    accounts = [f"cca_{number:032x}" for number in range(1_200)]
    other.store.apply(
        *[OpenAccount(account_id=each, idempotency_key=each, customer_id=each) for each in accounts], store=OTHER
    )

    rows = other.database.execute("select accounts from outbox order by outbox_id").fetchall()

    assert [len(published) for (published,) in rows] == [500, 500, 200]
    assert [str(account).replace("-", "") for (published,) in rows for account in published] == [
        each[4:] for each in accounts
    ]


def test_origins_beyond_the_limit_share_a_few_lines(
    publisher: Publisher,
    receiver: Receiver,
    sending: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given more origins than a store may have, of which one asks to be left alone for an hour, then the store has no
    more rows than that and the shared ones, every other origin gets its callback, and the first keep own lines."""
    monkeypatch.setattr(fan_out, "SHARED_LINES", 1)
    few = sending.model_copy(update={"webhook_callback_origins": 2})
    origins = [f"http://127.0.0.{number}:{receiver.port}" for number in range(1, 9)]
    # The receiver listens on one address only; the others refuse.
    callbacks = [
        receiver.url("/first"),
        refusing(1),
        refusing(2),
        receiver.url("/again"),
        *[f"{o}/x" for o in origins[1:3]],
    ]
    publish_callbacks(publisher, callbacks)
    delivery_round.deliver_round(few)

    busy = receiver.url("/busy").replace("127.0.0.1", "localhost")
    receiver.answer("/busy", plain(503, Retry_After="3600"))
    publish_callbacks(publisher, [busy])
    delivery_round.deliver_round(few)
    publish_callbacks(publisher, [receiver.url("/later").replace("127.0.0.1", "localhost")])
    delivery_round.deliver_round(few)

    lines = publisher.database.execute("select url from webhook_endpoints where kind = 2 order by created_at, url")
    urls = [url for (url,) in lines]
    assert sorted(urls) == sorted(
        [f"http://127.0.0.1:{receiver.port}", refusing(1).removesuffix("/hook"), "further origins 0"]
    )
    assert [len(receiver.at(path)) for path in ("/first", "/again", "/busy", "/later")] == [1, 1, 1, 1]
