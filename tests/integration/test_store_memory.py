"""What a worker remembers of accounts is never trusted further than the database bears it out."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    Unfreeze,
)
from creditlane.schemas.identifiers import position_of, transaction_id
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.worker.store import accounts as cache_module
from creditlane.worker.store import sql
from creditlane.worker.store import transaction as store_module
from creditlane.worker.store.transaction import PartitionsLost, StaleAccount

from .direct_store import PARTITIONS, DirectStore, codes

ANN = "cca_" + "a" * 32
BOB = "cca_" + "b" * 32
DEADLINE_SECONDS = 30.0
LANE = partition_of(ANN, PARTITIONS)


class Lease:
    """The lease of one lane, which goes from worker to worker."""

    def __init__(self, database_url: str, lane: int = LANE) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)
        self._lane = lane
        self.epoch = 0

    def give(self, worker_id: str) -> dict[int, int]:
        """Give the lane to a worker and return the epochs under which it owns its lanes."""
        self.epoch += 1
        statement = "update leases set worker_id = %s, epoch = %s where partition = %s"
        self._connection.execute(statement, [worker_id, self.epoch, self._lane])
        return {self._lane: self.epoch}

    def rows(self) -> int:
        row = self._connection.execute("select count(*) from journal").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def lease(database_url: str) -> Iterator[Lease]:
    lease = Lease(database_url)
    yield lease
    lease.close()


@pytest.fixture
def other_lease(database_url: str) -> Iterator[Lease]:
    """The lease of another lane than Ann's: Bob's."""
    lease = Lease(database_url, partition_of(BOB, PARTITIONS))
    yield lease
    lease.close()


@pytest.fixture
def one(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url, "one") as store:
        store.apply(opening())
        yield store


@pytest.fixture
def other(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url, "other") as store:
        yield store


def opening() -> OpenAccount:
    return OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann", initial_balance=100)


def transfer(source: str, target: str, amount: int) -> Post:
    entries = (
        PostEntry(account_id=source, side="debit", amount=amount),
        PostEntry(account_id=target, side="credit", amount=amount),
    )
    return Post(entries=entries, reference="move", idempotency_key=f"move {source} {target} {amount}")


def account_on(lane: int) -> str:
    """Return the id of another account of this lane."""
    return next(account for number in range(1_000) if partition_of(account := f"cca_{number:032x}", PARTITIONS) == lane)


def debit(key: str, amount: int = 60) -> Debit:
    return Debit(account_id=ANN, idempotency_key=key, amount=amount, reference="usage")


def test_an_account_that_another_worker_moved_is_noticed(one: DirectStore, other: DirectStore) -> None:
    """Given an account remembered with 100, when another took 60 and this worker takes 60 on what it remembers, then
    nothing is stored; read afresh, the balance does not cover it."""
    other.apply(debit("first"))

    with pytest.raises(psycopg.errors.UniqueViolation):
        one.apply(debit("second"))

    assert codes(one.apply(debit("second"))) == ["insufficient_balance"]


def test_a_careful_batch_reads_accounts_afresh(one: DirectStore, other: DirectStore) -> None:
    other.apply(debit("first"))

    assert codes(one.apply(debit("second"), careful=True)) == ["insufficient_balance"]


def test_a_key_that_another_worker_stored_is_noticed(one: DirectStore, other: DirectStore) -> None:
    """Given a command that another worker applied, when it is redelivered here, then it collides; carefully, it is the
    first answer again."""
    first = other.apply(debit("same"))[0]

    with pytest.raises(psycopg.errors.UniqueViolation):
        one.apply(debit("same"))

    again = one.apply(debit("same"), careful=True)[0]
    assert again == first.model_copy(update={"replayed": True})


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (Freeze(account_id=ANN, idempotency_key="change"), "account_frozen"),
        (Close(account_id=ANN, idempotency_key="change"), "account_closed"),
    ],
)
def test_a_lane_that_comes_back_brings_no_old_status(
    one: DirectStore, other: DirectStore, lease: Lease, change: Command, refusal: str
) -> None:
    """Given an account remembered as active, when the lane goes to a worker that freezes or closes it and comes back,
    then nothing moves on it: no row of the journal collides with an entry, so the memory must not outlive the lease."""
    assert codes(one.apply(debit("first", 1), epochs=lease.give("one"))) == ["applied"]
    assert codes(other.apply(change, epochs=lease.give("other"))) == ["applied"]

    assert codes(one.apply(debit("second", 1), epochs=lease.give("one"))) == [refusal]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Debit(account_id=ANN, idempotency_key="next", amount=50, reference="spend"), "applied"),
        (Debit(account_id=ANN, idempotency_key="next", amount=101, reference="spend"), "insufficient_balance"),
        (Freeze(account_id=ANN, idempotency_key="next"), "applied"),
        (Close(account_id=ANN, idempotency_key="next"), "applied"),
    ],
)
def test_a_decision_knows_of_a_transaction_of_another_worker(
    one: DirectStore, other: DirectStore, lease: Lease, other_lease: Lease, command: Command, code: str
) -> None:
    """Given an account that its worker remembers as empty, when another worker's transaction has put 100 on it, then
    whatever is decided there next, entry or not, starts from 100, and follows the transaction in number and time."""
    own, others = lease.give("one"), other_lease.give("other")
    other.apply(
        OpenAccount(account_id=BOB, idempotency_key="bob", customer_id="bob", initial_balance=100), epochs=others
    )
    assert codes(one.apply(debit("empty", 100), debit("refused", 1), epochs=own)) == ["applied", "insufficient_balance"]
    [moved] = other.apply(transfer(BOB, ANN, 100), epochs=others)

    [result] = one.apply(command, epochs=own)

    balance = 50 if code == "applied" and isinstance(command, Debit) else 100
    assert (codes([result]), result.balance) == ([code], balance)
    assert result.decided_at is not None
    assert moved.decided_at is not None
    assert result.decided_at > moved.decided_at


def test_what_a_worker_remembers_outlives_its_own_transactions(
    one: DirectStore, lease: Lease, other_lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two lanes of one worker, when a transaction from one reaches into the other, then only the accounts that it
    moved are read again there."""
    own, others = lease.give("one"), other_lease.give("one")
    cara = account_on(LANE)
    opening_of_cara = OpenAccount(account_id=cara, idempotency_key="cara", customer_id="cara", initial_balance=7)
    one.apply(opening_of_cara, debit("first", 1), epochs=own)
    one.apply(OpenAccount(account_id=BOB, idempotency_key="bob", customer_id="bob", initial_balance=100), epochs=others)
    one.apply(transfer(BOB, ANN, 100), epochs=others)
    read: list[Any] = []
    load = one.ledger_store._load_accounts
    monkeypatch.setattr(one.ledger_store, "_load_accounts", lambda wanted: read.append(wanted) or load(wanted))

    results = one.apply(
        Debit(account_id=cara, idempotency_key="cara 1", amount=1, reference="r"), debit("second", 1), epochs=own
    )

    assert [result.balance for result in results] == [6, 198]
    assert read == [{(1, ANN)}]


def test_the_clock_is_read_when_the_lanes_are_locked(one: DirectStore, lease: Lease, database_url: str) -> None:
    """Given a batch that waits for its lane, when whoever holds the lane lets it go, then what the batch decides is
    not earlier than that."""
    epochs = lease.give("one")
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url, autocommit=True) as watcher:
        holder.execute("select 1 from leases where partition = %s for update", [LANE])
        with ThreadPoolExecutor() as pool:
            freezing = pool.submit(one.apply, Freeze(account_id=ANN, idempotency_key="freeze"), epochs=epochs)
            wait_until_blocked(watcher, one.connection.info.backend_pid)
            holder.execute("update leases set reached = reached + 1 where partition = %s", [LANE])
            released = holder.execute("select clock_timestamp()").fetchone()
            holder.commit()
            [result] = freezing.result()

    assert released is not None
    assert result.decided_at is not None
    assert result.decided_at > released[0]


@pytest.mark.usefixtures("one")
def test_every_transaction_that_reaches_a_lane_counts(
    other: DirectStore, lease: Lease, other_lease: Lease, database_url: str
) -> None:
    """Given a transaction that waits for a lane on which the count moves meanwhile, then it counts from there."""
    lease.give("one")
    others = other_lease.give("other")
    other.apply(OpenAccount(account_id=BOB, idempotency_key="bob", customer_id="bob", initial_balance=9), epochs=others)
    with psycopg.connect(database_url) as holder, psycopg.connect(database_url, autocommit=True) as watcher:
        holder.execute("update leases set reached = reached + 5 where partition = %s", [LANE])
        with ThreadPoolExecutor() as pool:
            moving = pool.submit(other.apply, transfer(BOB, ANN, 1), epochs=others)
            wait_until_blocked(watcher, other.connection.info.backend_pid)
            holder.commit()
            assert codes(moving.result()) == ["applied"]

        assert watcher.execute("select reached from leases where partition = %s", [LANE]).fetchone() == (6,)


def wait_until_blocked(watcher: psycopg.Connection[Any], process: int) -> None:
    blocked = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and pid = %s"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while watcher.execute(blocked, [process]).fetchone() is None:
        assert time.monotonic() < deadline, "the batch does not wait"


def test_a_batch_without_transactions_is_three_statements(
    one: DirectStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given accounts that are remembered, when a plain batch is applied, then the store begins, locks and copies."""
    epochs = lease.give("one")
    one.apply(debit("first", 1), epochs=epochs)
    statements: list[str] = []
    execute = one.connection.execute
    monkeypatch.setattr(
        one.connection, "execute", lambda query, *values: statements.append(query) or execute(query, *values)
    )
    number = one.ledger_store.find_stores([DEFAULT_STORE])[DEFAULT_STORE]
    command = decode_command(encode_command(debit("second", 1), DEFAULT_STORE))
    statements.clear()

    one.ledger_store.transact([((number, ANN), command)], epochs)

    assert statements == [sql.BEGIN_BATCH, sql.LOCK_LEASES]


def test_a_status_that_another_worker_changed_is_noticed(one: DirectStore, other: DirectStore) -> None:
    """Given an account remembered as frozen, when somebody else has unfrozen it, then a change of status collides."""
    one.apply(Freeze(account_id=ANN, idempotency_key="freeze"))
    with psycopg.connect(one.connection.info.dsn, password=one.connection.info.password) as connection:
        connection.execute("update accounts set status = 1")

    with pytest.raises(StaleAccount):
        one.apply(Unfreeze(account_id=ANN, idempotency_key="unfreeze"))

    assert codes(other.apply(Unfreeze(account_id=ANN, idempotency_key="unfreeze"))) == ["account_not_frozen"]


def test_a_batch_under_a_lost_lease_stores_nothing(one: DirectStore, lease: Lease) -> None:
    """Given a lease that went to another worker, when a batch read under it is applied, then all of it is refused."""
    stale = lease.give("one")
    lease.give("other")
    before = lease.rows()

    with pytest.raises(PartitionsLost) as refusal:
        one.apply(debit("late"), epochs=stale)

    assert refusal.value.partitions == {LANE}
    assert lease.rows() == before


def test_a_lease_cannot_change_hands_while_a_batch_is_under_way(
    one: DirectStore, lease: Lease, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """Given a batch that has checked its lease, when another worker would take the lane, then it must wait."""
    epochs = lease.give("one")
    waited: list[bool] = []

    def decide(*arguments: Any) -> Any:
        with psycopg.connect(database_url) as taker, pytest.raises(psycopg.errors.LockNotAvailable):
            taker.execute("select 1 from leases where partition = %s for update nowait", [LANE])
        waited.append(True)
        return original(*arguments)

    original = store_module.decide_all
    monkeypatch.setattr(store_module, "decide_all", decide)

    assert codes(one.apply(debit("first"), epochs=epochs)) == ["applied"]
    assert waited == [True]


def test_a_batch_that_fails_leaves_no_memory_of_itself(one: DirectStore, other: DirectStore) -> None:
    """Given a batch whose second command collides, when the first is sent alone, then it starts from what is stored."""
    other.apply(Credit(account_id="cca_" + "b" * 32, idempotency_key="taken", amount=1, reference="r"))

    with pytest.raises(psycopg.errors.UniqueViolation):
        one.apply(debit("first", 70), debit("taken", 1))

    assert one.apply(debit("second", 40))[0].balance == 60


def test_what_a_failed_batch_decided_was_never_remembered(
    one: DirectStore, other: DirectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a store that would drop nothing, when a batch of it fails once it is decided, then what is remembered is as
    if it had not been: what is decided is the batch's own until it is committed."""
    one.apply(debit("before", 1))
    other.apply(Credit(account_id="cca_" + "b" * 32, idempotency_key="taken", amount=1, reference="r"))
    monkeypatch.setattr(cache_module.AccountCache, "drop", lambda *_: None)

    with pytest.raises(psycopg.errors.UniqueViolation):
        one.apply(debit("first", 70), debit("taken", 1))

    assert one.apply(debit("second", 40))[0].balance == 59


def test_a_batch_of_several_parts_is_one_history(one: DirectStore) -> None:
    """Given a batch whose opening must wait for a closing, so that it is decided in two parts, then the second part
    reverses what the first has made, and answers a key of it again, all in one optimistic attempt."""
    old, new = (f"cca_{letter * 32}" for letter in "cd")
    one.apply(OpenAccount(account_id=old, idempotency_key="old", customer_id="c"))
    made = one.apply(Credit(account_id=ANN, idempotency_key="before", amount=1, reference="r"))[0].transaction_id
    latest = position_of(made or "")
    assert latest is not None
    credit = Credit(account_id=ANN, idempotency_key="credit", amount=30, reference="r")

    results = one.apply(
        credit,
        Close(account_id=old, idempotency_key="close"),
        OpenAccount(account_id=new, idempotency_key="new", customer_id="c"),
        credit,
        Reverse(account_id=ANN, transaction_id=transaction_id(ANN, latest.seq + 1)),
    )

    assert codes(results) == ["applied"] * 5
    assert [result.replayed for result in results] == [False, False, False, True, False]
    assert results[4].balance == results[0].balance - 30  # type: ignore[operator]


def test_memory_is_bounded(one: DirectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a bound on remembered accounts, when more are used, then the rest is forgotten and still decided right."""
    monkeypatch.setattr(cache_module, "MAX_REMEMBERED_ACCOUNTS", 10)
    accounts = [f"cca_{number:032x}" for number in range(50)]
    for account in accounts:
        name = OpenAccount(account_id=account, idempotency_key=account, customer_id=account, initial_balance=9)
        one.apply(name)

    results = [
        one.apply(Debit(account_id=account, idempotency_key=f"debit {account}", amount=4, reference="r"))[0]
        for account in accounts
    ]

    assert {result.balance for result in results} == {5}
    assert len(one.ledger_store._cache) <= 10


def test_a_refused_attempt_to_reverse_stays_refused(one: DirectStore) -> None:
    """Given a reversal that was refused, when nothing stands in its way any more and the same attempt comes again, then
    it has its first answer; the reversal it would make has another key, so nothing would collide."""
    attempt = Reverse(account_id=ANN, transaction_id=f"cct_{ANN[4:]}1")
    one.apply(Freeze(account_id=ANN, idempotency_key="freeze"))
    assert codes(one.apply(attempt)) == ["account_frozen"]
    one.apply(Unfreeze(account_id=ANN, idempotency_key="unfreeze"))

    [again] = one.apply(attempt)

    assert (codes([again]), again.replayed) == (["account_frozen"], True)
    assert codes(one.apply(Reverse(account_id=ANN, transaction_id=attempt.transaction_id))) == ["applied"]
