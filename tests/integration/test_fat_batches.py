"""Legal commands that are far larger than others: they get through, hold up nobody else, and need no more memory."""

import signal
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import psycopg
import pytest
import redis

from creditlane import Client
from creditlane.benchmarks.fat_batches import fat_credits, wide_posts
from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.lanes.keys import COMMAND_FIELD, Keys
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Close, Command, Credit, OpenAccount, Reverse
from creditlane.schemas.settings import DEFAULT_STORE, Settings
from creditlane.worker.lanes.entries import Batch, parse_entry
from creditlane.worker.ledger.state import Outcome
from creditlane.worker.store.applier import Applier, CommandTimedOut
from creditlane.worker.store.sizing import MAX_LONE_TIMEOUTS, MAX_TIMEOUTS_UNPROVEN, Sizing
from creditlane.worker.store.transaction import LedgerStore

from ..faults.worker_processes import StartWorker, WorkerProcess, start_worker, wait_for
from .direct_store import DirectStore, add_store

__all__ = ["start_worker"]

ACCOUNTS = [f"cca_{number:032x}" for number in range(100)]
LONG_BALANCE = 10**900 - 1
#: Short, so that what takes too long does so soon.
LEASE_SECONDS = 0.6
MOST_MEMORY_BYTES = 200_000_000

#: Makes one command take longer than it may.
STUCK_ROW = """
create function linger() returns trigger language plpgsql as $$
begin
    if new.idempotency_key = 'stuck' then perform pg_sleep(30); end if;
    return new;
end $$;
create trigger linger before insert on journal for each row execute function linger()
"""


@pytest.fixture
def store(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url) as store:
        opened = [
            OpenAccount(account_id=account, customer_id=account, initial_balance=LONG_BALANCE) for account in ACCOUNTS
        ]
        store.apply(*opened)
        yield store


@pytest.fixture
def applier(store: DirectStore) -> Applier:
    sizing = Sizing(lease_seconds=LEASE_SECONDS)
    ledger_store = LedgerStore(store.connection, "worker", timeout_seconds=sizing.timeout_seconds)
    return Applier(ledger_store, sizing)


def batch_of(commands: Sequence[Command]) -> Batch:
    payloads = [encode_command(command, DEFAULT_STORE) for command in commands]
    entries = [
        # One lane for each account, as far as trying others first is concerned.
        parse_entry(partition_of(str(command.account_id), 64), b"%d-0" % number, [COMMAND_FIELD, payload])
        for number, (command, payload) in enumerate(zip(commands, payloads, strict=True), 1)
    ]
    return Batch(entries, {})


def apply_all(applier: Applier, batch: Batch) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while batch.entries:
        try:
            part = applier.apply(batch)
        except CommandTimedOut as timed_out:
            batch = batch.with_last(timed_out.partition)
        else:
            outcomes += part
            batch = batch.after(len(part))
    return outcomes


def test_wide_posts_over_long_balances_get_through(applier: Applier) -> None:
    """Given posts of a hundred entries whose rows take longer all together than a statement may, then they are applied,
    and nothing but the size of the transactions has changed."""
    outcomes = apply_all(applier, batch_of(list(wide_posts(ACCOUNTS, 150))))

    assert [outcome.row.rejection for outcome in outcomes if outcome.row] == [None] * 150
    assert not any(outcome.replayed for outcome in outcomes)
    assert sum(1 + len(outcome.further) for outcome in outcomes) == 15_000


def test_a_command_that_never_gets_through_is_dead_lettered_and_the_others_are_applied(
    store: DirectStore, applier: Applier, database_url: str
) -> None:
    store.connection.execute(STUCK_ROW)
    store.connection.commit()
    keys = ["first", "stuck", *(f"key {number}" for number in range(20))]
    credits_made = [
        Credit(account_id=ACCOUNTS[number], amount=1, reference="r", idempotency_key=key)
        for number, key in enumerate(keys)
    ]

    outcomes = apply_all(applier, batch_of(credits_made))

    assert [outcome.refusal.code for outcome in outcomes if outcome.refusal] == ["dead_lettered"]
    assert sum(outcome.row is not None for outcome in outcomes) == len(keys) - 1
    with psycopg.connect(database_url) as connection:
        [(key, reason)] = connection.execute("select idempotency_key, reason from dead_letters").fetchall()
    assert key == "stuck"
    assert "57014" in reason
    assert MAX_LONE_TIMEOUTS > 1


def credit(key: str) -> Credit:
    return Credit(account_id=ACCOUNTS[0], amount=1, reference="r", idempotency_key=key)


@pytest.mark.parametrize("lock", ["lock table journal in share mode", "select 1 from accounts for update"])
def test_a_lock_of_somebody_else_buries_nothing(lock: str, applier: Applier, database_url: str) -> None:
    """Given an index that is being made, or a session left open on an account, then no command is given up for it."""
    batch = batch_of([credit("waits")])
    with psycopg.connect(database_url) as other:
        other.execute(lock.encode())
        for _ in range(MAX_TIMEOUTS_UNPROVEN + 1):
            applier.expect_repeats()
            with pytest.raises(psycopg.errors.LockNotAvailable):
                applier.apply(batch)
        other.rollback()

        [outcome] = applier.apply(batch)

        assert outcome.row is not None
        assert other.execute("select count(*) from dead_letters").fetchone() == (0,)


def test_many_short_parts_end_before_they_hold_their_lanes_for_long(
    applier: Applier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given closes and opens in turn, of which each pair is a part of some statements, when no statement takes
    long but all of them do, then they are applied in smaller transactions."""
    steps = count()
    monkeypatch.setattr(
        "creditlane.worker.store.transaction.time",
        SimpleNamespace(monotonic=lambda: monotonic() + next(steps) * LEASE_SECONDS / 8),
    )
    commands: list[Command] = []
    for number in range(12):
        opened = f"cca_{1_000 + number:032x}"
        commands += [
            Close(account_id=ACCOUNTS[number], idempotency_key=f"close {number}"),
            OpenAccount(account_id=opened, customer_id=opened),
        ]
    batch = batch_of(commands)

    first = applier.apply(batch)

    assert 1 < len(first) < len(commands)
    assert len(first) + len(apply_all(applier, batch.after(len(first)))) == len(commands)
    assert [outcome.row.rejection for outcome in first[1::2] if outcome.row] == [None] * (len(first) // 2)


@pytest.mark.parametrize("table", ["journal", "stores"])
def test_what_is_read_before_the_lanes_are_held_has_the_same_limits_and_is_no_size(
    table: str, store: DirectStore, database_url: str
) -> None:
    """Given a transaction that held lanes, when the next one waits for what it reads before it holds any, then the wait
    ends by the worker's own limits, and it is not taken for one that held lanes."""
    store.connection.execute("set statement_timeout = '5s'")
    number = store.ledger_store.find_stores([DEFAULT_STORE])[DEFAULT_STORE]
    reversal = Reverse(account_id=ACCOUNTS[0], transaction_id=f"cct_{ACCOUNTS[0][4:]}1")
    command = decode_command(encode_command(reversal, DEFAULT_STORE))
    hasty = LedgerStore(store.connection, "worker", timeout_seconds=0.3)
    hasty.transact([((number, ACCOUNTS[0]), command)], {})
    assert hasty.holds_lanes_since is not None
    with psycopg.connect(database_url) as other:
        other.execute(f"lock table {table} in access exclusive mode".encode())
        reads = {
            "stores": lambda: hasty.find_stores(["another"]),
            "journal": lambda: hasty.transact([((number, ACCOUNTS[0]), command)], {}),
        }
        with pytest.raises(psycopg.errors.LockNotAvailable):
            reads[table]()

    assert hasty.holds_lanes_since is None
    assert hasty.find_stores([DEFAULT_STORE]) == {DEFAULT_STORE: number}


def test_a_commit_that_hangs_is_waited_for_before_its_key_is_read(
    store: DirectStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an attempt whose commit neither ends nor fails, then nobody says of its key that it is not in the journal,
    and once the commit is through it is found there."""
    store.connection.execute("update leases set worker_id = 'worker', epoch = 7 where partition = 3")
    store.connection.commit()
    command = decode_command(encode_command(credit("hangs"), DEFAULT_STORE))
    account = (store.ledger_store.find_stores([DEFAULT_STORE])[DEFAULT_STORE], ACCOUNTS[0])
    with psycopg.connect(database_url) as connection:
        later = LedgerStore(connection, "worker", timeout_seconds=0.2)
        assert not later.is_decided(account, command, {3: 7})
        with monkeypatch.context() as hanging:
            hanging.setattr(store.connection, "commit", lambda: None)
            store.ledger_store.transact([(account, command)], {3: 7})
        with pytest.raises(psycopg.errors.LockNotAvailable):
            later.is_decided(account, command, {3: 7})
        store.connection.commit()

        assert later.is_decided(account, command, {3: 7})


def commands_on_lanes(settings: Settings) -> int:
    keys = Keys(settings.redis_prefix)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        return sum(client.xlen(keys.lane(partition)) for partition in range(settings.partitions or 0))


def peak_memory_bytes(worker: WorkerProcess) -> int:
    [line] = [line for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1_024


def test_memory_is_bounded_whatever_is_on_the_lanes(
    settings: Settings, store: DirectStore, start_worker: StartWorker
) -> None:
    """Given a hundred megabytes of commands on few lanes, behind short ones that made large reads seem safe, when a
    worker drains them, then it never holds much of it at once."""
    assert store.ledger_store.find_stores([DEFAULT_STORE])
    short = [
        Credit(account_id=ACCOUNTS[n % 100], amount=1, reference="r", idempotency_key=f"s {n}") for n in range(4_000)
    ]
    with Client(settings) as client:
        client.enqueue_many(short)
        client.enqueue_many(fat_credits(ACCOUNTS, 1_000))
    worker = start_worker(settings)

    wait_for(lambda: commands_on_lanes(settings) == 0, "lanes drained", 120)

    assert peak_memory_bytes(worker) < MOST_MEMORY_BYTES


def test_what_others_send_behind_something_heavy_overtakes_it_and_nothing_is_lost(
    settings: Settings, database_url: str, start_worker: StartWorker
) -> None:
    """Given one lane on which a store's heavy commands stand between another's light ones, then the light ones are
    decided first, deleting them leaves the heavy ones where they are, and those are decided in their order."""
    add_store(database_url, "store_heavy")
    heavy, light = ACCOUNTS[0], next(a for a in ACCOUNTS[1:] if partition_of(a, 8) == partition_of(ACCOUNTS[0], 8))
    with DirectStore(database_url) as direct:
        direct.apply(OpenAccount(account_id=heavy, customer_id="h"), store="store_heavy")
        direct.apply(OpenAccount(account_id=light, customer_id="l"))
    with (
        Client(settings) as one,
        Client(settings.model_copy(update={"store": "store_heavy"})) as other,
    ):
        for number in range(60):
            other.enqueue_many(
                credit.model_copy(update={"idempotency_key": f"heavy {number}"}) for credit in fat_credits([heavy], 1)
            )
            one.enqueue(Credit(account_id=light, amount=1, reference="r", idempotency_key=f"light {number}"))
    worker = start_worker(settings)

    wait_for(lambda: commands_on_lanes(settings) == 0, "lane drained")
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_exit() == 0

    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            """
            select idempotency_key, created_at from journal where kind = 2 order by created_at, account_id, seq
            """
        ).fetchall()
    keys = [key for key, _ in rows]
    assert sorted(keys) == sorted([*(f"heavy {n}" for n in range(60)), *(f"light {n}" for n in range(60))])
    assert [key for key in keys if key.startswith("heavy")] == [f"heavy {number}" for number in range(60)]
    last_light = max(at for key, at in rows if key.startswith("light"))
    assert sum(at > last_light for key, at in rows if key.startswith("heavy")) > 40
