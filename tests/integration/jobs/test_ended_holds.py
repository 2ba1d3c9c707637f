"""Holds end by themselves, on accounts that nobody asks anything of, however many end at once."""

import subprocess
import threading
from typing import Any

import pytest
import redis

from creditlane import Client, Settings
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.schemas.commands import Hold, OpenAccount
from creditlane.worker.jobs import ended_holds
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.ended_holds import EndedHolds

from ..direct_store import DirectStore, codes
from .conftest import DEADLINE_SECONDS, StartJobs

ANN, BOB = "cca_" + "a1" * 16, "cca_" + "b2" * 16


def statuses(connection: Connection) -> list[int]:
    return [status for (status,) in connection.execute("select status from holds order by account_id, seq").fetchall()]


def on_lanes(client: redis.Redis, settings: Settings) -> int:
    return sum(client.xlen(Keys(settings.redis_prefix).lane(partition)) for partition in range(8))


def test_holds_end_by_themselves(
    start_jobs: StartJobs,
    running_worker: "subprocess.Popen[bytes]",
    connection: Connection,
    client_of_redis: redis.Redis,
    settings: Settings,
) -> None:
    """Given holds on accounts that nobody asks anything of, when two processes look, then each hold is released once,
    and what nobody waits for leaves nothing else."""
    assert running_worker.poll() is None
    with Client(settings) as client:
        for account in (ANN, BOB):
            client.open_account(customer_id=account, account_id=account, initial_balance=100)
        for number in range(3):
            client.hold(ANN, 10, reference="call", idempotency_key=f"ann {number}", expires_in_seconds=1)
        client.hold(BOB, 10, reference="call", idempotency_key="bob")
        for queue in ("jobs", "deliveries"):
            start_jobs(queue, tried=False)

        assert wait_until(lambda: statuses(connection) == [4, 4, 4, 1], seconds=DEADLINE_SECONDS)
        assert wait_until(lambda: on_lanes(client_of_redis, settings) == 0, seconds=DEADLINE_SECONDS)
        rows = connection.execute("select kind, count(*) from journal where kind >= 9 group by kind order by kind")
        assert rows.fetchall() == [(9, 4), (13, 3)]
        assert connection.execute("select count(*) from dead_letters").fetchone() == (0,)
        assert (client.account(ANN).held, client.account(BOB).held) == (0, 10)


@pytest.fixture
def stopping() -> threading.Event:
    """That of a process which looks once."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def ended(database_url: str, connection: Connection) -> None:
    """Six holds on two accounts, all of which have ended, and no worker."""
    with DirectStore(database_url) as store:
        for account in (ANN, BOB):
            store.apply(
                OpenAccount(account_id=account, idempotency_key=account, customer_id=account, initial_balance=9)
            )
            holds = [
                Hold(account_id=account, idempotency_key=f"{account} {number}", amount=1, reference="r")
                for number in range(3)
            ]
            assert codes(store.apply(*holds)) == ["applied"] * 3
    connection.execute(
        "update holds set created_at = created_at - interval '1 day', expires_at = now() - interval '1 minute'"
    )


@pytest.mark.usefixtures("ended")
def test_only_so_many_wait_on_the_lanes(
    connection: Connection,
    client_of_redis: redis.Redis,
    settings: Settings,
    stopping: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given more ends than may wait, then no more are put before some are released, and those that are left then."""
    monkeypatch.setattr(ended_holds, "MAX_WAITING", 4)
    holds = EndedHolds(settings, stopping)

    assert [holds.put_on_lanes(connection, client_of_redis) for _ in range(3)] == [4, 0, 0]
    # Three of one account are one command.
    assert on_lanes(client_of_redis, settings) == 2
    connection.execute("update holds set status = 4, remaining = 0, ended_at = now() where account_id = %s", [ANN[4:]])
    assert holds.put_on_lanes(connection, client_of_redis) == 2
    assert holds.put_on_lanes(connection, client_of_redis) == 0


@pytest.mark.usefixtures("ended")
def test_lane_that_stands_holds_up_no_other(
    connection: Connection,
    client_of_redis: redis.Redis,
    settings: Settings,
    stopping: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given ends that nobody releases, when they were waited for long enough, then the others have their turn."""
    monkeypatch.setattr(ended_holds, "MAX_WAITING", 2)
    monkeypatch.setattr(ended_holds, "WAIT_SECONDS", 0.0)
    holds = EndedHolds(settings, stopping)
    seen: set[Any] = set()
    for _ in range(3):
        holds.put_on_lanes(connection, client_of_redis)
        seen |= holds._waiting.keys()

    assert len(seen) == 6


@pytest.mark.usefixtures("ended")
def test_what_a_full_lane_does_not_take_waits_for_later(
    connection: Connection, client_of_redis: redis.Redis, settings: Settings, stopping: threading.Event
) -> None:
    """Given lanes with a command each, which is all that they may have, then nothing is put and nothing forgotten."""
    assert EndedHolds(settings, stopping).put_on_lanes(connection, client_of_redis) == 6
    length = on_lanes(client_of_redis, settings)
    full = EndedHolds(settings.model_copy(update={"lane_limit": 1}), stopping)

    assert full.put_on_lanes(connection, client_of_redis) == 0
    assert on_lanes(client_of_redis, settings) == length
    assert EndedHolds(settings, stopping).put_on_lanes(connection, client_of_redis) == 6
