"""The clients with a real worker: what is asked for is done once, and its result is found wherever one asks."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from creditlane import (
    AccountClosed,
    AccountFrozen,
    AccountNameTaken,
    AccountNotFound,
    AccountNotFrozen,
    AccountOverdrawn,
    Client,
    Command,
    Credit,
    Debit,
    IdempotencyKeyMismatch,
    InsufficientBalance,
    OpenAccount,
    ReversalNotReversible,
    Settings,
    TransactionNotFound,
)
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.producer.client import chunks, pending_replies
from creditlane.producer.ledger import reads as ledger_reads

pytestmark = pytest.mark.usefixtures("running_worker")

MakeClient = Callable[[Settings], Client]
#: How long a test waits for what must come, in seconds; a worker has to start first.
DEADLINE_SECONDS = 60.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The test's settings, with the time that a worker's start takes on a busy machine."""
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def debits(account_id: str, count: int, amount: int = 1) -> Iterator[Command]:
    for number in range(count):
        yield Debit(account_id=account_id, amount=amount, reference="r", idempotency_key=f"key_{number}")


@pytest.mark.conformance
def test_an_account_is_opened_moved_and_read_back(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", unit_label="tokens", initial_balance="100", overdraft_limit=20)

    credit = client.credit(account.id, "25", reference="bonus", idempotency_key="credit_1")
    debit = client.debit(account.id, 140, reference="req_1", idempotency_key="debit_1")

    assert (account.customer_id, account.unit_label, account.balance, account.available) == (
        "cust_1",
        "tokens",
        100,
        120,
    )
    assert (credit.status, credit.side, credit.amount, credit.balance) == ("applied", "credit", 25, 125)
    assert (debit.side, debit.balance, debit.reference, debit.replayed) == ("debit", -15, "req_1", False)
    assert client.balance(account.id) == client.account(account.id).balance == -15
    entries = list(client.entries(account.id))
    assert [(entry.side, entry.amount, entry.balance_after) for entry in entries] == [
        ("debit", 140, -15),
        ("credit", 25, 125),
        ("credit", 100, 100),
    ]
    assert entries[0].transaction_id == debit.transaction_id
    # A result is announced a moment before its command leaves the lane.
    assert wait_until(lambda: client.pending(account.id) == 0, seconds=10)


@pytest.mark.conformance
def test_amounts_beyond_every_machine_number_come_back_exactly(client: Client) -> None:
    amount = 10**40 + 7
    account = client.open_account(customer_id="cust_1", initial_balance=amount)

    result = client.debit(account.id, str(amount - 1), reference="r", idempotency_key="debit_1")

    assert (result.amount, result.balance, client.balance(account.id)) == (amount - 1, 1, 1)


@pytest.mark.conformance
def test_a_repeated_request_gets_the_first_result_again(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", initial_balance=100, idempotency_key="open_1")
    first = client.debit(account.id, 5, reference="r", idempotency_key="debit_1")

    again = client.debit(account.id, 5, reference="r", idempotency_key="debit_1")

    assert again == first.model_copy(update={"replayed": True})
    assert client.balance(account.id) == 95
    opened_again = client.open_account(customer_id="cust_1", initial_balance=100, idempotency_key="open_1")
    assert (opened_again.id, opened_again.balance) == (account.id, 95)


@pytest.mark.conformance
def test_a_key_used_for_another_request_is_a_mismatch_wherever_it_is_asked(
    make_client: MakeClient, settings: Settings
) -> None:
    client, elsewhere = make_client(settings), make_client(settings)
    account = client.open_account(customer_id="cust_1", initial_balance=100)
    client.debit(account.id, 5, reference="r", idempotency_key="key_1")

    with pytest.raises(IdempotencyKeyMismatch):
        client.debit(account.id, 6, reference="r", idempotency_key="key_1")
    ticket = client.enqueue(Credit(account_id=account.id, amount=5, reference="r", idempotency_key="key_1"))
    answers = [client.wait(ticket), elsewhere.wait(str(ticket)), elsewhere.result(str(ticket))]

    assert [answer.error.code for answer in answers if answer.error] == ["idempotency_key_mismatch"] * 3
    assert client.balance(account.id) == 95


@pytest.mark.conformance
def test_a_rejection_is_raised_as_what_it_is_and_changes_nothing(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", name="Main", initial_balance=10)
    unknown = "cca_" + "0" * 32

    with pytest.raises(InsufficientBalance) as caught:
        client.debit(account.id, 11, reference="r", idempotency_key="debit_1")
    with pytest.raises(AccountNotFound):
        client.credit(unknown, 1, reference="r", idempotency_key="credit_1")
    with pytest.raises(AccountNameTaken):
        client.open_account(customer_id="cust_1", name=" MAIN ")

    assert caught.value.details == {"needed": "11", "available": "10"}
    assert client.balance(account.id) == 10


@pytest.mark.conformance
def test_a_transaction_is_reversed_once(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", initial_balance=10)
    debit = client.debit(account.id, 4, reference="r", idempotency_key="debit_1")
    assert debit.transaction_id

    reversal = client.reverse(account.id, debit.transaction_id)
    again = client.reverse(account.id, debit.transaction_id)

    assert (reversal.balance, reversal.side, reversal.reversal_of) == (10, "credit", debit.transaction_id)
    assert again == reversal.model_copy(update={"replayed": True})
    assert next(iter(client.entries(account.id, limit=1))).reversal_of == debit.transaction_id
    with pytest.raises(ReversalNotReversible):
        client.reverse(account.id, str(reversal.transaction_id))
    with pytest.raises(TransactionNotFound):
        client.reverse(account.id, f"cct_{account.id[4:]}ff")


@pytest.mark.conformance
def test_an_account_is_frozen_unfrozen_and_closed(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", initial_balance=10)

    with pytest.raises(AccountNotFrozen):
        client.unfreeze(account.id)
    assert client.freeze(account.id).status == "frozen"
    with pytest.raises(AccountFrozen):
        client.debit(account.id, 1, reference="r", idempotency_key="debit_1")
    assert client.unfreeze(account.id).status == "active"
    assert client.close_account(account.id).status == "closed"
    with pytest.raises(AccountClosed):
        client.freeze(account.id)


@pytest.mark.conformance
def test_an_account_below_zero_is_closed_once_it_is_settled(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", overdraft_limit=5)
    client.debit(account.id, 3, reference="r", idempotency_key="debit_1")

    with pytest.raises(AccountOverdrawn) as refusal:
        client.close_account(account.id)

    assert refusal.value.details == {"balance": "-3"}
    assert client.account(account.id).status == "active"
    client.credit(account.id, 3, reference="r", idempotency_key="credit_1")
    assert client.close_account(account.id).status == "closed"


@pytest.mark.conformance
def test_a_balance_can_be_asked_for_as_new_as_a_command(client: Client) -> None:
    account = client.open_account(customer_id="cust_1", initial_balance=1_000)
    tickets = client.enqueue_many(debits(account.id, 500))

    assert client.balance(account.id, after=tickets[-1]) == 500
    assert client.balance(account.id, after=str(tickets[0])) == 500


def test_a_result_is_found_by_its_text_after_its_poll_key_is_gone(make_client: MakeClient, settings: Settings) -> None:
    client, elsewhere = make_client(settings), make_client(settings)
    account = client.open_account(customer_id="cust_1", initial_balance=10)
    text = str(client.enqueue(Debit(account_id=account.id, amount=3, reference="r", idempotency_key="debit_1")))
    kept = elsewhere.wait(text)
    with redis.Redis.from_url(settings.require_redis_url()) as connection:
        gone = [connection.delete(key) for key in connection.scan_iter(match=f"{settings.redis_prefix}:*:result:*")]

    assert gone == [1]
    assert (kept.status, kept.balance) == ("applied", 7)
    assert elsewhere.result(text) == elsewhere.wait(text) == kept


def test_a_result_is_found_when_neither_poll_key_nor_lane_entry_nor_announcement_is_left(
    client: Client, settings: Settings
) -> None:
    account = client.open_account(customer_id="cust_1", initial_balance=10)
    tickets = client.enqueue_many(debits(account.id, 5))
    assert client.balance(account.id, after=str(tickets[-1])) == 5
    with redis.Redis.from_url(settings.require_redis_url()) as connection:
        for key in connection.scan_iter(match=f"{settings.redis_prefix}:*"):
            connection.delete(key)

    assert [client.result(ticket).balance for ticket in tickets] == [9, 8, 7, 6, 5]
    assert [client.wait(ticket).balance for ticket in tickets[:1]] == [9]
    assert [result.balance for result in client.wait_many(tickets)] == [9, 8, 7, 6, 5]


@pytest.mark.conformance
def test_many_results_come_each_once_from_a_generator_of_commands(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_COMMANDS", 300)
    opening = [
        OpenAccount(customer_id=f"cust_{n}", initial_balance=100, idempotency_key=f"open_{n}") for n in range(20)
    ]
    opened = [result.account_id for result in client.wait_many(client.enqueue_many(opening))]

    tickets = client.enqueue_many(
        Debit(account_id=opened[number % 20], amount=1, reference="r", idempotency_key=f"key_{number}")
        for number in range(3_000)
    )
    results = list(client.wait_many(tickets))

    assert len(results) == 3_000
    assert {result.idempotency_key for result in results} == {f"key_{number}" for number in range(3_000)}
    assert sum(result.status == "applied" for result in results) == 20 * 100
    for account_id in opened:
        balances = [result.balance for result in results if result.account_id == account_id]
        assert balances == [*range(99, -1, -1), *[0] * 50]


@pytest.mark.parametrize("has_been_waited_for", [True, False])
def test_the_plainest_loop_over_results_that_have_gone_by_does_not_wait_for_each(
    client: Client, monkeypatch: pytest.MonkeyPatch, *, has_been_waited_for: bool
) -> None:
    # Given results that came, and that nobody has kept
    monkeypatch.setattr(pending_replies, "MAX_RECENT", 1)
    account = client.open_account(customer_id="c", initial_balance=1_000)
    tickets = list(client.enqueue_many(debits(account.id, 400)))
    if has_been_waited_for:
        assert len(list(client.wait_many(tickets))) == 400
    else:
        client.balance(account.id, after=tickets[-1])

    # When they are asked for one by one, once and again
    started = time.monotonic()
    results = [client.wait(ticket) for ticket in tickets]
    again = [client.wait(ticket) for ticket in tickets]

    # Then that takes less than half a minute, where the pauses before a read would add up to minutes
    assert time.monotonic() - started < 30
    assert [result.balance for result in results] == [999 - number for number in range(400)]
    assert again == results


def test_a_repeat_is_reported_as_one_also_where_its_announcement_is_gone(client: Client, settings: Settings) -> None:
    account = client.open_account(customer_id="c", initial_balance=10)
    command = Debit(account_id=account.id, amount=1, reference="r", idempotency_key="key_1")
    first, second = client.enqueue(command), client.enqueue(command)
    client.balance(account.id, after=str(second))
    with redis.Redis.from_url(settings.require_redis_url()) as connection:
        replies = Keys(settings.redis_prefix).replies(first.producer_id)
        # Nobody has listened for these yet, or what was heard is forgotten with the poll keys
        connection.delete(replies, *connection.scan_iter(match=f"{settings.redis_prefix}:*:result:*"))
    answers = [client.result(str(ticket)).balance for ticket in (first, second)]

    marks = [client.result(ticket).replayed for ticket in (first, second)]

    assert answers == [9, 9]
    assert marks == [False, True]


def test_many_results_come_from_postgres_where_nothing_is_announced(
    make_client: MakeClient, settings: Settings
) -> None:
    client, elsewhere = make_client(settings), make_client(settings)
    account = client.open_account(customer_id="cust_1", initial_balance=3_000)
    tickets = client.enqueue_many(debits(account.id, 2_500))

    by_text = list(elsewhere.wait_many([str(ticket) for ticket in tickets]))
    packed = list(elsewhere.wait_many(tickets))

    for results in (by_text, packed):
        assert sorted(result.balance or 0 for result in results) == list(range(500, 3_000))


def test_a_bulk_larger_than_its_lane_may_hold_passes_through(make_client: MakeClient, settings: Settings) -> None:
    client = make_client(settings.model_copy(update={"lane_limit": 50}))
    account = client.open_account(customer_id="cust_1", initial_balance=1_000)

    results = list(client.wait_many(client.enqueue_many(debits(account.id, 1_000), timeout=DEADLINE_SECONDS)))

    assert [result.balance for result in results] == list(range(999, -1, -1))


@pytest.mark.conformance
def test_entries_are_read_in_pages_newest_first(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_reads, "PAGE_ITEMS", 3)
    account = client.open_account(customer_id="cust_1", initial_balance=10)
    client.balance(account.id, after=client.enqueue_many(debits(account.id, 9))[-1])

    assert [entry.balance_after for entry in client.entries(account.id)] == list(range(1, 11))
    assert [entry.balance_after for entry in client.entries(account.id, limit=4)] == [1, 2, 3, 4]
    assert list(client.entries(account.id, limit=0)) == []
    with pytest.raises(AccountNotFound):
        list(client.entries("cca_" + "0" * 32))


@pytest.mark.conformance
def test_a_store_sees_nothing_of_another(
    make_client: MakeClient, make_store: Callable[[str], None], settings: Settings
) -> None:
    make_store("store_other")
    mine = make_client(settings)
    other = make_client(settings.model_copy(update={"store": "store_other"}))
    account = mine.open_account(customer_id="cust_1", initial_balance=10, idempotency_key="open_1")

    for read in (other.balance, other.account, lambda account_id: list(other.entries(account_id))):
        with pytest.raises(AccountNotFound):
            read(account.id)
    with pytest.raises(AccountNotFound):
        other.debit(account.id, 1, reference="r", idempotency_key="debit_1")
    theirs = other.open_account(customer_id="cust_1", initial_balance=5, idempotency_key="open_1")

    assert theirs.id != account.id
    assert (mine.balance(account.id), other.balance(theirs.id)) == (10, 5)


FORKING = """
import json, os, sys
from creditlane import Client

credits = Client.from_env()
account = credits.open_account(customer_id="cust_1", initial_balance=100)
parent = credits.enqueue_many([]).producer_id
child = os.fork()
if child == 0:
    result = credits.debit(account.id, 30, reference="child", idempotency_key="child")
    print(json.dumps({"producer": credits.enqueue_many([]).producer_id, "balance": result.balance}), flush=True)
    credits.close()
    os._exit(0)
_pid, status = os.waitpid(child, 0)
result = credits.debit(account.id, 20, reference="parent", idempotency_key="parent")
same = credits.enqueue_many([]).producer_id == parent
print(json.dumps({"producer": parent, "balance": result.balance, "status": status, "same": same}))
credits.close()
"""


def test_a_forked_child_gets_its_own_connections_and_listener(
    settings: Settings, environment_of: Callable[[Settings], dict[str, str]]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env=environment_of(settings),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=DEADLINE_SECONDS * 2,
    )

    child, parent = (json.loads(line) for line in done.stdout.splitlines())
    assert child["balance"] == 70
    assert parent == {"producer": parent["producer"], "balance": 50, "status": 0, "same": True}
    assert child["producer"] != parent["producer"]


def test_keys_in_redis_have_an_end_except_the_lanes(client: Client, settings: Settings) -> None:
    account = client.open_account(customer_id="cust_1", initial_balance=10)
    client.wait(client.enqueue(Debit(account_id=account.id, amount=3, reference="r", idempotency_key="debit_1")))

    keys = Keys(settings.redis_prefix)
    with redis.Redis.from_url(settings.require_redis_url()) as connection:
        found: Any = list(connection.scan_iter(match=f"{keys.prefix}:*"))
        endless = [key.decode() for key in found if connection.ttl(key) == -1]

    assert not [key for key in endless if ":result:" in key or ":replies:" in key]
