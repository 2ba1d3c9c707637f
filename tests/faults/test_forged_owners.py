"""Two consumers of the same lanes at once, as no lease allows it: row locks and constraints keep the books right."""

import random
import threading
import uuid
from collections.abc import Iterable

import psycopg
import pytest

from creditlane.audit.whole import verify
from creditlane.lanes.encoding import PlainCommand, encode_command
from creditlane.lanes.keys import COMMAND_FIELD
from creditlane.schemas.commands import Command
from creditlane.schemas.settings import Settings
from creditlane.worker.connections import connect_postgres
from creditlane.worker.lanes.entries import Batch, LaneEntry, parse_entry
from creditlane.worker.ledger.state import Outcome
from creditlane.worker.store.applier import Applier
from creditlane.worker.store.transaction import LedgerStore

from .extent import BACKLOG, SEEDS
from .history import Effect, History, effect_of, expected_effects
from .owners import owned_by
from .producing import Producer
from .worker_processes import DEADLINE_SECONDS, StartWorker, wait_for

#: Times that a consumer tries one batch: two optimists may deadlock, and one of them is then rolled back.
MAX_ATTEMPTS = 50


class ForgedOwner:
    """A consumer that holds no lease and checks none, in a thread of its own."""

    def __init__(self, settings: Settings, batches: Iterable[list[LaneEntry]], start: threading.Barrier) -> None:
        self.outcomes: list[tuple[LaneEntry, Outcome]] = []
        self._settings = settings
        self._batches = batches
        self._start = start
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with connect_postgres(self._settings.require_database_url()) as connection:
                applier = Applier(LedgerStore(connection, f"forged {uuid.uuid4()}"))
                self._start.wait(DEADLINE_SECONDS)
                for entries in self._batches:
                    self.outcomes += zip(entries, self._apply(applier, entries), strict=True)
        except BaseException as error:  # noqa: BLE001  # it is raised again by join()
            self._failure = error

    @staticmethod
    def _apply(applier: Applier, entries: list[LaneEntry]) -> list[Outcome]:
        for _ in range(MAX_ATTEMPTS):
            try:
                return applier.apply(Batch(entries, {}))
            except psycopg.errors.DeadlockDetected:
                applier.expect_repeats()
        raise AssertionError("a batch met nothing but deadlocks")


@pytest.fixture
def commands(settings: Settings, request: pytest.FixtureRequest) -> list[Command]:
    """A history as a producer makes it, on no lane."""
    producer = Producer(settings, seed=request.getfixturevalue("seed"), accounts=4)
    producer.open_accounts()
    producer.write(3 * BACKLOG)
    return producer.accepted


def entries_of(commands: Iterable[Command], settings: Settings) -> list[LaneEntry]:
    return [
        parse_entry(0, b"%d-0" % number, [COMMAND_FIELD, encode_command(command, settings.store)])
        for number, command in enumerate(commands, 1)
    ]


def in_batches(entries: list[LaneEntry], choose: random.Random) -> list[list[LaneEntry]]:
    """Cut the requests into batches of random sizes."""
    batches, start = [], 0
    while start < len(entries):
        size = choose.randint(1, 40)
        batches.append(entries[start : start + size])
        start += size
    return batches


def apply_at_once(settings: Settings, shares: list[list[list[LaneEntry]]]) -> list[ForgedOwner]:
    start = threading.Barrier(len(shares))
    owners = [ForgedOwner(settings, batches, start) for batches in shares]
    for owner in owners:
        owner.join()
    return owners


@pytest.mark.parametrize("seed", SEEDS)
def test_two_owners_of_the_same_commands_have_one_effect_each_in_order(
    seed: int, settings: Settings, commands: list[Command]
) -> None:
    entries = entries_of(commands, settings)
    owners = apply_at_once(settings, [in_batches(entries, random.Random(seed + share)) for share in range(3)])
    expected = {account: sorted(effects) for account, effects in expected_effects(commands).items()}
    assert History(settings).effects() == expected
    # Each of them gave every command the same answer
    effects = {effect.idempotency_key: effect for effects in expected.values() for effect in effects}
    for owner in owners:
        answers = [effect_of(outcome.row) for _, outcome in owner.outcomes]
        assert answers == [effects[command.idempotency_key] for command in commands]
    assert verify(settings.require_database_url()).failed == []


@pytest.mark.parametrize("seed", SEEDS)
def test_two_owners_of_interleaved_commands_keep_every_balance_right(
    seed: int, settings: Settings, commands: list[Command]
) -> None:
    # Given two owners of the same accounts, each with half of the commands
    entries = entries_of(commands, settings)
    openings = len({command.account_id for command in commands})
    apply_at_once(settings, [[entries[:openings]]])
    movements = entries[openings:]
    shares = [in_batches(movements[share::2], random.Random(seed + share)) for share in range(2)]
    # When they apply them at once
    owners = apply_at_once(settings, shares)
    # Then every command has one effect, and the books are sound, in whatever order it was
    effects = [effect for effects in History(settings).effects().values() for effect in effects]
    assert sorted(effect.idempotency_key for effect in effects) == sorted({c.idempotency_key for c in commands})
    by_key: dict[str, Effect] = {effect.idempotency_key: effect for effect in effects}
    for owner in owners:
        for entry, outcome in owner.outcomes:
            assert entry.command is not None
            assert effect_of(outcome.row) == by_key[entry.command.idempotency_key]
    assert verify(settings.require_database_url()).failed == []


def test_a_careful_batch_waits_for_another_on_its_accounts(settings: Settings) -> None:
    """Else two consumers could collide again and again, until a command is taken for one that cannot be applied."""
    producer = Producer(settings, accounts=2)
    producer.open_accounts()
    opened = entries_of(producer.accepted, settings)
    apply_at_once(settings, [[opened]])
    with (
        connect_postgres(settings.require_database_url()) as first,
        connect_postgres(settings.require_database_url()) as second,
    ):
        one, other = ((1, account) for account in producer.accounts)
        holder, waiter = LedgerStore(first, "first"), LedgerStore(second, "second", timeout_seconds=0.2)
        holder._open()
        holder._lock_accounts({one})
        assert waiter.transact([(other, movement_of(producer.accounts[1]))], {}, careful=True)[0].row is not None
        with pytest.raises(psycopg.errors.LockNotAvailable):
            waiter.transact([(one, movement_of(producer.accounts[0]))], {}, careful=True)
        first.commit()
        assert waiter.transact([(one, movement_of(producer.accounts[0]))], {}, careful=True)[0].row is not None


def movement_of(account_id: str) -> PlainCommand:
    return PlainCommand("credit", "store_default", account_id, f"credit {account_id}", 1, "one")


@pytest.mark.parametrize("seed", SEEDS)
def test_two_workers_started_at_once_share_the_lanes_and_apply_everything_once(
    seed: int, settings: Settings, start_worker: StartWorker
) -> None:
    producer = Producer(settings, seed=seed)
    producer.open_accounts()
    with producer:
        workers = [start_worker(settings, lease_seconds=1.0) for _ in range(2)]
        share = producer.partitions // 2
        wait_for(lambda: owned_by(settings) == {worker.pid: share for worker in workers}, "an equal share each")
        producer.wait_for_more(200)
    History(settings).check(producer)
    assert [worker.has_ended for worker in workers] == [False, False]
