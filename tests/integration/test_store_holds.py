"""Holds in Postgres: read and written as sets, as the rules alone would have it, whatever the batches and the clock."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.schemas.commands import (
    Capture,
    Close,
    Command,
    Credit,
    Debit,
    Expiry,
    Extend,
    Freeze,
    Hold,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    Unfreeze,
    Void,
)
from creditlane.schemas.identifiers import hold_id, transaction_id
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.journal_columns import row_of, select_list
from creditlane.schemas.results import moment_of
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.testing.store_ledger import StoreLedger
from creditlane.worker.store import holds as store_holds
from creditlane.worker.store.transaction import LedgerStore, StaleAccount, TransactionTooLarge, _Locked

from .direct_store import DirectStore, add_store, codes

ANN, BOB = ("cca_" + letter * 32 for letter in "ab")
SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND


class ClockedStore(LedgerStore):
    """The worker's store, on a clock that the test moves."""

    now_us = NOW

    def _lock_lanes(self, *arguments: Any, **named: Any) -> _Locked:
        return super()._lock_lanes(*arguments, **named)._replace(now_us=self.now_us)


class ClockedDirectStore(DirectStore):
    def __init__(self, database_url: str, worker_id: str = "worker") -> None:
        super().__init__(database_url, worker_id)
        self.ledger_store: ClockedStore = ClockedStore(self.connection, worker_id, partitions=8)

    def at(self, seconds: float, *commands: Command, careful: bool = False) -> list[str]:
        self.ledger_store.now_us = NOW + int(seconds * SECOND)
        return codes(self.apply(*commands, careful=careful))

    def decide(self, now_us: int, commands: list[Command], *, careful: bool, store: str = DEFAULT_STORE) -> None:
        """Apply the commands, also those that leave no row and so no result."""
        self.ledger_store.now_us = now_us
        number = self.number_of(store)
        addressed = [
            ((number, str(command.account_id)), decode_command(encode_command(command, store))) for command in commands
        ]
        try:
            self.ledger_store.transact(addressed, {}, careful=careful)
        except (psycopg.errors.UniqueViolation, StaleAccount):
            self.ledger_store.forget()
            self.ledger_store.transact(addressed, {}, careful=True)

    def number_of(self, store: str) -> int:
        return self.ledger_store.find_stores([store])[store]

    def rows(self, store: str = DEFAULT_STORE) -> list[JournalRow]:
        found = self.connection.execute(
            f"select {select_list()} from journal where store_id = %s order by account_id, seq", [self.number_of(store)]
        ).fetchall()
        self.connection.commit()
        return [row_of(record) for record in found]

    def holds(self, store: str = DEFAULT_STORE) -> list[tuple[Any, ...]]:
        found = self.connection.execute(
            "select account_id::text, seq, status, amount::int, captured::int, remaining::int, "
            "(extract(epoch from expires_at) * 1000000)::bigint, (extract(epoch from ended_at) * 1000000)::bigint "
            "from holds where store_id = %s order by account_id, seq",
            [self.number_of(store)],
        ).fetchall()
        self.connection.commit()
        return found


@pytest.fixture
def store(database_url: str) -> Iterator[ClockedDirectStore]:
    with ClockedDirectStore(database_url) as store:
        store.at(0, opening(ANN), opening(BOB))
        yield store


def opening(account_id: str) -> OpenAccount:
    return OpenAccount(
        account_id=account_id, idempotency_key=f"open {account_id}", customer_id=account_id, initial_balance=100
    )


def holding(key: str, amount: int = 60, **fields: Any) -> Hold:
    return Hold(account_id=ANN, idempotency_key=key, amount=amount, reference="call", **fields)


def debit(key: str, amount: int, account_id: str = ANN) -> Debit:
    return Debit(account_id=account_id, idempotency_key=key, amount=amount, reference="r")


def capture(number: int, key: str, amount: int | None = None, **fields: Any) -> Capture:
    return Capture(hold_id=hold_id(ANN, number), idempotency_key=key, amount=amount, **fields)


@pytest.mark.parametrize("careful", [False, True])
def test_hold_and_its_capture_in_one_batch(store: ClockedDirectStore, careful: bool) -> None:
    assert store.at(1, holding("h"), debit("d", 41), capture(1, "c", 25), debit("e", 75), careful=careful) == [
        "applied",
        "insufficient_balance",
        "applied",
        "applied",
    ]
    ((_, _, status, amount, captured, remaining, _, ended),) = store.holds()
    assert (status, amount, captured, remaining, ended) == (2, 60, 25, 0, NOW + SECOND)


@pytest.mark.parametrize("forgets", [False, True])
def test_hold_lives_from_batch_to_batch(store: ClockedDirectStore, forgets: bool) -> None:
    """Given a hold, when the next batches know its account from before or read it afresh, then it stays set aside."""
    for batch in (
        [(holding("h"), "applied")],
        [(debit("d", 41), "insufficient_balance"), (capture(1, "c", 20, final=False), "applied")],
        [(debit("e", 41), "insufficient_balance"), (capture(1, "x", 41), "capture_exceeds_hold")],
        [(Extend(hold_id=hold_id(ANN, 1), idempotency_key="t", expires_in_seconds=9), "applied")],
        [(Close(account_id=ANN, idempotency_key="close"), "account_has_holds")],
        [(Void(hold_id=hold_id(ANN, 1), idempotency_key="v"), "applied"), (debit("f", 80), "applied")],
        [(capture(1, "late"), "hold_voided"), (Close(account_id=ANN, idempotency_key="close 2"), "applied")],
    ):
        if forgets:
            store.ledger_store.forget()
        assert store.at(2, *(command for command, _ in batch)) == [code for _, code in batch]
    assert store.holds() == [
        (str(uuid.UUID(ANN[4:])), 1, 3, 60, 20, 0, NOW + 11 * SECOND, NOW + 2 * SECOND),
    ]


def test_replays_after_a_restart_are_answered_from_the_journal(store: ClockedDirectStore) -> None:
    commands = [
        holding("h", metadata={"a": "b"}),
        capture(1, "c", 20, final=False, metadata={"c": "d"}),
        Extend(hold_id=hold_id(ANN, 1), idempotency_key="t", expires_in_seconds=9),
        Void(hold_id=hold_id(ANN, 1), idempotency_key="v"),
        capture(1, "late"),
    ]
    first = store.apply(*commands)
    again = store.apply(*commands, careful=True)
    assert [result.model_copy(update={"replayed": False}) for result in again] == first
    assert all(result.replayed for result in again)


@pytest.mark.parametrize("forgets", [False, True])
def test_what_has_ended_is_released_before_the_next_command_and_once(store: ClockedDirectStore, forgets: bool) -> None:
    store.at(0, holding("a", 10, expires_in_seconds=20), holding("b", 20, expires_in_seconds=10), holding("c", 30))
    for seconds, command, code in (
        (9, debit("d1", 41), "insufficient_balance"),
        (10, debit("d2", 60), "applied"),
        (10, capture(2, "late"), "hold_expired"),
        (20, debit("d3", 10), "applied"),
        (5, capture(1, "later"), "hold_expired"),
    ):
        if forgets:
            store.ledger_store.forget()
        assert store.at(seconds, command) == [code]
    ended = [(row.idempotency_key, row.held_after) for row in store.rows() if row.kind == 13]
    assert sorted(ended) == [(f"expiry:{hold_id(ANN, 1)}", 30), (f"expiry:{hold_id(ANN, 2)}", 40)]
    assert [record[2] for record in store.holds()] == [4, 4, 1]


def test_expiry_leaves_nothing_but_the_rows_of_what_has_ended(store: ClockedDirectStore) -> None:
    store.at(0, holding("a", 10, expires_in_seconds=1), holding("b", 20, expires_in_seconds=1))
    before = store.rows()
    for now in (NOW, NOW + 2 * SECOND, NOW + 3 * SECOND):
        store.decide(now, [Expiry(account_id=ANN, holds=2), Expiry(account_id=BOB)], careful=False)
    made = [row for row in store.rows() if row not in before]
    assert [(row.kind, row.idempotency_key) for row in made] == [
        (13, f"expiry:{hold_id(ANN, 2)}"),
        (13, f"expiry:{hold_id(ANN, 1)}"),
    ]


def test_transaction_of_another_account_cannot_take_what_is_held(store: ClockedDirectStore) -> None:
    """Given a hold, then a post that another account asked for is judged by it, and releases it when it has ended."""
    entries = (PostEntry(account_id=BOB, side="credit", amount=41), PostEntry(account_id=ANN, side="debit", amount=41))
    store.at(0, holding("h", 60, expires_in_seconds=5))
    store.ledger_store.forget()
    assert store.at(4, Post(idempotency_key="p", reference="r", entries=entries)) == ["insufficient_balance"]
    assert store.at(5, Post(idempotency_key="q", reference="r", entries=entries)) == ["applied"]
    assert store.at(6, holding("rest", 59), holding("more", 1)) == ["applied", "insufficient_balance"]


def test_many_ends_at_once_are_halved_and_one_command_gets_through(
    store: ClockedDirectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_holds, "MAX_ENDING", 2)
    store.at(0, *(holding(str(n), 1, expires_in_seconds=1) for n in range(3)))
    with pytest.raises(TransactionTooLarge, match="holds have ended"):
        store.at(2, debit("d", 1), debit("e", 1))
    assert store.at(2, debit("d", 1)) == ["applied"]
    assert [record[2] for record in store.holds()] == [4, 4, 4]


def test_plain_commands_ask_nothing_of_holds(store: ClockedDirectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given accounts without holds, then a batch makes the statements that it made before there were any."""
    asked: list[str] = []
    execute = psycopg.Connection.execute

    def noted(connection: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(str(query))
        return execute(connection, query, *arguments, **named)

    monkeypatch.setattr(psycopg.Connection, "execute", noted)
    for careful in (False, True):
        store.ledger_store.forget()
        assert store.at(1, debit(f"d{careful}", 1), careful=careful) == ["applied"]
    assert asked
    assert not [query for query in asked if "holds" in query]


numbers = st.integers(1, 4)
keys = st.integers(0, 30).map(str)
accounts = st.sampled_from([ANN, BOB])
named_holds = st.builds(hold_id, accounts, numbers)
amounts = st.integers(1, 40)
ends = st.one_of(
    st.just({}),
    st.builds(lambda seconds: {"expires_in_seconds": seconds}, st.integers(1, 3)),
)


def _post(key: str, source: str, amount: int) -> Post:
    target = BOB if source == ANN else ANN
    entries = (
        PostEntry(account_id=source, side="debit", amount=amount),
        PostEntry(account_id=target, side="credit", amount=amount),
    )
    return Post(idempotency_key=key, reference="r", entries=entries)


commands = st.one_of(
    st.builds(
        lambda key, account, amount, end: Hold(
            account_id=account, idempotency_key=key, amount=amount, reference="h", **end
        ),
        keys,
        accounts,
        amounts,
        ends,
    ),
    st.builds(
        lambda key, hold, amount, final, over: Capture(
            hold_id=hold, idempotency_key=key, amount=amount, final=final, allow_overage=over
        ),
        keys,
        named_holds,
        st.one_of(st.none(), amounts),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(lambda key, hold: Void(hold_id=hold, idempotency_key=key), keys, named_holds),
    st.builds(
        lambda key, hold, seconds: Extend(hold_id=hold, idempotency_key=key, expires_in_seconds=seconds),
        keys,
        named_holds,
        st.integers(1, 3),
    ),
    st.builds(lambda account: Expiry(account_id=account), accounts),
    st.builds(debit, keys, amounts, accounts),
    st.builds(
        lambda key, account, amount: Credit(account_id=account, idempotency_key=key, amount=amount, reference="r"),
        keys,
        accounts,
        amounts,
    ),
    st.builds(_post, keys, accounts, amounts),
    st.builds(
        lambda account, seq: Reverse(account_id=account, transaction_id=transaction_id(account, seq)),
        accounts,
        numbers,
    ),
    st.builds(lambda key, account: Freeze(account_id=account, idempotency_key=key), keys, accounts),
    st.builds(lambda key, account: Unfreeze(account_id=account, idempotency_key=key), keys, accounts),
    st.builds(lambda key, account: Close(account_id=account, idempotency_key=key), keys, accounts),
)
#: A batch: how far the clock goes on before it, or back, whether it is careful, and its commands.
batches = st.tuples(st.integers(-2_000_000, 3_000_000), st.booleans(), st.lists(commands, min_size=1, max_size=8))


@pytest.fixture(scope="module")
def shared(database_server: Any, template_database: str) -> Iterator[tuple[str, ClockedDirectStore]]:
    name = f"creditlane_holds_{uuid.uuid4().hex}"
    url = database_server.create_database(name, template=template_database)
    with ClockedDirectStore(url) as store:
        yield url, store
    database_server.drop_database(name)


@settings(max_examples=40, deadline=None)
@given(history=st.lists(batches, min_size=1, max_size=6))
def test_batches_write_what_the_rules_say_of_one_command_after_the_other(
    shared: tuple[str, ClockedDirectStore], history: list[tuple[int, bool, list[Command]]]
) -> None:
    """Given any commands in any batches on a clock that jumps, then the journal and the holds are those that the rules
    make of one command after the other."""
    url, store = shared
    public_id = f"store_{uuid.uuid4().hex}"
    add_store(url, public_id)
    alone = StoreLedger(store.number_of(public_id), public_id, lambda: moment_of(NOW))
    now = NOW
    for step, careful, batch in [(0, False, [opening(ANN), opening(BOB)]), *history]:
        now += step
        store.decide(now, batch, careful=careful, store=public_id)
        for command in batch:
            alone.decide(decode_command(encode_command(command, public_id)), now)
    expected = sorted(alone.journal, key=lambda row: (row.account_id, row.seq))
    assert _comparable(store.rows(public_id)) == _comparable(expected)
    assert store.holds(public_id) == [
        (
            str(uuid.UUID(account[4:])),
            seq,
            hold.status,
            hold.amount,
            hold.captured,
            hold.remaining,
            hold.expires_at_us,
            hold.ended_at_us,
        )
        for account in (ANN, BOB)
        for seq, hold in sorted(alone.holds(account).items())
    ]


def _comparable(rows: list[JournalRow]) -> list[Any]:
    return [
        (row.account_id, row.seq, row.kind, row.amount, row.balance_after, row.held_after, row.rejection,
         row.idempotency_key, row.created_at_us, row.entries_before, row.transaction_id)
        for row in rows
    ]  # fmt: skip
