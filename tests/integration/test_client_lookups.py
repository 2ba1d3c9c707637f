"""The clients find accounts, transactions and balances of the past, and open an account once however often asked."""

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from creditlane import (
    Account,
    AccountNameTaken,
    AccountNotFound,
    Client,
    OpenAccount,
    Settings,
    TransactionNotFound,
    Unavailable,
)
from creditlane.producer.ledger import reads as ledger_reads
from creditlane.producer.ledger import watermark
from creditlane.schemas.commands import Close, Command, Credit, Freeze, Post, PostEntry, Reverse

from .direct_store import DirectStore, codes

MakeClient = Callable[[Settings], Client]

DEADLINE_SECONDS = 60.0
UNKNOWN = "cca_" + "0" * 32
LONG_AGO = datetime(2020, 1, 1, 0, 0, 0, 123_900, UTC)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def account_id(number: int) -> str:
    return f"cca_{number:032x}"


def opening(number: int, customer: str = "ann", name: str = "default", balance: int = 100) -> OpenAccount:
    return OpenAccount(
        account_id=account_id(number),
        customer_id=customer,
        name=name,
        initial_balance=balance,
        idempotency_key=f"open {number}",
        metadata={"number": str(number)},
    )


def applied(books: DirectStore, *commands: Command) -> None:
    """Apply each in a batch of its own, so that their times differ."""
    for command in commands:
        assert codes(books.apply(command)) == ["applied"]


def ids(accounts: Any) -> list[str]:
    return [account.id for account in accounts]


@pytest.mark.conformance
@pytest.mark.parametrize("page", [2, 500])
def test_accounts_are_listed_by_customer_newest_first(
    client: Client, books: DirectStore, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_reads, "PAGE_ITEMS", page)
    anns = [opening(number, name=f"n{number}") for number in range(1, 6)]
    close = Close(account_id=account_id(2), idempotency_key="close")
    applied(books, *anns, opening(9, customer="bob"), close)
    newest_first = [account_id(number) for number in (5, 4, 3, 2, 1)]

    assert ids(client.accounts("ann")) == newest_first
    assert ids(client.accounts("ann", limit=3)) == newest_first[:3]
    assert ids(client.accounts()) == [account_id(9), *newest_first]
    assert ids(client.accounts("nobody")) == []
    assert [account.status for account in client.accounts("ann")] == ["active"] * 3 + ["closed", "active"]
    assert list(client.accounts("ann", limit=1)) == [client.account(account_id(5))]


@pytest.mark.conformance
def test_an_account_is_found_by_customer_and_name_as_long_as_it_is_open(client: Client, books: DirectStore) -> None:
    freeze = Freeze(account_id=account_id(2), idempotency_key="freeze")
    applied(books, opening(1), opening(2, name=" Tokens "), opening(3, customer="bob"), freeze)

    found = client.find_account(customer_id="ann")
    assert found == client.account(account_id(1))
    assert found is not None
    assert (found.balance, found.metadata) == (100, {"number": "1"})
    frozen = client.find_account(customer_id="ann", name="tOKENS")
    assert frozen is not None
    assert (frozen.id, frozen.status) == (account_id(2), "frozen")
    assert client.find_account(customer_id="cat") is None

    applied(books, Close(account_id=account_id(1), idempotency_key="close"))
    assert client.find_account(customer_id="ann") is None


@pytest.mark.conformance
@pytest.mark.usefixtures("running_worker")
def test_an_ensured_account_is_opened_once_and_found_ever_after(client: Client) -> None:
    first = client.ensure_account(customer_id="ann", unit_label="tokens", initial_balance=100)
    client.debit(first.id, 30, reference="r", idempotency_key="debit")

    again = client.ensure_account(customer_id="ann", name="DEFAULT", unit_label="other", initial_balance=100)

    assert (first.balance, again.id, again.balance, again.unit_label) == (100, first.id, 70, "tokens")
    assert ids(client.accounts("ann")) == [first.id]

    client.close_account(first.id)
    reopened = client.ensure_account(customer_id="ann")
    assert (reopened.id != first.id, reopened.status, reopened.balance) == (True, "active", 0)


ENSURE = """
import sys
from creditlane import Client
with Client.from_env() as client:
    client.find_account(customer_id="nobody")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(10):
        print(client.ensure_account(customer_id=f"c{number}", initial_balance=100).id)
"""


@pytest.mark.usefixtures("running_worker")
def test_processes_that_ensure_an_account_at_once_get_the_same_one(
    client: Client, settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    """Given two processes that want the accounts of ten customers, then each has one, with one seed."""
    command, environment = [sys.executable, "-c", ENSURE], environment_of(settings)
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]

    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=DEADLINE_SECONDS)[0] for process in processes]
    own = [client.ensure_account(customer_id=f"c{number}", initial_balance=100) for number in range(10)]

    assert [answer.split() for answer in answers] == [[account.id for account in own]] * 2
    assert [account.balance for account in own] == [100] * 10
    assert len(list(client.accounts())) == 10


@pytest.mark.usefixtures("running_worker")
def test_who_loses_the_race_for_a_name_gets_the_winners_account(
    client: Client, make_client: MakeClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a second caller that opens the account between a first one's read and its opening, then both get it."""
    rival = make_client(settings)
    opened: list[Account] = []
    read = ledger_reads.open_account

    def look_and_lose(customer_id: str, name: str) -> Any:
        found = yield from read(customer_id, name)
        if not opened:
            opened.append(rival.open_account(customer_id="ann", initial_balance=7))
        return found

    monkeypatch.setattr(ledger_reads, "open_account", look_and_lose)

    assert client.ensure_account(customer_id="ann", initial_balance=100).id == opened[0].id
    assert [account.balance for account in client.accounts("ann")] == [7]


@pytest.mark.conformance
@pytest.mark.usefixtures("running_worker")
def test_a_name_that_is_taken_names_the_account_that_has_it(make_client: MakeClient, settings: Settings) -> None:
    """Given a refusal for its name, then it says which account had it: at once, as a replay, and from elsewhere."""
    client = make_client(settings)
    first = client.open_account(customer_id="ann", name="Main")
    refused = OpenAccount(customer_id="ann", name="main", idempotency_key="second")

    for _ in range(2):
        with pytest.raises(AccountNameTaken) as caught:
            client.open_account(customer_id="ann", name="main", idempotency_key="second")
        assert caught.value.details == {"account_id": first.id}
        assert first.id in caught.value.message
    ticket = client.enqueue(refused)
    answers = [client.wait(ticket), make_client(settings).wait(str(ticket)), make_client(settings).result(str(ticket))]

    assert [answer.error.details for answer in answers if answer.error] == [{"account_id": first.id}] * 3
    assert [answer.error.code for answer in answers if answer.error] == ["account_name_taken"] * 3


def gift(source: int, target: int, key: str) -> Post:
    sides = (("debit", source), ("credit", target))
    entries = tuple(PostEntry(account_id=account_id(number), side=side, amount=5) for side, number in sides)  # type: ignore[arg-type]
    return Post(entries=entries, reference="gift", idempotency_key=key, metadata={"from": str(source)})


@pytest.mark.conformance
def test_a_transaction_is_read_with_all_its_entries(client: Client, books: DirectStore) -> None:
    applied(books, opening(1), opening(2, customer="bob"), gift(1, 2, "g1"))
    (entry,) = client.entries(account_id(2), limit=1)

    found = client.transaction(entry.transaction_id)

    assert (found.id, found.reference, found.idempotency_key) == (entry.transaction_id, "gift", "g1")
    assert (found.store_id, found.metadata, found.reversal_of) == ("store_default", {"from": "1"}, None)
    assert [(each.account_id, each.side, each.amount, each.balance_after) for each in found.entries] == [
        (account_id(1), "debit", 5, 95),
        (account_id(2), "credit", 5, 105),
    ]
    assert found.entries[1] == entry
    assert found.created_at == entry.created_at

    applied(books, Reverse(account_id=account_id(1), transaction_id=found.id))
    undone, _ = client.transactions("gift")
    assert (undone.reversal_of, undone.idempotency_key) == (found.id, f"reversal:{found.id}")
    assert [each.reversal_of for each in undone.entries] == [found.id] * 2
    assert client.transaction(undone.id) == undone


@pytest.mark.conformance
def test_an_opening_is_a_transaction_without_metadata_of_its_own(client: Client, books: DirectStore) -> None:
    applied(books, opening(1))
    (entry,) = client.entries(account_id(1))

    assert client.transaction(entry.transaction_id).metadata is None
    assert client.transaction(entry.transaction_id).entries == (entry,)


@pytest.mark.conformance
@pytest.mark.parametrize("page", [2, 100])
def test_transactions_are_found_by_their_reference_newest_first(
    client: Client, books: DirectStore, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_reads, "PAGE_TRANSACTIONS", page)
    gifts = [gift(1, 2, f"g{number}") for number in range(5)]
    other = Credit(account_id=account_id(1), amount=1, reference="Gift", idempotency_key="other")
    applied(books, opening(1), opening(2, customer="bob"), *gifts, other)

    assert [found.idempotency_key for found in client.transactions("gift")] == ["g4", "g3", "g2", "g1", "g0"]
    assert [found.idempotency_key for found in client.transactions("gift", limit=3)] == ["g4", "g3", "g2"]
    assert [found.idempotency_key for found in client.transactions("Gift")] == ["other"]
    assert list(client.transactions("nothing")) == []
    assert all(found == client.transaction(found.id) for found in client.transactions("gift"))


@pytest.mark.conformance
def test_another_stores_accounts_and_transactions_are_not_found(
    client: Client, make_client: MakeClient, settings: Settings, books: DirectStore, make_store: Callable[[str], None]
) -> None:
    """Given the ids, names and references of one store, when another asks for them, then it finds nothing."""
    make_store("store_other")
    applied(books, opening(1))
    (entry,) = client.entries(account_id(1))

    for store in ("store_other", "store_that_is_not_there"):
        stranger = make_client(settings.model_copy(update={"store": store}))
        assert list(stranger.accounts()) == list(stranger.accounts("ann")) == []
        assert stranger.find_account(customer_id="ann") is None
        assert list(stranger.transactions("initial_balance")) == []
        with pytest.raises(TransactionNotFound):
            stranger.transaction(entry.transaction_id)
        with pytest.raises(AccountNotFound):
            stranger.balance_at(account_id(1), datetime.now(UTC))
        with pytest.raises(AccountNotFound):
            stranger.account(account_id(1))


@pytest.mark.conformance
def test_a_balance_is_read_as_of_every_moment(client: Client, books: DirectStore) -> None:
    """Given a credit, then the balance at its moment has it, the one a millisecond before has not, and both stay."""
    credit = Credit(account_id=account_id(1), amount=1, reference="r", idempotency_key="credit")
    applied(books, opening(1), credit)
    latest, first = client.entries(account_id(1))
    at = latest.created_at.astimezone(timezone(timedelta(hours=5)))

    answered = client.balance_at(account_id(1), at)
    assert answered.balance == 101
    assert answered.as_of == watermark.whole(latest.created_at)
    assert answered.as_of.utcoffset() == timedelta(0)
    assert client.balance_at(account_id(1), answered.as_of) == answered
    before = watermark.whole(first.created_at) - timedelta(milliseconds=1)
    assert client.balance_at(account_id(1), before).balance == 0
    long_ago = client.balance_at(account_id(1), LONG_AGO)
    assert (long_ago.balance, long_ago.as_of) == (0, LONG_AGO.replace(microsecond=123_000))
    future = client.balance_at(account_id(1), datetime.max.replace(tzinfo=UTC))
    assert future.balance == 101
    assert answered.as_of <= future.as_of <= datetime.now(UTC)


def test_a_moment_at_which_something_can_still_come_is_not_answered(
    make_client: MakeClient, settings: Settings, books: DirectStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a writer under way since long, then what was complete before is answered, and nothing where none was known.

    The role of a client does not see when the sessions of workers began, so it can only wait for their end.
    """
    monkeypatch.setattr(watermark, "MAX_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(watermark, "REMEMBERED_SECONDS", 0.0)
    applied(books, opening(1))
    client, late = make_client(settings), make_client(settings)
    known = client.balance_at(account_id(1), datetime.now(UTC))
    with psycopg.connect(database_url) as writer:
        writer.execute("lock table leases in row share mode")
        answered = client.balance_at(account_id(1), datetime.now(UTC) + timedelta(hours=1))
        with pytest.raises(Unavailable, match="can still change"):
            late.balance_at(account_id(1), LONG_AGO)

    assert (answered.balance, answered.as_of >= known.as_of) == (100, True)
    assert late.balance_at(account_id(1), LONG_AGO).balance == 0


@pytest.mark.conformance
def test_threads_of_one_client_may_ask_for_moments_at_once(client: Client, books: DirectStore) -> None:
    applied(books, opening(1))
    (entry,) = client.entries(account_id(1))
    answered: list[int] = []

    def ask() -> None:
        answered.extend(client.balance_at(account_id(1), entry.created_at).balance for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert answered == [100] * 40


@pytest.mark.conformance
def test_what_is_not_there_is_said_so(client: Client) -> None:
    with pytest.raises(AccountNotFound):
        client.balance_at(UNKNOWN, LONG_AGO)
    with pytest.raises(TransactionNotFound, match="this store"):
        client.transaction("cct_" + "0" * 32 + "1")
