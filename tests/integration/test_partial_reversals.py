"""Partial reversals in Postgres: what is left of a transaction is what its reversals have left, whoever made them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest

from creditlane import (
    AlreadyReversed,
    Client,
    IdempotencyKeyMismatch,
    InvalidCommand,
    Rejected,
    ReversalExceedsOriginal,
    Reverse,
    Settings,
)
from creditlane.audit.whole import verify
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Credit, Debit, OpenAccount, Post
from creditlane.schemas.errors import CreditlaneError
from creditlane.schemas.identifiers import transaction_id
from creditlane.worker.store import transaction as store_module

from .direct_store import PARTITIONS, DirectStore, codes

ANN = "cca_" + "a" * 32
BOB = "cca_" + "b" * 32
SPENT = transaction_id(ANN, 2)
DEADLINE_SECONDS = 60.0


def opening(account: str = ANN, balance: int = 100) -> OpenAccount:
    return OpenAccount(
        account_id=account, idempotency_key=f"open {account}", customer_id=account, initial_balance=balance
    )


def spending(amount: int = 30) -> Debit:
    return Debit(account_id=ANN, idempotency_key="spend", amount=amount, reference="call")


def part(amount: int, key: str, transaction: str = SPENT) -> Reverse:
    return Reverse(account_id=ANN, transaction_id=transaction, amount=amount, idempotency_key=key)


def whole(transaction: str = SPENT) -> Reverse:
    return Reverse(account_id=ANN, transaction_id=transaction)


@pytest.fixture
def store(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url) as store:
        store.apply(opening(), spending())
        yield store


def leased(database_url: str) -> dict[int, int]:
    """Give Ann's lane to the store's worker, and return the epochs of its leases."""
    lane = partition_of(ANN, PARTITIONS)
    with psycopg.connect(database_url) as connection:
        connection.execute("update leases set worker_id = 'worker', epoch = 1 where partition = %s", [lane])
    return {lane: 1}


def assert_sound(database_url: str) -> None:
    assert verify(database_url).failed == []


@pytest.mark.parametrize("careful", [False, True])
def test_parts_add_up_within_a_batch_and_over_several(database_url: str, store: DirectStore, *, careful: bool) -> None:
    first = store.apply(part(10, "a"), part(5, "b"), part(10, "a"), part(16, "c"), careful=careful)
    second = store.apply(part(10, "a"), part(10, "d"), part(6, "e"), whole(), part(1, "f"), careful=careful)
    third = store.apply(part(1, "g"), whole(), careful=careful)

    assert codes(first) == ["applied"] * 3 + ["reversal_exceeds_original"]
    assert (first[2].replayed, first[2].transaction_id) == (True, first[0].transaction_id)
    assert codes(second) == ["applied", "applied", "reversal_exceeds_original", "applied", "already_reversed"]
    assert (second[0].replayed, second[3].amount, second[3].balance) == (True, 5, 100)
    assert codes(third) == ["already_reversed", "applied"]
    assert (third[1].replayed, third[1].transaction_id) == (True, second[3].transaction_id)
    assert_sound(database_url)


def test_what_is_made_and_reversed_in_parts_in_one_batch(database_url: str) -> None:
    with DirectStore(database_url) as store:
        done = store.apply(opening(), spending(), part(10, "a"), whole(), part(1, "b"))

    assert codes(done) == ["applied"] * 4 + ["already_reversed"]
    assert [result.balance for result in done[:4]] == [100, 70, 80, 100]
    assert_sound(database_url)


def test_the_parts_of_a_transaction_whose_number_begins_another_are_its_own(database_url: str) -> None:
    """Given entries 1 and 16, whose ids are ...1 and ...10, when one is reversed in parts, then the other is not."""
    with DirectStore(database_url) as store:
        store.apply(opening(balance=30))
        credits_ = (Credit(account_id=ANN, idempotency_key=f"c{n}", amount=30, reference="r") for n in range(20))
        store.apply(*credits_)
        store.apply(part(30, "a", transaction_id(ANN, 16)))

        results = store.apply(part(30, "a", transaction_id(ANN, 1)), part(1, "b", transaction_id(ANN, 16)))

    assert codes(results) == ["applied", "already_reversed"]
    assert_sound(database_url)


def test_another_stores_reversals_count_for_nothing(database_url: str, store: DirectStore) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into stores (public_id, name) values ('store_other', 'Other')")
    store.apply(opening(), spending(), store="store_other")
    store.apply(part(30, "a"), store="store_other")

    assert codes(store.apply(part(30, "a"))) == ["applied"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_part_that_is_committed_around_the_reading_of_what_is_left_is_not_missed(
    moment: str, database_url: str, store: DirectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a batch that has read its account, when another session under the same lease reverses a part just before or
    after it reads what is left, then the database refuses the batch, which then reads both anew."""
    epochs = leased(database_url)
    read = store_module.load_reversed

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(store_module, "load_reversed", read)
        found = read(*args) if moment == "after" else None
        with DirectStore(database_url) as other:
            assert codes(other.apply(part(20, "b"), epochs=epochs)) == ["applied"]
        return found if found is not None else read(*args)

    monkeypatch.setattr(store_module, "load_reversed", overtaken)
    outcome = "applied"
    try:
        outcome = codes(store.apply(part(20, "a"), epochs=epochs))[0]
    except psycopg.errors.UniqueViolation:
        outcome = codes(store.apply(part(20, "a"), careful=True, epochs=epochs))[0]

    assert outcome == "reversal_exceeds_original"
    assert_sound(database_url)


@pytest.mark.usefixtures("store")
def test_a_racing_read_of_what_is_left_is_refused_by_the_number_of_the_entry(database_url: str) -> None:
    """Given two sessions that decide at once under one lease, then one part of two is made."""
    epochs = leased(database_url)
    barrier = Barrier(2, timeout=DEADLINE_SECONDS)

    def attempt(number: int) -> str:
        with DirectStore(database_url) as racing:
            racing.ledger_store.find_stores(["store_default"])
            barrier.wait()
            try:
                return codes(racing.apply(part(20, f"key {number}"), careful=number == 1, epochs=epochs))[0]
            except psycopg.errors.UniqueViolation:
                return codes(racing.apply(part(20, f"key {number}"), careful=True, epochs=epochs))[0]

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(attempt, range(2)))

    assert outcomes == ["applied", "reversal_exceeds_original"]
    assert_sound(database_url)


def test_a_part_and_a_transaction_of_another_lane_go_by_one_order(database_url: str, store: DirectStore) -> None:
    """Given a post from another lane that takes what a part gave, when the credit is reversed in parts, then balance
    and what is left both stand in the way as they are."""
    assert partition_of(ANN, PARTITIONS) != partition_of(BOB, PARTITIONS)
    entries = [
        {"account_id": BOB, "side": "credit", "amount": 75},
        {"account_id": ANN, "side": "debit", "amount": 75},
    ]
    take = Post(reference="r", idempotency_key="take", entries=entries)  # type: ignore[arg-type]
    with DirectStore(database_url, "other") as other:
        assert codes(store.apply(part(10, "a"))) == ["applied"]
        assert codes(other.apply(opening(BOB, 0), take)) == ["applied", "applied"]
        undo = store.apply(part(6, "b", transaction_id(ANN, 1)), part(5, "c", transaction_id(ANN, 1)), part(20, "d"))
        taken = Reverse(account_id=BOB, transaction_id=transaction_id(BOB, 1), amount=5, idempotency_key="e")
        refused = other.apply(taken)

    assert codes(undo) == ["insufficient_balance", "applied", "applied"]
    assert codes(refused) == ["reversal_not_divisible"]
    assert_sound(database_url)


def test_whether_a_part_is_decided_is_asked_of_its_own_key(store: DirectStore) -> None:
    """Given a whole reversal, then a part of the same transaction is not taken for decided: a timed-out batch would
    drop it from its lane."""
    store.apply(whole())
    (number,) = store.ledger_store.find_stores(["store_default"]).values()

    assert not store.ledger_store.is_decided((number, ANN), part(1, "a"), {})  # type: ignore[arg-type]
    assert store.ledger_store.is_decided((number, ANN), whole(), {})  # type: ignore[arg-type]


@pytest.mark.conformance
class TestClients:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})

    @pytest.mark.usefixtures("running_worker")
    def test_a_client_reverses_in_parts_and_reads_them_back(self, client: Client) -> None:
        account = client.open_account(customer_id="ann", initial_balance=100)
        spent = client.debit(account.id, 30, reference="call", idempotency_key="call").transaction_id or ""

        part = client.reverse(account.id, spent, 10, idempotency_key="goodwill")
        again = client.reverse(account.id, spent, "10", idempotency_key="goodwill")
        with pytest.raises(IdempotencyKeyMismatch) as mismatch:
            client.reverse(account.id, spent, 11, idempotency_key="goodwill")
        with pytest.raises(ReversalExceedsOriginal) as exceeding:
            client.reverse(account.id, spent, 21, idempotency_key="too much")
        rest = client.reverse(account.id, spent)
        with pytest.raises(AlreadyReversed):
            client.reverse(account.id, spent, 1, idempotency_key="one more")

        assert (part.amount, part.side, part.balance, part.reversal_of) == (10, "credit", 80, spent)
        assert (again.transaction_id, again.replayed) == (part.transaction_id, True)
        assert mismatch.value.details == {"fields": ["amount"]}
        assert exceeding.value.details == {"amount": "21", "remaining": "20"}
        assert (rest.amount, rest.balance) == (20, 100)
        read = client.transaction(part.transaction_id or "")
        assert (read.reversal_of, read.idempotency_key) == (spent, f"reversal:{spent}:goodwill")
        assert [entry.reversal_of for entry in client.entries(account.id)][:3] == [spent, spent, None]
        assert len(list(client.transactions("call"))) == 3

    @pytest.mark.usefixtures("running_worker")
    def test_what_a_part_was_sent_as_is_found_by_its_ticket(self, client: Client) -> None:
        """Given a whole reversal and a part behind it, then each ticket is answered with its own."""
        account = client.open_account(customer_id="ann", initial_balance=100)
        spent = client.debit(account.id, 30, reference="call", idempotency_key="call").transaction_id or ""
        commands = [
            Reverse(account_id=account.id, transaction_id=spent, amount=10, idempotency_key="a" * 255),
            Reverse(account_id=account.id, transaction_id=spent),
            Reverse(account_id=account.id, transaction_id=spent, amount=1, idempotency_key="b"),
        ]

        tickets = [str(client.enqueue(command)) for command in commands]

        results = [client.wait(ticket) for ticket in tickets]
        assert [(result.status, result.amount) for result in results] == [
            ("applied", 10),
            ("applied", 20),
            ("rejected", 1),
        ]

    def test_amount_and_key_go_together(self, client: Client) -> None:
        for fields in ({"amount": 1}, {"idempotency_key": "a"}):
            with pytest.raises(InvalidCommand, match="idempotency_key") as refusal:
                client.reverse(ANN, SPENT, **fields)  # type: ignore[arg-type]
            assert refusal.value.field == "idempotency_key"


def test_clients_that_race_for_what_is_left_get_no_more_than_there_is(
    settings: Settings, database_url: str, start_worker: Callable[[], Any]
) -> None:
    """Given two workers and eight callers who each want 7 of 30, then four get it, and the rest can be had by one."""
    waiting = settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})
    for _ in range(2):
        start_worker()

    def attempt(number: int) -> str:
        with Client(waiting) as client:
            try:
                return client.reverse(account_id, spent, 7, idempotency_key=f"caller {number}").status
            except Rejected as error:
                return error.code
            except CreditlaneError as error:
                return repr(error)

    with Client(waiting) as client:
        account_id = client.open_account(customer_id="ann", initial_balance=100).id
        spent = client.debit(account_id, 30, reference="call", idempotency_key="call").transaction_id or ""
        with ThreadPoolExecutor(8) as pool:
            outcomes = sorted(pool.map(attempt, range(8)))
        assert client.reverse(account_id, spent).amount == 2
        assert client.balance(account_id) == 100

    assert outcomes == ["applied"] * 4 + ["reversal_exceeds_original"] * 4
    assert_sound(database_url)
