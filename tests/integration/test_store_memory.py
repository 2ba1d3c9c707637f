"""What a worker remembers of accounts is never trusted further than the database bears it out."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from creditlane.schemas.commands import AnyCommand, Close, Credit, Debit, Freeze, OpenAccount, Reverse, Unfreeze
from creditlane.worker import store as store_module
from creditlane.worker.store import PartitionsLost, StaleAccount

from .direct_store import DirectStore, codes

ANN = "cca_" + "a" * 32
LANE = 3


class Lease:
    """The lease of one lane, which goes from worker to worker."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)
        self.epoch = 0

    def give(self, worker_id: str) -> dict[int, int]:
        """Give the lane to a worker and return the epochs under which it owns its lanes."""
        self.epoch += 1
        statement = "update leases set worker_id = %s, epoch = %s where partition = %s"
        self._connection.execute(statement, [worker_id, self.epoch, LANE])
        return {LANE: self.epoch}

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
    one: DirectStore, other: DirectStore, lease: Lease, change: AnyCommand, refusal: str
) -> None:
    """Given an account remembered as active, when the lane goes to a worker that freezes or closes it and comes back,
    then nothing moves on it: no row of the journal collides with an entry, so the memory must not outlive the lease."""
    assert codes(one.apply(debit("first", 1), epochs=lease.give("one"))) == ["applied"]
    assert codes(other.apply(change, epochs=lease.give("other"))) == ["applied"]

    assert codes(one.apply(debit("second", 1), epochs=lease.give("one"))) == [refusal]


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


def test_memory_is_bounded(one: DirectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a bound on remembered accounts, when more are used, then the rest is forgotten and still decided right."""
    monkeypatch.setattr(store_module, "MAX_REMEMBERED_ACCOUNTS", 10)
    accounts = [f"cca_{number:032x}" for number in range(50)]
    for account in accounts:
        name = OpenAccount(account_id=account, idempotency_key=account, customer_id=account, initial_balance=9)
        one.apply(name)

    results = [
        one.apply(Debit(account_id=account, idempotency_key=f"debit {account}", amount=4, reference="r"))[0]
        for account in accounts
    ]

    assert {result.balance for result in results} == {5}
    assert len(one.ledger_store._remembered) <= 10


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
