"""Postgres may have committed without saying so: nobody reads then that nothing was done."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from creditlane import Client, Settings
from creditlane.producer.client._async.ledger_pool import AsyncLedgerPool
from creditlane.producer.client._sync.ledger_pool import LedgerPool
from creditlane.producer.client._sync.sender import Sender
from creditlane.producer.ledger.read_limits import read_until
from creditlane.producer.ledger.statement import Statement
from creditlane.producer.operations import webhooks as webhook_operations
from creditlane.producer.operations.dead_letters import DeadLetters
from creditlane.schemas.errors import OutcomeUnknown, Unavailable

from ..tcp_link import TcpLink

MAKE_STORE = "insert into stores (public_id, name) values ('store_0000000000000abc', 'n')"
#: Refused at the commit, by a server that goes on.
REFUSED_AT_COMMIT = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception using errcode = 'serialization_failure'; end $$;
create constraint trigger refuse after insert on stores deferrable initially deferred for each row
execute function refuse()
"""
PAYLOAD = (
    b'{"amount":"5","kind":"debit","v":1,"store_id":"store_default","reference":"r","account_id":"cca_'
    + b"5e" * 16
    + b'","idempotency_key":"k"}'
)

Spoil = Callable[[TcpLink], None]
#: Does a transaction of one statement, with something in between that statement and the commit, or before both.
Attempt = Callable[[str, Callable[[], None], Callable[[], None]], None]


@pytest.fixture(autouse=True)
def _everybody_makes_stores(database_url: str) -> None:
    """Let the pools' role do the statement, which stands for any."""
    with psycopg.connect(database_url) as connection:
        connection.execute("grant insert on stores to public")


@pytest.fixture(params=["blocking", "asyncio"])
def attempt(request: pytest.FixtureRequest) -> Attempt:
    return in_turn if request.param == "blocking" else in_a_loop


def in_turn(url: str, before: Callable[[], None], at_commit: Callable[[], None]) -> None:
    pool = LedgerPool(url, max_size=1)
    pool.open()
    try:
        with pool.transaction(read_until(2.0)) as session:
            before()
            session.execute(MAKE_STORE)
            at_commit()
    finally:
        pool.close()


def in_a_loop(url: str, before: Callable[[], None], at_commit: Callable[[], None]) -> None:
    async def run() -> None:
        pool = AsyncLedgerPool(url, max_size=1)
        await pool.open()
        try:
            async with pool.transaction(read_until(2.0)) as session:
                before()
                await session.execute(MAKE_STORE)
                at_commit()
        finally:
            await pool.close()

    asyncio.run(run())


def nothing() -> None:
    """What happens where nothing does."""


@pytest.mark.parametrize("spoil", [TcpLink.silence, TcpLink.cut], ids=["silent", "cut"])
def test_a_commit_without_an_answer_is_unknown(link: TcpLink, far_url: str, attempt: Attempt, spoil: Spoil) -> None:
    with pytest.raises(OutcomeUnknown):
        attempt(far_url, nothing, lambda: spoil(link))


@pytest.mark.parametrize("spoil", [TcpLink.silence, TcpLink.cut], ids=["silent", "cut"])
def test_a_transaction_whose_commit_was_not_sent_is_not_done(
    link: TcpLink, far_url: str, attempt: Attempt, spoil: Spoil
) -> None:
    with pytest.raises(Unavailable):
        attempt(far_url, lambda: spoil(link), nothing)


def test_a_commit_that_is_refused_is_not_done(database_url: str, attempt: Attempt) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(REFUSED_AT_COMMIT)

    with pytest.raises(Unavailable):
        attempt(database_url, nothing, nothing)


def test_an_endpoint_that_is_deleted_is_not_reported_as_if_it_was_there(
    far_client: Client, link: TcpLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given Postgres goes silent after the endpoint was deleted, then it is not said that nothing is done."""
    made = far_client.webhooks.create(url="https://example.com/hook")
    give_up = webhook_operations.give_up

    def when_silent(store: str, webhook_id: str) -> Statement[bool]:
        link.silence()
        return give_up(store, webhook_id)

    monkeypatch.setattr(webhook_operations, "give_up", when_silent)

    with pytest.raises(OutcomeUnknown, match="deleted"):
        far_client.webhooks.delete(made.id)


@pytest.mark.parametrize(("parts_done", "error"), [(0, Unavailable), (1, OutcomeUnknown)])
def test_what_was_sent_again_in_part_is_not_reported_as_if_nothing_was(
    far_client: Client,
    link: TcpLink,
    monkeypatch: pytest.MonkeyPatch,
    parts_done: int,
    error: type[Exception],
) -> None:
    made = far_client.webhooks.create(url="https://example.com/hook")
    resend_failed, begun = webhook_operations.resend_failed, []

    def in_parts(store: str, webhook_id: str, after: webhook_operations.DeliveryCursor) -> Statement[Any]:
        begun.append(after)
        if len(begun) <= parts_done:
            return Statement(["select"], {}, lambda _: webhook_operations.ResentSlice(1, after))
        link.silence()
        return resend_failed(store, webhook_id, after)

    monkeypatch.setattr(webhook_operations, "resend_failed", in_parts)

    with pytest.raises(error):
        far_client.webhooks.resend_failed(made.id, since=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_dead_letter_that_is_on_its_lane_but_not_marked_is_unknown(
    far_settings: Settings, link: TcpLink, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    identifier, send = uuid4(), Sender.send
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into dead_letters (store_id, dead_letter_id, partition, lane_entry, payload, code, reason) "
            "values (1, %s, 0, '1-1', %s, 'c', 'r')",
            [identifier, PAYLOAD],
        )

    def then_cut(sender: Sender, *arguments: Any, **options: Any) -> Any:
        enqueue = send(sender, *arguments, **options)
        link.cut()
        return enqueue

    monkeypatch.setattr(Sender, "send", then_cut)
    with (
        pytest.raises(OutcomeUnknown, match="replay it again"),
        DeadLetters.connect(far_settings) as letters,
    ):
        letters.replay(letters.get(str(identifier)))
