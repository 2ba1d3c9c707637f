"""What is new is decided only where no worker of an older release can get a lane any more; until then it is refused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from creditlane.lanes.encoding import encode_command
from creditlane.lanes.keys import COMMAND_FIELD
from creditlane.local.processes import wait_until
from creditlane.schemas import releases
from creditlane.schemas.commands import Command, Credit, Freeze, OpenAccount
from creditlane.schemas.releases import RELEASE
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.worker.lanes.entries import Batch, parse_entry
from creditlane.worker.ledger.state import Outcome
from creditlane.worker.store.applier import Applier
from creditlane.worker.store.transaction import LedgerStore

from .direct_store import PARTITIONS, DirectStore

ANN, BOB = "cca_" + "a" * 32, "cca_" + "b" * 32
OLD, NEW = "old", "new"
#: A heartbeat as release 0.1.0 has it, and as this one, that lasts for so many seconds.
HEARTBEATS = {
    OLD: "insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck) values "
    "('old', 'h', 1, clock_timestamp() + make_interval(secs => %s), '{}', 300, false)",
    NEW: "insert into workers (worker_id, host, process_id, expires_at, numbers, lease_seconds, stuck, release) values "
    f"('new', 'h', 1, clock_timestamp() + make_interval(secs => %s), '{{}}', 300, false, {RELEASE})",
}
TAKE = "update leases set worker_id = %s, epoch = epoch + 1 where partition = %s"
REQUIRED = "select required_release from installation"
#: How many sessions of the database wait for somebody's row.
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def postgres(database_url: str) -> Iterator[Connection]:
    """A session on a ledger of the release before, just migrated."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update installation set required_release = 0")
        yield connection


@pytest.fixture
def store(database_url: str, postgres: Connection) -> Iterator[DirectStore]:
    assert postgres
    with DirectStore(database_url, NEW) as store:
        store.apply(
            *(OpenAccount(account_id=each, customer_id=each, idempotency_key=f"open {each}") for each in (ANN, BOB))
        )
        yield store


@pytest.fixture
def applier(store: DirectStore, monkeypatch: pytest.MonkeyPatch) -> Applier:
    """Applies what comes off lanes. To it, a freeze is something that release 0.1.0 does not know."""
    monkeypatch.setitem(releases._ADDED, Freeze, None)  # type: ignore[index]
    return Applier(store.ledger_store)


def freeze(key: str, account_id: str = ANN, **more: Any) -> Freeze:
    return Freeze(account_id=account_id, idempotency_key=key, **more)


def credit(key: str, account_id: str = ANN) -> Credit:
    return Credit(account_id=account_id, amount=1, reference="r", idempotency_key=key)


def apply(applier: Applier, *commands: Command) -> list[str]:
    """Apply the commands as one batch off a lane, and return what became of each."""
    entries = [
        parse_entry(1, b"%d-0" % number, [COMMAND_FIELD, encode_command(command, DEFAULT_STORE)])
        for number, command in enumerate(commands, 1)
    ]
    return list(map(became, applier.apply(Batch(entries, {}))))


def became(outcome: Outcome) -> str:
    if outcome.refusal is not None:
        return outcome.refusal.code
    assert outcome.row is not None
    return "replayed" if outcome.replayed else outcome.row.rejection or "applied"


def count(postgres: Connection, table: str) -> int:
    ((found,),) = postgres.execute(f"select count(*) from {table}".encode()).fetchall()
    return int(found)


def test_a_ledger_of_this_release_takes_nobody_older_from_the_beginning(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute(REQUIRED).fetchall() == [(RELEASE,)]


@pytest.mark.parametrize(("required", "old_gets"), [(0, 1), (RELEASE, 0)])
def test_who_is_older_than_the_ledger_takes_gets_no_lane_and_no_error(
    required: int, old_gets: int, postgres: Connection
) -> None:
    postgres.execute("update installation set required_release = %s", [required])
    for heartbeat in HEARTBEATS.values():
        postgres.execute(heartbeat, [300])

    assert postgres.execute(TAKE, [OLD, 1]).rowcount == old_gets
    assert postgres.execute(TAKE, [NEW, 2]).rowcount == 1
    assert postgres.execute("select worker_id from leases where partition = 1").fetchone() == (
        OLD if old_gets else None,
    )
    # What it has can be given back, and its epochs raised, whatever it is.
    assert postgres.execute("update leases set epoch = epoch + 1 where partition = 1").rowcount == 1
    assert postgres.execute("update leases set worker_id = null where partition = 1").rowcount == 1


def test_what_is_new_is_refused_while_an_older_worker_lives_and_leaves_nothing(
    applier: Applier, postgres: Connection
) -> None:
    """Given an older worker, when something new comes between others, then it alone is refused, however often it is
    sent, and is decided under the same key once that worker is gone."""
    postgres.execute(HEARTBEATS[OLD], [300])
    before = {table: count(postgres, table) for table in ("journal", "dead_letters", "outbox")}

    with capture_logs() as logs:
        assert apply(applier, credit("1"), freeze("new"), credit("2"), freeze("new")) == [
            "applied",
            "upgrade_unfinished",
            "applied",
            "upgrade_unfinished",
        ]
    assert [log["event"] for log in logs] == ["new commands are refused while workers of an older release live"]
    assert apply(applier, freeze("new")) == ["upgrade_unfinished"]
    assert {table: count(postgres, table) for table in before} == {**before, "journal": before["journal"] + 2}
    assert postgres.execute(REQUIRED).fetchall() == [(0,)]

    postgres.execute("delete from workers")
    assert apply(applier, freeze("new"), credit("3"), freeze("new")) == ["applied", "account_frozen", "replayed"]
    assert postgres.execute(REQUIRED).fetchall() == [(RELEASE,)]


def test_a_callback_hears_that_it_was_refused(applier: Applier, postgres: Connection) -> None:
    postgres.execute(HEARTBEATS[OLD], [300])

    assert apply(applier, freeze("new", callback_url="https://example.com/hook")) == ["upgrade_unfinished"]

    ((callbacks,),) = postgres.execute("select callbacks from outbox").fetchall()
    assert [(each["seq"], each["refusal"]["code"]) for each in callbacks] == [(None, "upgrade_unfinished")]


def test_an_older_worker_that_is_dead_keeps_it_closed_as_long_as_it_has_lanes(
    store: DirectStore, postgres: Connection
) -> None:
    postgres.execute(HEARTBEATS[OLD], [-1])
    assert postgres.execute(TAKE, [OLD, 1]).rowcount == 1

    assert store.ledger_store.require_release() is False
    assert postgres.execute(TAKE, [NEW, 1]).rowcount == 1
    # Nothing is known of this one: it is as good as old.
    assert store.ledger_store.require_release() is False
    postgres.execute(HEARTBEATS[NEW], [300])
    assert store.ledger_store.require_release() is True


def test_who_takes_a_lane_at_that_moment_has_it_before_and_keeps_it_closed(
    store: DirectStore, postgres: Connection, database_url: str
) -> None:
    """Given an older worker, dead by the clock and alive, that is just taking a lane, then a new one waits for that and
    finds it. The other way round, the older one waits, and gets none."""
    postgres.execute(HEARTBEATS[OLD], [-1])
    with psycopg.connect(database_url) as taker, ThreadPoolExecutor() as threads:
        taker.execute(TAKE, [OLD, 1])
        opened = threads.submit(store.ledger_store.require_release)
        assert wait_until(lambda: postgres.execute(WAITING).fetchone() == (1,), seconds=20)
        taker.commit()
        assert opened.result() is False

        taker.execute("update leases set worker_id = null")
        taker.commit()
        postgres.execute("begin")
        postgres.execute("update installation set required_release = %s", [RELEASE])
        taken = threads.submit(lambda: taker.execute(TAKE, [OLD, 1]).rowcount)
        with psycopg.connect(database_url, autocommit=True) as watcher:
            assert wait_until(lambda: watcher.execute(WAITING).fetchone() == (1,), seconds=20)
        postgres.execute("commit")
        assert taken.result() == 0


def test_nothing_is_remembered_that_a_restore_takes_back(applier: Applier, postgres: Connection) -> None:
    """Given that Postgres is as it was before something new was first decided, with an older worker, then it is asked
    again."""
    assert apply(applier, freeze("1")) == ["applied"]
    postgres.execute("update installation set required_release = 0")
    postgres.execute(HEARTBEATS[OLD], [300])

    assert apply(applier, freeze("2", BOB)) == ["upgrade_unfinished"]


def test_plain_commands_ask_nothing(applier: Applier, database_url: str) -> None:
    """Given somebody who keeps what would have to be asked, then credits and what is old get through."""
    assert applier
    with DirectStore(database_url) as store, psycopg.connect(database_url) as keeper:
        impatient = Applier(LedgerStore(store.connection, NEW, partitions=PARTITIONS, timeout_seconds=0.5))
        keeper.execute("lock table workers in access exclusive mode")

        assert apply(impatient, credit("1"), OpenAccount(account_id=ANN, customer_id="c", idempotency_key="o")) == [
            "applied",
            "account_exists",
        ]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            apply(impatient, freeze("1"))


def test_two_stores_raise_it_at_once(store: DirectStore, postgres: Connection, database_url: str) -> None:
    with DirectStore(database_url, "another") as other, ThreadPoolExecutor() as threads:
        stores: list[LedgerStore] = [store.ledger_store, other.ledger_store]
        assert list(threads.map(lambda each: each.require_release(), stores)) == [True, True]
    assert postgres.execute(REQUIRED).fetchall() == [(RELEASE,)]
