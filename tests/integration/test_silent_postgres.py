"""Postgres is open and silent: every wait for it ends on our side, and it is used again once it answers."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Client, Settings
from creditlane.audit.whole import verify
from creditlane.producer.api.app import create_app
from creditlane.producer.api.auth import KeyLookup
from creditlane.producer.api.connections import Connections
from creditlane.producer.api.routes.monitoring import CHECK_SECONDS
from creditlane.producer.client._async.ledger_reader import AsyncLedgerReader
from creditlane.producer.client._sync.ledger_reader import LedgerReader
from creditlane.producer.client.ledger_sessions import ASK_AGAIN_SECONDS
from creditlane.producer.ledger.read_limits import CLOSE_SECONDS, READ_SECONDS
from creditlane.producer.operations.api_keys import KeyRow, create_key
from creditlane.producer.operations.lane_status import read_lanes
from creditlane.schemas.errors import AccountNotFound, CreditlaneError, Unavailable, WebhookNotFound
from creditlane.schemas.events import public_endpoint_id
from creditlane.schemas.tickets import Ticket

from ..tcp_link import TcpLink

ANN = "cca_" + "a" * 32
ANN_S_BALANCE = f"/v1/customer-credits/accounts/{ANN}/balance"
TICKET = Ticket("store_default", ANN, "key", "1-0", "0" * 32)
MISSING = public_endpoint_id(UUID(int=7))
SHORT_SECONDS = 0.5
#: What a busy machine may add to a deadline, in seconds; a wait without one would last for ever, and one of the usual
#: length where a shorter one was asked for would be above it.
MARGIN_SECONDS = 4.0
#: How long Postgres is away, in seconds: pauses that double would make the next one as long.
AWAY_SECONDS = 3.5


def within(seconds: float, error: type[CreditlaneError], attempt: Callable[[], Any]) -> None:
    """Expect the error within so many seconds."""
    begun = time.monotonic()
    with pytest.raises(error):
        attempt()
    assert time.monotonic() - begun < seconds + MARGIN_SECONDS


@pytest.mark.parametrize("is_warm", [False, True], ids=["first read", "read like others before"])
def test_a_read_ends_while_postgres_is_silent(far_client: Client, link: TcpLink, is_warm: bool) -> None:
    if is_warm:
        within(READ_SECONDS, AccountNotFound, lambda: far_client.balance(ANN))

    link.silence()
    within(READ_SECONDS, Unavailable, lambda: far_client.balance(ANN))

    link.heal()
    within(READ_SECONDS, AccountNotFound, lambda: far_client.balance(ANN))


def test_what_may_write_ends_while_postgres_is_silent(far_client: Client, link: TcpLink) -> None:
    within(READ_SECONDS, WebhookNotFound, lambda: far_client.webhooks.update(MISSING, name="x"))

    link.silence()

    within(READ_SECONDS, Unavailable, lambda: far_client.webhooks.update(MISSING, name="x"))


def test_sessions_that_a_restart_has_cut_are_not_noticed(far_client: Client, link: TcpLink) -> None:
    for attempt, error in (
        (lambda: far_client.balance(ANN), AccountNotFound),
        (lambda: far_client.webhooks.update(MISSING, name="x"), WebhookNotFound),
    ):
        within(READ_SECONDS, error, attempt)
        link.cut()
        within(READ_SECONDS, error, attempt)


def test_reads_begin_again_soon_after_an_outage(far_settings: Settings, link: TcpLink) -> None:
    """Given Postgres was away for some seconds, when it is back, then nobody waits for as long again."""
    reader = LedgerReader(far_settings)
    away(link, lambda: reader.decisions([TICKET], timeout_seconds=SHORT_SECONDS))
    begun = time.monotonic()

    assert reader.decisions([TICKET]) == [None]

    assert time.monotonic() - begun < AWAY_SECONDS / 2
    reader.close()


def test_a_read_that_began_in_an_outage_notices_its_end(far_settings: Settings, link: TcpLink) -> None:
    reader = LedgerReader(far_settings)
    assert reader.decisions([TICKET]) == [None]
    link.shut()
    with ThreadPoolExecutor(1) as caller:
        reading = caller.submit(reader.decisions, [TICKET])
        with pytest.raises(FutureTimeout):
            reading.result(2.5 * ASK_AGAIN_SECONDS)
        link.reopen()
        begun = time.monotonic()
        assert reading.result() == [None]
    assert time.monotonic() - begun < ASK_AGAIN_SECONDS + MARGIN_SECONDS / 4
    reader.close()


def test_reads_begin_again_soon_after_an_outage_in_an_event_loop(far_settings: Settings, link: TcpLink) -> None:
    with asyncio.Runner() as runner:
        reader = AsyncLedgerReader(far_settings)
        away(link, lambda: runner.run(reader.decisions([TICKET], timeout_seconds=SHORT_SECONDS)))
        begun = time.monotonic()

        assert runner.run(reader.decisions([TICKET])) == [None]

        assert time.monotonic() - begun < AWAY_SECONDS / 2
        runner.run(reader.close())


def away(link: TcpLink, read: Callable[[], list[Any]]) -> None:
    """Read until Postgres has been away for a while."""
    assert read() == [None]
    link.shut()
    until = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < until:
        with pytest.raises(Unavailable):
            read()
    link.reopen()


def test_closing_ends_while_postgres_is_silent(far_client: Client, link: TcpLink) -> None:
    within(READ_SECONDS, AccountNotFound, lambda: far_client.balance(ANN))
    link.silence()

    begun = time.monotonic()
    far_client.close()

    assert time.monotonic() - begun < CLOSE_SECONDS + MARGIN_SECONDS


def test_a_read_takes_no_longer_than_it_is_given(far_settings: Settings, link: TcpLink) -> None:
    reader = LedgerReader(far_settings)
    assert reader.decisions([TICKET], timeout_seconds=READ_SECONDS) == [None]
    link.silence()

    within(SHORT_SECONDS, Unavailable, lambda: reader.decisions([TICKET], timeout_seconds=SHORT_SECONDS))
    within(SHORT_SECONDS, Unavailable, lambda: reader.account(ANN, timeout_seconds=SHORT_SECONDS))
    within(0, Unavailable, lambda: reader.decisions([TICKET], timeout_seconds=0))
    reader.close()


def test_a_read_takes_no_longer_than_it_is_given_in_an_event_loop(far_settings: Settings, link: TcpLink) -> None:
    async def read() -> None:
        reader = AsyncLedgerReader(far_settings)
        assert await reader.decisions([TICKET], timeout_seconds=READ_SECONDS) == [None]
        link.silence()
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await reader.decisions([TICKET], timeout_seconds=SHORT_SECONDS)
        with pytest.raises(Unavailable):
            await reader.account(ANN, timeout_seconds=SHORT_SECONDS)
        assert time.monotonic() - begun < 2 * SHORT_SECONDS + MARGIN_SECONDS
        await reader.close()

    asyncio.run(read())


def test_a_read_that_is_cancelled_ends_at_once(far_settings: Settings, link: TcpLink) -> None:
    """Given a silent Postgres, when the caller gives up, then nobody waits for it to take note."""

    async def read() -> None:
        reader = AsyncLedgerReader(far_settings)
        assert await reader.decisions([TICKET]) == [None]
        link.silence()
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT_SECONDS):
                await reader.decisions([TICKET])
        assert time.monotonic() - begun < SHORT_SECONDS + MARGIN_SECONDS
        await reader.close()

    asyncio.run(read())


def test_status_ends_while_postgres_is_silent(far_settings: Settings, link: TcpLink) -> None:
    link.silence()

    within(READ_SECONDS, Unavailable, lambda: read_lanes(far_settings))


@pytest.fixture
def far_api(far_settings: Settings) -> Callable[[], AbstractContextManager[TestClient]]:
    """The API over the link, with a key of its store."""
    with psycopg.connect(far_settings.require_database_url(), autocommit=True) as connection:
        key = create_key(connection, far_settings.store, "test")
    return lambda: TestClient(create_app(far_settings), headers={"x-api-key": key}, raise_server_exceptions=False)


def test_the_api_answers_while_postgres_is_silent(
    link: TcpLink, far_api: Callable[[], AbstractContextManager[TestClient]]
) -> None:
    with far_api() as api:
        assert api.get(ANN_S_BALANCE).status_code == 404
        link.silence()

        begun = time.monotonic()
        ready = api.get("/readyz")
        assert time.monotonic() - begun < CHECK_SECONDS + MARGIN_SECONDS
        assert ready.status_code == 503
        assert "postgres" in ready.json()["problems"]

        begun = time.monotonic()
        assert api.get(ANN_S_BALANCE).status_code == 503
        assert time.monotonic() - begun < READ_SECONDS + MARGIN_SECONDS

        begun = time.monotonic()
    # Its end, too.
    assert time.monotonic() - begun < CLOSE_SECONDS + MARGIN_SECONDS


def test_a_request_waits_no_longer_when_others_wait_already(
    link: TcpLink, far_api: Callable[[], AbstractContextManager[TestClient]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, is_read = Connections.read, threading.Event()

    async def delayed(*asked: Any) -> Any:
        is_read.set()
        return await read(*asked)

    with far_api() as api, ThreadPoolExecutor(1) as other:
        assert api.get(ANN_S_BALANCE).status_code == 404
        monkeypatch.setattr(Connections, "read", delayed)
        link.silence()
        waiting = other.submit(api.get, ANN_S_BALANCE)
        assert is_read.wait(READ_SECONDS)

        begun = time.monotonic()
        assert api.get(ANN_S_BALANCE).status_code == 503
        assert time.monotonic() - begun < READ_SECONDS + MARGIN_SECONDS
        assert waiting.result().status_code == 503


def test_what_is_read_has_the_time_that_the_check_of_the_key_has_left(
    link: TcpLink, far_api: Callable[[], AbstractContextManager[TestClient]], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = KeyLookup.find

    async def find_slowly(lookup: KeyLookup, *asked: Any) -> list[KeyRow]:
        rows = await find(lookup, *asked)
        await asyncio.sleep(READ_SECONDS - SHORT_SECONDS)
        link.silence()
        return rows

    with far_api() as api:
        assert api.get(ANN_S_BALANCE).status_code == 404
        monkeypatch.setattr(KeyLookup, "find", find_slowly)

        begun = time.monotonic()
        assert api.get(ANN_S_BALANCE).status_code == 503
        assert time.monotonic() - begun < READ_SECONDS + MARGIN_SECONDS


def test_the_proof_of_the_books_ends_when_nobody_waits_for_it(far_settings: Settings, link: TcpLink) -> None:
    """Given a Postgres that falls silent in the middle of the proof, then it ends once its owner says so."""
    url = far_settings.require_database_url()
    assert verify(url).discrepancies == 0

    def silence_at_once(_silent_seconds: float) -> bool:
        link.silence()
        return True

    within(READ_SECONDS, Unavailable, lambda: verify(url, is_overdue=silence_at_once))
