"""How much the applier tries at once: parts that fit, halves of what does not get through, and who is to blame."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast
from unittest.mock import Mock

import psycopg
import pytest

from creditlane.lanes.encoding import LaneCommand, PlainCommand
from creditlane.schemas.commands import Post, Reverse
from creditlane.schemas.errors import CommandDeadLettered
from creditlane.schemas.journal import JournalRow
from creditlane.worker.lanes.entries import Batch, LaneEntry
from creditlane.worker.ledger.state import AddressedCommand, Outcome
from creditlane.worker.store import sizing
from creditlane.worker.store.applier import Applier, CommandTimedOut
from creditlane.worker.store.sizing import MAX_SPANNING_ROWS, MAX_TRANSACTION_BYTES, Sizing
from creditlane.worker.store.transaction import LedgerStore, PartitionsLost, TransactionTooLarge

LEASE_SECONDS = 10.0


def account(number: int) -> str:
    return f"cca_{number:032x}"


def movement(number: int, *, partition: int = 1, payload: bytes = b"x" * 200) -> LaneEntry:
    command = PlainCommand("debit", "store_default", account(number), f"key {number}", 1, "r")
    return LaneEntry(partition, b"%d-0" % number, payload, command, None, None, 0, keep=False)


def post(number: int, entries: int) -> LaneEntry:
    sides = [
        {"account_id": account(each), "side": ("credit", "debit")[each % 2], "amount": 1} for each in range(entries)
    ]
    command = Post(store_id="store_default", entries=tuple(sides), reference="r", idempotency_key=f"p {number}")  # type: ignore[arg-type]
    return LaneEntry(1, b"%d-0" % number, b"x", cast("LaneCommand", command), None, None, 0, keep=False)


def reversal(number: int) -> LaneEntry:
    command = Reverse(store_id="store_default", account_id=account(1), transaction_id=f"cct_{1:032x}{number + 1:x}")
    return LaneEntry(1, b"%d-0" % number, b"x", cast("LaneCommand", command), None, None, 0, keep=False)


def row_of(key: str) -> JournalRow:
    return JournalRow(1, account(1), 1, 3, -1, 1, 5, 0, key, "r", None, 0, None, None)


class Store:
    """Stands in for the store: takes so many commands at once, and otherwise fails as it is set to."""

    def __init__(self) -> None:
        self.takes = 1_000_000
        #: Keys of commands that never get through.
        self.stuck: set[str] = set()
        self.error: Exception = psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        self.fails_before_lanes = False
        self.attempts: list[int] = []
        self.committed: list[str] = []
        self.dead_letters: list[tuple[Any, ...]] = []
        #: Keys that are in the journal without the worker having heard of it.
        self.decided: set[str] = set()
        self.holds_lanes_since: float | None = None
        self.written_characters = 0
        self.clock = 1_000.0

    def find_stores(self, public_ids: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(public_ids, 1)

    def forget(self) -> None: ...

    def transact(
        self, commands: Sequence[AddressedCommand], _epochs: Mapping[int, int], *, careful: bool
    ) -> list[Outcome]:
        assert careful in {True, False}
        keys = [command.idempotency_key for _, command in commands]
        self.attempts.append(len(keys))
        self.holds_lanes_since = None if self.fails_before_lanes else 0.0
        if len(keys) > self.takes or self.stuck & set(keys):
            raise self.error
        if self.decided & set(keys):
            return [Outcome(row_of(key), replayed=True) for key in keys]
        self.committed += keys
        return [Outcome(row_of(key)) for key in keys]

    def is_decided(self, _account: object, command: LaneCommand, _epochs: Mapping[int, int]) -> bool:
        # Whoever checks finds that what was in the way is gone.
        self.stuck -= self.decided
        return command.idempotency_key in self.decided

    def dead_letter(self, letter: tuple[Any, ...], *_arguments: object) -> None:
        self.dead_letters.append(letter)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def applier(store: Store, monkeypatch: pytest.MonkeyPatch) -> Applier:
    monkeypatch.setattr("creditlane.worker.store.applier.time.monotonic", lambda: 0.0)
    return Applier(cast("LedgerStore", store), Sizing(lease_seconds=LEASE_SECONDS))


def apply_all(applier: Applier, batch: Batch) -> list[Outcome]:
    """Apply a batch to its end, as a worker does."""
    outcomes: list[Outcome] = []
    while batch.entries:
        part = applier.apply(batch)
        outcomes += part
        batch = batch.after(len(part))
    return outcomes


def test_a_full_batch_of_plain_commands_is_one_transaction(applier: Applier, store: Store) -> None:
    batch = Batch([movement(number) for number in range(8_000)], {1: 1})

    assert len(applier.apply(batch)) == 8_000
    assert store.attempts == [8_000]


def test_a_transaction_has_no_more_bytes_than_its_bound(applier: Applier, store: Store) -> None:
    payload = b"x" * 100_000
    batch = Batch([movement(number, payload=payload) for number in range(200)], {1: 1})

    apply_all(applier, batch)

    assert sum(store.attempts) == 200
    assert max(store.attempts) == MAX_TRANSACTION_BYTES // (100_000 + sizing.FIRST_ROW_BYTES)


def test_a_transaction_with_posts_has_no_more_rows_than_its_bound(applier: Applier, store: Store) -> None:
    """Given posts of a hundred entries behind plain commands, then the plain ones do not wait for them, and as many
    posts go together as have the rows that are allowed."""
    batch = Batch(
        [*(movement(number) for number in range(2_000)), *(post(number, 100) for number in range(25))], {1: 1}
    )

    apply_all(applier, batch)

    assert store.attempts == [2_000, MAX_SPANNING_ROWS // 100, MAX_SPANNING_ROWS // 100, 5]


def test_reversals_count_for_more_than_a_row(applier: Applier, store: Store) -> None:
    apply_all(applier, Batch([reversal(number) for number in range(300)], {1: 1}))

    assert store.attempts == [100, 100, 100]


def test_what_times_out_is_tried_in_halves_and_what_got_through_is_remembered(applier: Applier, store: Store) -> None:
    """Given a Postgres that takes a hundred commands in time, then a batch of a thousand gets through in smaller parts,
    in order, and the next batch begins with a size that gets through."""
    store.takes = 100
    batch = Batch([movement(number) for number in range(1_000)], {1: 1})

    outcomes = apply_all(applier, batch)

    assert [outcome.row.idempotency_key for outcome in outcomes if outcome.row] == [f"key {n}" for n in range(1_000)]
    assert store.committed == [f"key {number}" for number in range(1_000)]
    tried = len(store.attempts)
    apply_all(applier, Batch([movement(number) for number in range(1_000, 1_500)], {1: 1}))
    assert store.attempts[tried] <= 100


def test_it_grows_again_slowly(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a Postgres that was slow and is not any more, then the parts grow until a batch is one again, and none of
    them is much larger than what is known to get through."""
    monkeypatch.setattr("creditlane.worker.store.applier.time.monotonic", lambda: 0.0)
    applier = Applier(cast("LedgerStore", store), Sizing(batch_limit=400, lease_seconds=LEASE_SECONDS))
    batch = Batch([movement(number) for number in range(400)], {1: 1})
    store.takes = 100
    apply_all(applier, batch)
    store.takes = 1_000_000

    sizes = [len(applier.apply(batch)) for _ in range(100)]

    assert sizes[0] <= 110
    assert all(earlier <= later <= 1.02 * earlier + 2 for earlier, later in pairwise(sizes))
    assert sizes[-1] == 400


def test_rows_that_are_too_long_to_be_written_at_once_are_halved(applier: Applier, store: Store) -> None:
    store.takes, store.error = 10, TransactionTooLarge("too long")

    apply_all(applier, Batch([movement(number) for number in range(80)], {1: 1}))

    assert len(store.committed) == 80


def test_long_rows_make_the_next_transactions_small(applier: Applier, store: Store) -> None:
    """Given accounts whose balances turn out to be very long, then fewer of them go together from then on."""
    batch = Batch([movement(number) for number in range(1_000)], {1: 1})
    store.written_characters = 1_000 * 20_000
    applier.apply(batch)

    assert len(applier.apply(batch)) < MAX_TRANSACTION_BYTES // 20_000 + 1


@pytest.mark.parametrize("held_seconds", [LEASE_SECONDS / 2, LEASE_SECONDS])
def test_what_took_long_makes_the_next_smaller_before_it_times_out(
    held_seconds: float, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creditlane.worker.store.applier.time.monotonic", lambda: held_seconds)
    applier = Applier(cast("LedgerStore", store), Sizing(lease_seconds=LEASE_SECONDS))
    batch = Batch([movement(number) for number in range(1_000)], {1: 1})

    assert len(applier.apply(batch)) == 1_000
    assert len(applier.apply(batch)) <= 500


@pytest.mark.parametrize(("one", "seconds"), [(post(1, 2), 0.4), (movement(1), LEASE_SECONDS / 2)])
def test_what_every_commit_takes_makes_the_parts_no_smaller_than_a_hundred_rows(one: LaneEntry, seconds: float) -> None:
    """Given a standby that is far away, or a slow disk, then not every command pays for a commit of its own."""
    learnt = Sizing(lease_seconds=LEASE_SECONDS)
    entries = [one] * 1_000

    for _ in range(100):
        learnt.note_commit(learnt.first_part(entries), seconds, 0)

    assert learnt.first_part(entries).rows == sizing.FEW_ROWS


def test_parts_that_time_outs_made_small_grow_again_where_every_commit_takes_long() -> None:
    learnt = Sizing(lease_seconds=LEASE_SECONDS)
    entries = [post(1, 2)] * 1_000
    while (part := learnt.first_part(entries)).entries > 1:
        learnt.note_too_big(part)

    for _ in range(500):
        learnt.note_commit(learnt.first_part(entries), 0.4, 0)

    assert learnt.first_part(entries).rows >= sizing.FEW_ROWS - 2


def test_a_wait_for_lanes_that_times_out_says_nothing_of_the_size(applier: Applier, store: Store) -> None:
    store.takes, store.fails_before_lanes = 0, True
    batch = Batch([movement(number) for number in range(100)], {1: 1})

    for _ in range(3):
        with pytest.raises(psycopg.errors.QueryCanceled):
            applier.apply(batch)

    assert store.attempts == [100, 100, 100]


def test_a_connection_that_breaks_at_once_says_nothing_of_the_size(applier: Applier, store: Store) -> None:
    store.takes, store.error = 0, psycopg.OperationalError("server closed the connection unexpectedly")
    batch = Batch([movement(number) for number in range(100)], {1: 1})

    for _ in range(3):
        with pytest.raises(psycopg.OperationalError):
            applier.apply(batch)

    assert store.attempts == [100, 100, 100]


def test_a_connection_that_breaks_after_half_a_lease_is_tried_smaller(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(0, 10_000, 6))
    monkeypatch.setattr("creditlane.worker.store.applier.time.monotonic", lambda: float(next(times)))
    applier = Applier(cast("LedgerStore", store), Sizing(lease_seconds=LEASE_SECONDS))
    store.takes, store.error = 0, psycopg.OperationalError("server closed the connection unexpectedly")
    batch = Batch([movement(number) for number in range(100)], {1: 1})

    for _ in range(3):
        with pytest.raises(psycopg.OperationalError):
            applier.apply(batch)

    assert store.attempts == [100, 50, 25]


def test_one_that_never_gets_through_alone_is_dead_lettered_while_others_do(applier: Applier, store: Store) -> None:
    """Given a command that always times out, when others of its batch get through, then it is buried after a few
    tries, and not at the first."""
    store.stuck = {"key 3"}
    batch = Batch([movement(3), *(movement(number, partition=2) for number in range(10, 20))], {1: 1, 2: 1})

    tries = 0
    outcomes: list[Outcome] = []
    while batch.entries:
        try:
            part = applier.apply(batch)
        except CommandTimedOut as timed_out:
            tries += 1
            batch = batch.with_last(timed_out.partition)
        else:
            outcomes += part
            batch = batch.after(len(part))

    assert len(store.committed) == 10
    [letter] = store.dead_letters
    assert letter[3] == "3-0"
    assert "57014" in letter[7]
    assert tries == sizing.MAX_LONE_TIMEOUTS - 1
    assert outcomes[-1].refusal is not None
    assert outcomes[-1].refusal.code == CommandDeadLettered.code


def test_with_nothing_else_to_show_that_postgres_works_one_is_tried_for_long(applier: Applier, store: Store) -> None:
    store.stuck = {"key 3"}
    batch = Batch([movement(3)], {1: 1})

    for _ in range(sizing.MAX_TIMEOUTS_UNPROVEN - 1):
        with pytest.raises(CommandTimedOut):
            applier.apply(batch)
    assert store.dead_letters == []
    applier.apply(batch)

    assert len(store.dead_letters) == 1


@pytest.mark.parametrize("error", [psycopg.errors.LockNotAvailable, psycopg.errors.DiskFull])
def test_waiting_for_others_is_no_command_s_fault_however_long_it_took(
    error: type[psycopg.Error], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(0, 10_000, 6))
    monkeypatch.setattr("creditlane.worker.store.applier.time.monotonic", lambda: float(next(times)))
    applier = Applier(cast("LedgerStore", store), Sizing(lease_seconds=LEASE_SECONDS))
    store.takes, store.error = 0, error("waiting")

    for entries in (4, 1):
        batch = Batch([movement(number) for number in range(entries)], {1: 1})
        for _ in range(sizing.MAX_TIMEOUTS_UNPROVEN + 1):
            with pytest.raises(error):
                applier.apply(batch)

    assert set(store.attempts) == {4, 1}
    assert store.dead_letters == []


def test_what_is_in_the_journal_is_never_buried(applier: Applier, store: Store) -> None:
    """Given a command whose commit got through without an answer, when its later attempts time out, then it is answered
    from the journal in the end."""
    store.stuck, store.decided = {"key 3"}, {"key 3"}
    batch = Batch([movement(3)], {1: 1})
    for _ in range(sizing.MAX_TIMEOUTS_UNPROVEN - 1):
        with pytest.raises(CommandTimedOut):
            applier.apply(batch)

    [outcome] = applier.apply(batch)

    assert outcome.replayed
    assert store.dead_letters == []


def test_what_is_tried_in_halves_has_a_cause_that_is_logged(store: Store) -> None:
    causes: list[Exception] = []
    applier = Applier(cast("LedgerStore", store), Sizing(), note_failure=causes.append)
    store.stuck = {"key 0"}

    with pytest.raises(CommandTimedOut):
        applier.apply(Batch([movement(0), movement(1)], {1: 1}))

    assert causes == [store.error, store.error]


def test_nothing_is_committed_before_what_is_unreadable_is_buried(store: Store, applier: Applier) -> None:
    """Given a dead letter that cannot be stored, then the commands beside it are not committed without an answer."""
    unreadable = LaneEntry(1, b"1-0", b"x", None, "no command", None, 0, keep=False)
    store.dead_letter = Mock(side_effect=psycopg.errors.LockNotAvailable("waiting"))  # type: ignore[method-assign]

    with pytest.raises(psycopg.errors.LockNotAvailable):
        applier.apply(Batch([movement(2), unreadable], {1: 1}))

    assert store.committed == []


def test_time_outs_of_commands_that_others_decide_are_not_remembered_for_ever() -> None:
    learnt = Sizing()

    for number in range(2 * sizing.MAX_LONE):
        learnt.note_lone_timeout(movement(number))

    assert len(learnt._lone) == sizing.MAX_LONE


def test_a_first_half_that_is_committed_is_announced_although_the_second_fails(applier: Applier, store: Store) -> None:
    """Given a batch that is halved because of one command, when the leases are lost between the halves, then what was
    committed is announced, and not decided again."""
    calls = iter([psycopg.errors.CheckViolation("no"), None, PartitionsLost({1})])
    transact = store.transact

    def transact_or_fail(commands: Sequence[AddressedCommand], epochs: Mapping[int, int], *, careful: bool) -> Any:
        if (error := next(calls)) is not None:
            raise error
        return transact(commands, epochs, careful=careful)

    store.transact = transact_or_fail  # type: ignore[method-assign]
    batch = Batch([movement(number) for number in range(10)], {1: 1})

    assert len(applier.apply(batch)) == 5
