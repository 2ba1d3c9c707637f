"""What stands in Postgres after a history, and what was answered, does not depend on how it was cut into batches."""

import uuid
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.lanes.routing import partition_of
from creditlane.schemas.statuses import HoldStatus, word
from creditlane.worker.ledger.state import AddressedCommand, Outcome
from creditlane.worker.store.transaction import LedgerStore, StaleAccount

from .histories import ACCOUNTS, EPOCH_US, LONG, Sent, announced, answer_of, batches
from .naive_ledger import NaiveLedger

EXAMPLES = 1_000 if LONG else 120
pytestmark = pytest.mark.timeout(3_600 if LONG else 300)
#: As the tests' databases are initialised.
PARTITIONS = 8

slow = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Cut(NamedTuple):
    """How a batch is applied: by which worker, or by those that have the lanes, and whether carefully at once."""

    worker: int | None
    careful: bool


cuts = st.lists(
    st.builds(Cut, st.sampled_from([None, None, None, 0, 1]), st.sampled_from([False, False, True])),
    min_size=1,
    max_size=12,
)


def _lane_of(sent: Sent) -> int:
    return partition_of(str(sent.command.account_id), PARTITIONS)


class LedgerStoreAtTime(LedgerStore):
    """The worker's store, on a clock that the history moves instead of Postgres's."""

    now_us = EPOCH_US

    def _lock_lanes(self, *arguments: Any, **options: Any) -> Any:
        return super()._lock_lanes(*arguments, **options)._replace(now_us=self.now_us)


class TwoWorkers:
    """Two stores of the worker on one database; the leases go to and fro between them.

    A batch is applied by who takes all its lanes for it, or in runs by those that have them. The lanes that its
    transactions reach into stay whose they are.
    """

    def __init__(self, url: str) -> None:
        self._observer = psycopg.connect(url, autocommit=True)
        self._connections = [psycopg.connect(url, prepare_threshold=None) for _ in range(2)]
        self._stores = [
            LedgerStoreAtTime(connection, f"w{n}", partitions=PARTITIONS)
            for n, connection in enumerate(self._connections)
        ]
        #: By lane: who holds it, and its epoch.
        self._leases: dict[int, tuple[int, int]] = {}
        self.names: dict[int, str] = {}
        self.numbers: dict[int, int] = {}

    def begin(self) -> None:
        """Make two new stores: to the ledger, nothing in them has ever happened."""
        for index in range(2):
            name = f"store_{uuid.uuid4().hex}"
            statement = "insert into stores (public_id, name) values (%s, '') returning store_id"
            row = self._observer.execute(statement, [name]).fetchone()
            assert row is not None
            self.names[index], self.numbers[index] = name, row[0]
        self._subscribe(self.numbers[0])

    def apply(self, part: list[Sent], cut: Cut, now_us: int) -> list[Outcome]:
        """Apply a batch as workers do at this time: optimistically if asked to, and carefully when that fails."""
        for store in self._stores:
            store.now_us = now_us
        runs = groupby(part, lambda sent: self._owner(sent) if cut.worker is None else cut.worker)
        return [outcome for worker, run in runs for outcome in self._apply_run(list(run), worker, careful=cut.careful)]

    def _apply_run(self, part: list[Sent], worker: int, *, careful: bool) -> list[Outcome]:
        store, epochs = self._stores[worker], {lane: self._hold(worker, lane) for lane in map(_lane_of, part)}
        commands: list[AddressedCommand] = [
            (
                (self.numbers[index], str(command.account_id)),
                decode_command(encode_command(command, self.names[index])),
            )
            for index, command in part
        ]
        if not careful:
            try:
                return store.transact(commands, epochs)
            except (psycopg.errors.UniqueViolation, StaleAccount):
                store.forget()
        return store.transact(commands, epochs, careful=True)

    def entries(self, index: int, account_id: str) -> list[tuple[int, int]]:
        """Return the entries of an account, as (what it moved, balance after it)."""
        return self._observer.execute(
            "select (side * amount)::text::numeric, balance_after from journal "
            "where store_id = %s and account_id = %s and seq > 0 order by seq",
            [self.numbers[index], account_id[4:]],
        ).fetchall()  # type: ignore[return-value]

    def status(self, index: int, account_id: str) -> str | None:
        """Return the status that the table of accounts shows."""
        row = self._observer.execute(
            "select status from accounts where store_id = %s and account_id = %s",
            [self.numbers[index], account_id[4:]],
        ).fetchone()
        return {1: "active", 2: "frozen", 3: "closed"}[row[0]] if row else None

    def limits(self, index: int, account_id: str) -> tuple[Any, ...]:
        """Return the limits of an account, as the naive ledger keeps them."""
        row = self._observer.execute(
            "select overdraft_limit, max_balance, low_balance from accounts where store_id = %s and account_id = %s",
            [self.numbers[index], account_id[4:]],
        ).fetchone()
        return row or (0, None, None)

    def held(self, index: int, account_id: str) -> int:
        """Return what the account's latest row says is held."""
        row = self._observer.execute(
            "select coalesce(held_after, 0) from journal where store_id = %s and account_id = %s "
            "order by case when seq > 0 then seq else coalesce(entries_before, 0) end desc, seq limit 1",
            [self.numbers[index], account_id[4:]],
        ).fetchone()
        return row[0] if row else 0

    def holds(self, index: int, account_id: str) -> list[tuple[Any, ...]]:
        """Return the holds of an account, as the naive ledger keeps them."""
        return self._observer.execute(
            f"select {word('status', HoldStatus)}, amount, captured, remaining, "
            "(extract(epoch from expires_at) * 1000000)::bigint, reference from holds "
            "where store_id = %s and account_id = %s order by seq",
            [self.numbers[index], account_id[4:]],
        ).fetchall()

    def published(self, index: int) -> list[tuple[UUID, int, int]]:
        """Return what the outbox has of a store, in order: account, seq, and its number along the account."""
        return self._observer.execute(
            "select account_id, seq, sequence from outbox cross join unnest(accounts, seqs, sequences) with ordinality "
            "as published (account_id, seq, sequence, number) where store_id = %s order by outbox_id, number",
            [self.numbers[index]],
        ).fetchall()  # type: ignore[return-value]

    def journal(self, index: int) -> list[tuple[UUID, int]]:
        """Return the positions of all that was decided in a store."""
        statement = "select account_id, seq from journal where store_id = %s"
        return self._observer.execute(statement, [self.numbers[index]]).fetchall()  # type: ignore[return-value]

    def _subscribe(self, store_id: int) -> None:
        with self._observer.transaction():
            self._observer.execute(
                "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
                "values (%s, gen_random_uuid(), 1, 1, 'https://example.com/', 'whsec_')",
                [store_id],
            )
            self._observer.execute("update installation set subscriptions_version = subscriptions_version + 1")

    def close(self) -> None:
        for connection in [self._observer, *self._connections]:
            connection.close()

    def _owner(self, sent: Sent) -> int:
        """Return which worker has the command's lane: one of the two lanes each, to begin with."""
        lane = _lane_of(sent)
        return self._leases.get(lane, (lane % 2, 0))[0]

    def _hold(self, worker: int, lane: int) -> int:
        holder, epoch = self._leases.get(lane, (None, 0))
        if holder != worker:
            epoch += 1
            self._leases[lane] = (worker, epoch)
            self._observer.execute(
                "update leases set worker_id = %s, epoch = %s where partition = %s", [f"w{worker}", epoch, lane]
            )
        return epoch


@pytest.fixture(scope="module")
def two_workers(database_server: Any, template_database: str) -> Iterator[TwoWorkers]:
    name = f"creditlane_histories_{uuid.uuid4().hex}"
    workers = TwoWorkers(database_server.create_database(name, template=template_database))
    yield workers
    workers.close()
    database_server.drop_database(name)


@slow
@given(parts=batches(), cuts=cuts)
def test_answers_do_not_depend_on_batches_or_on_who_applies_them(
    two_workers: TwoWorkers, parts: list[tuple[int, list[Sent]]], cuts: list[Cut]
) -> None:
    """Given lanes whose leases go to and fro and a clock that jumps, when batches are cut anywhere and applied
    carefully or not, then every answer, entry, balance, hold and status is the naive ledger's."""
    naive = NaiveLedger()
    two_workers.begin()

    for number, (now_us, part) in enumerate(parts):
        outcomes = two_workers.apply(part, cuts[number % len(cuts)], now_us)

        assert [answer_of(announced(outcome), sent.command) for outcome, sent in zip(outcomes, part, strict=True)] == [
            naive.submit(two_workers.names[sent.store], sent.command.model_dump(), now_us) for sent in part
        ]

    for index, name in two_workers.names.items():
        for account_id in ACCOUNTS:
            expected, balance = [], 0
            for entry in naive.entries(name, account_id):
                balance += entry["amount"]
                expected.append((entry["amount"], balance))
            account = naive.accounts.get((name, account_id))
            assert two_workers.entries(index, account_id) == expected
            assert two_workers.status(index, account_id) == (account["status"] if account else None)
            assert two_workers.limits(index, account_id) == naive.limits(name, account_id)
            assert two_workers.held(index, account_id) == naive.held(name, account_id)
            assert two_workers.holds(index, account_id) == [
                (hold["status"], hold["amount"], hold["captured"], hold["left"], hold["ends"], hold["reference"])
                for hold in naive.holds(name, account_id).values()
            ]
    check_outbox(two_workers)


def check_outbox(two_workers: TwoWorkers) -> None:
    """Check that the store with an endpoint hears of every decision once, each account's in order, and the other of
    none."""
    published = two_workers.published(0)
    assert sorted((account, seq) for account, seq, _ in published) == sorted(two_workers.journal(0))
    for account_id in {account for account, _, _ in published}:
        own = [(seq, sequence) for account, seq, sequence in published if account == account_id]
        assert [sequence for _, sequence in own] == list(range(1, len(own) + 1))
        assert [seq for seq, _ in own if seq > 0] == sorted(seq for seq, _ in own if seq > 0)
        assert [-seq for seq, _ in own if seq < 0] == sorted(-seq for seq, _ in own if seq < 0)
    assert two_workers.published(1) == []
