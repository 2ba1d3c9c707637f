"""The clients of `creditlane.testing`: as the real ones to who calls them, and light. What they do the conformance
tests of the clients show; here is what only they have."""

import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from creditlane import (
    AccountNotFound,
    AsyncClient,
    Client,
    Credit,
    CreditlaneError,
    Debit,
    IdempotencyKeyMismatch,
    InvalidCommand,
    LaneFull,
    OpenAccount,
    OutcomeUnknown,
    Settings,
    Ticket,
)
from creditlane.testing import AsyncFakeClient, FakeClient, FakeClock, FakeLedger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: What a test without servers must not pay for.
DRIVERS = {"psycopg", "psycopg_pool", "redis", "rq", "sqlalchemy", "alembic", "standardwebhooks", "structlog", "pytest"}
TWINS = [(Client, FakeClient), (AsyncClient, AsyncFakeClient)]


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger(FakeClock(NOON))


@pytest.fixture
def client(ledger: FakeLedger) -> FakeClient:
    return FakeClient(ledger=ledger)


def debit(account_id: str, key: str = "debit", amount: int = 1) -> Debit:
    return Debit(account_id=account_id, amount=amount, reference="r", idempotency_key=key)


def parts() -> list[tuple[type, type]]:
    """Return each kind of client and of its webhooks, real and fake."""
    settings = Settings(redis_url="redis://localhost:1/0", database_url="postgresql://u@localhost/x")
    return [*TWINS, *((type(real(settings).webhooks), type(fake().webhooks)) for real, fake in TWINS)]


METHODS = [
    (real, fake, name)
    for real, fake in parts()
    for name, member in sorted(vars(real).items())
    if inspect.isfunction(member) and not name.startswith("__")
]


def needs_servers(real: type, name: str, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a method names the connections, by itself or through private ones that it calls."""
    member = vars(real).get(name)
    if name in {"_session", "_sessions"}:
        return True
    if not inspect.isfunction(member) or name in seen:
        return False
    return any(needs_servers(real, each, seen | {name}) for each in member.__code__.co_names if each.startswith("_"))


@pytest.mark.parametrize(("real", "fake", "name"), METHODS)
def test_no_method_of_a_client_needs_a_server_in_its_fake(real: type, fake: type, name: str) -> None:
    """Given a method of a client that names its connections, then the fake has its own, with the same parameters."""

    def described(owner: type) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(getattr(owner, name)).parameters.values()
        return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]

    is_public = not name.startswith("_")
    is_hook = name in getattr(real.__base__, "__abstractmethods__", ())
    if needs_servers(real, name) and (is_public or is_hook):
        assert name in vars(fake)
    assert described(fake) == described(real)
    assert inspect.iscoroutinefunction(getattr(fake, name)) == inspect.iscoroutinefunction(getattr(real, name))
    assert not is_public or inspect.getdoc(getattr(fake, name))


@pytest.mark.parametrize(("real", "fake"), TWINS)
def test_a_fake_is_taken_where_a_client_is_asked_for(real: type, fake: Callable[[], object]) -> None:
    assert isinstance(fake(), real)


@pytest.mark.parametrize(("real", "fake"), TWINS)
def test_every_public_attribute_of_a_client_is_the_fakes(real: Callable[..., Any], fake: Callable[..., Any]) -> None:
    settings = Settings(redis_url="redis://localhost:1/0")

    assert {name for name in vars(real(settings)) if not name.startswith("_")} <= set(vars(fake(settings)))


USE = """
import asyncio, sys
from creditlane import Debit
from creditlane.testing import AsyncFakeClient, FakeClient, FakeLedger

def use(client):
    account = client.open_account(customer_id="c", initial_balance=10)
    client.webhooks.create(url="https://example.com/hook")
    result = client.debit(account.id, 3, reference="r", idempotency_key="k")
    client.reverse(account.id, result.transaction_id)
    tickets = client.enqueue_many([Debit(account_id=account.id, amount=1, reference="r", idempotency_key="b")])
    list(client.wait_many(tickets)), list(client.entries(account.id)), client.balance_at(account.id, account.created_at)
    client.schedule(Debit(account_id=account.id, amount=1, reference="r", idempotency_key="s"), at=account.created_at)

async def use_async(client):
    return await client.ensure_account(customer_id="c")

use(FakeClient())
asyncio.run(use_async(AsyncFakeClient()))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_neither_importing_nor_using_the_fakes_imports_a_driver() -> None:
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)

    assert "creditlane" in done.stdout.split()
    assert DRIVERS & set(done.stdout.split()) == set()


def test_the_plugin_imports_nothing_before_a_fixture_is_asked_for() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); import creditlane.testing.pytest_plugin; "
        "print(*{name for name in set(sys.modules) - before if not name.startswith('creditlane.testing')})"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    # An editable install has a finder of its own, which may load parts of the standard library.
    assert {name.partition(".")[0] for name in done.stdout.split()} <= {"creditlane", *sys.stdlib_module_names}
    assert {name for name in done.stdout.split() if name.startswith("creditlane.")} == set()


def test_a_fake_needs_no_setting_and_takes_none_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITLANE_STORE", "no store at all")

    assert FakeClient().settings.store == "store_default"


def test_from_env_has_the_store_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITLANE_STORE", "store_env")

    assert [kind.from_env().settings.store for kind in (FakeClient, AsyncFakeClient)] == ["store_env"] * 2
    assert repr(FakeClient.from_env(store="store_mine")) == "<FakeClient of store_mine>"


async def test_a_closed_fake_says_so() -> None:
    blocking, asynchronous = FakeClient(), AsyncFakeClient()
    with blocking:
        pass
    async with asynchronous:
        pass

    with pytest.raises(CreditlaneError, match="closed"):
        blocking.webhooks.list()
    with pytest.raises(CreditlaneError, match="closed"):
        await asynchronous.ensure_account(customer_id="c")


async def test_clients_of_one_ledger_see_the_same_accounts(client: FakeClient, ledger: FakeLedger) -> None:
    account = client.ensure_account(customer_id="c", initial_balance=10)
    asynchronous = AsyncFakeClient(ledger=ledger)
    stranger = FakeClient(Settings(store="store_other"), ledger=ledger)

    await asynchronous.debit(account.id, 4, reference="r", idempotency_key="k")

    assert client.balance(account.id) == 6
    assert [entry.amount async for entry in asynchronous.entries(account.id)] == [4, 10]
    with pytest.raises(AccountNotFound):
        stranger.balance(account.id)
    with pytest.raises(InvalidCommand, match="another store"):
        stranger.wait(client.enqueue(debit(account.id)))


def test_a_clock_stands_still_until_it_is_moved_and_never_goes_back() -> None:
    clock = FakeClock(NOON)

    moved = clock.advance(timedelta(hours=1), days=1, minutes=2, seconds=3)

    assert moved == clock.now() == NOON + timedelta(days=1, hours=1, minutes=2, seconds=3)
    assert clock.move_to(NOON + timedelta(days=30)) == clock.now()
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(seconds=-1)
    with pytest.raises(ValueError, match="time zone"):
        clock.move_to(datetime(2030, 1, 1))  # noqa: DTZ001  that is the point
    assert abs(FakeClock().now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_entries_have_the_time_of_the_clock_and_balances_of_the_past_go_by_it(
    client: FakeClient, ledger: FakeLedger
) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    ledger.clock.advance(days=1)
    client.debit(account.id, 4, reference="r", idempotency_key="k")
    ledger.clock.advance(days=1)

    debit, credit = client.entries(account.id)
    balances = [client.balance_at(account.id, NOON + timedelta(hours=hours)) for hours in (-1, 23, 24, 999)]

    assert (credit.created_at, debit.created_at) == (NOON, NOON + timedelta(days=1))
    assert [read.balance for read in balances] == [0, 10, 6, 6]
    assert balances[-1].as_of == NOON + timedelta(days=2)
    assert balances[1].as_of == NOON + timedelta(hours=23)


def test_a_scheduled_command_is_applied_when_the_clock_comes_to_its_time(
    client: FakeClient, ledger: FakeLedger
) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    at = {key: NOON + timedelta(days=days) for key, days in {"third": 3, "first": 1, "second": 2}.items()}
    for key, moment in at.items():
        assert client.schedule(debit(account.id, key), at=moment) == key

    ledger.clock.advance(days=1, hours=1)
    after_one = client.balance(account.id)
    ledger.clock.advance(days=30)
    entries = list(client.entries(account.id))

    assert after_one == 9
    assert [(entry.idempotency_key, entry.created_at) for entry in entries[:3]] == [
        (key, at[key]) for key in ("third", "second", "first")
    ]


def test_a_command_that_is_scheduled_for_the_past_is_applied_at_once(client: FakeClient) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)

    client.schedule(debit(account.id), at=NOON - timedelta(days=1))

    (entry, _) = client.entries(account.id)
    assert (entry.idempotency_key, entry.created_at >= NOON) == ("debit", True)


def test_scheduling_again_moves_the_time_and_another_command_is_a_mismatch(
    client: FakeClient, ledger: FakeLedger
) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    for days in (1, 2):
        client.schedule(debit(account.id), at=NOON + timedelta(days=days))

    with pytest.raises(IdempotencyKeyMismatch):
        client.schedule(debit(account.id, amount=2), at=NOON + timedelta(days=1))
    ledger.clock.advance(days=1)
    assert client.balance(account.id) == 10
    ledger.clock.advance(days=1)
    assert client.balance(account.id) == 9


def test_what_is_cancelled_in_time_is_not_applied(client: FakeClient, ledger: FakeLedger) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    for key in ("kept", "cancelled"):
        client.schedule(debit(account.id, key), at=NOON + timedelta(days=1))

    cancelled = [client.cancel("cancelled"), client.cancel("cancelled"), client.cancel("unknown")]
    ledger.clock.advance(days=1)

    assert cancelled == [True, False, False]
    assert client.cancel("kept") is False
    assert client.balance(account.id) == 9


def test_while_a_ledger_is_paused_commands_stay_queued(client: FakeClient, ledger: FakeLedger) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    ledger.pause()
    ticket = client.enqueue(debit(account.id, "enqueued"))

    with pytest.raises(OutcomeUnknown, match="may still apply") as caught:
        client.debit(account.id, 2, reference="r", idempotency_key="debited")
    with pytest.raises(OutcomeUnknown, match="1 of 1 commands"):
        list(client.wait_many([ticket]))
    with pytest.raises(OutcomeUnknown):
        client.balance(account.id, after=ticket)
    assert (client.result(ticket).status, client.pending(account.id), client.balance(account.id)) == ("queued", 2, 10)

    ledger.resume()
    debited = caught.value.ticket
    assert isinstance(debited, Ticket)
    assert [result.balance for result in client.wait_many([ticket, str(debited)])] == [9, 7]
    assert client.pending(account.id) == 0
    assert client.debit(account.id, 2, reference="r", idempotency_key="debited").replayed


def test_a_lane_of_a_paused_ledger_is_full_at_its_limit(ledger: FakeLedger) -> None:
    client = FakeClient(Settings(lane_limit=2), ledger=ledger)
    account = client.open_account(customer_id="c", initial_balance=10)
    ledger.pause()
    client.enqueue(debit(account.id, "first"))

    with pytest.raises(LaneFull) as caught:
        client.enqueue_many([debit(account.id, "second"), debit(account.id, "third")])

    assert caught.value.accepted == 0
    assert client.pending(account.id) == 1


def test_a_ticket_that_was_given_out_elsewhere_is_unknown(client: FakeClient) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    elsewhere = FakeClient()
    elsewhere.open_account(customer_id="c", account_id=account.id)

    with pytest.raises(OutcomeUnknown, match="neither on its lane nor in the ledger"):
        client.result(elsewhere.enqueue(debit(account.id)))


async def test_an_asynchronous_bulk_takes_generators_and_accepts_what_comes_before_an_error() -> None:
    client = AsyncFakeClient()
    account = await client.open_account(customer_id="c", initial_balance=10)

    async def commands() -> AsyncIterator[Debit]:
        for number in range(3):
            yield debit(account.id, f"key {number}")
        raise LookupError

    with pytest.raises(LookupError):
        await client.enqueue_many(commands())

    assert await client.balance(account.id) == 7


def test_threads_may_share_a_client(client: FakeClient) -> None:
    account = client.open_account(customer_id="c", initial_balance=1_000)

    def spend(name: str) -> None:
        for number in range(100):
            client.debit(account.id, 1, reference="r", idempotency_key=f"{name} {number}")

    threads = [threading.Thread(target=spend, args=(f"thread {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    balances = [entry.balance_after for entry in client.entries(account.id)]
    assert balances == list(range(600, 1_001))


def test_an_account_that_is_opened_by_a_command_has_the_id_that_its_key_gives(client: FakeClient) -> None:
    opening = OpenAccount(customer_id="c", idempotency_key="open", metadata={"a": "b"})

    ticket = client.enqueue(opening)
    client.enqueue(Credit(account_id=ticket.account_id, amount=5, reference="r", idempotency_key="credit"))

    account = client.account(ticket.account_id)
    assert (account.balance, account.metadata) == (5, {"a": "b"})


def test_a_timeout_that_is_no_number_is_refused_before_the_command_is_decided(client: FakeClient) -> None:
    account = client.ensure_account(customer_id="cust_1")
    wrong: Any = "1"

    with pytest.raises(TypeError):
        client.credit(account.id, 5, reference="r", idempotency_key="k", timeout=wrong)

    assert client.balance(account.id) == 0
