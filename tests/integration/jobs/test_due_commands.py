"""A command with a due time is put on its lane when that has come, and has one effect."""

import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from creditlane import Client, Credit, Debit, IdempotencyKeyMismatch, InvalidCommand, OpenAccount, Settings
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.worker.jobs import scheduled_commands
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.scheduled_commands import DueCommands

from .conftest import DEADLINE_SECONDS, StartJobs

ANN, BOB = "cca_" + "a1" * 16, "cca_" + "b2" * 16
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SOON = datetime.now(UTC) + timedelta(days=1)


def credit(number: int, account: str = ANN) -> Credit:
    return Credit(account_id=account, amount=1, reference="due", idempotency_key=f"{account} {number}")


def lane_lengths(client: redis.Redis, settings: Settings) -> list[int]:
    """Return how many commands are on each lane that has some."""
    lengths = [client.xlen(Keys(settings.redis_prefix).lane(partition)) for partition in range(8)]
    return [length for length in lengths if length]


def waiting(connection: Connection) -> list[str]:
    rows = connection.execute("select idempotency_key from due_commands where enqueued_at is null order by due_at")
    return [key for (key,) in rows]


def test_a_command_is_applied_when_its_time_has_come(
    client: Client, start_jobs: StartJobs, running_worker: "subprocess.Popen[bytes]", connection: Connection
) -> None:
    """Given one command that is due, one due in a moment and one tomorrow, then the first two are applied."""
    assert running_worker.poll() is None
    account = client.open_account(customer_id="ann", account_id=ANN, idempotency_key="open")
    moment = datetime.now(UTC) + timedelta(seconds=1)
    keys = [client.schedule(credit(n), at=at) for n, at in enumerate([LONG_AGO, moment, SOON])]
    start_jobs("jobs", tried=False)

    assert wait_until(lambda: client.balance(account.id) == 2, seconds=DEADLINE_SECONDS)
    assert keys == [f"{ANN} {n}" for n in range(3)]
    assert wait_until(lambda: waiting(connection) == keys[2:], seconds=DEADLINE_SECONDS)
    assert all(entry.created_at >= moment for entry in client.entries(ANN) if entry.idempotency_key == keys[1])


def test_two_processes_and_a_kill_apply_each_command_once(
    client: Client,
    start_jobs: StartJobs,
    running_worker: "subprocess.Popen[bytes]",
    connection: Connection,
    client_of_redis: redis.Redis,
    settings: Settings,
) -> None:
    """Given commands that a process has put on their lanes and is killed before it could note that, when two others
    go on, then all are on the lanes twice and are applied once, in the order of their due times."""
    assert running_worker.poll() is None
    client.open_account(customer_id="ann", account_id=ANN, idempotency_key="open")
    times = [LONG_AGO + timedelta(seconds=number) for number in range(50)]
    for number, at in enumerate(times):
        client.schedule(credit(number), at=at)
    killed = start_jobs("deliveries", "kill", "commands put", "1")
    assert killed.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert len(waiting(connection)) == 50

    for queue in ("jobs", "deliveries"):
        start_jobs(queue, tried=False)

    assert wait_until(lambda: waiting(connection) == [], seconds=DEADLINE_SECONDS)
    assert wait_until(lambda: lane_lengths(client_of_redis, settings) == [], seconds=DEADLINE_SECONDS)
    entries = [entry.idempotency_key for entry in client.entries(ANN)][::-1]
    assert entries == [f"{ANN} {number}" for number in range(50)]
    assert client.balance(ANN) == 50


def test_a_cancelled_command_is_not_applied(client: Client, connection: Connection, settings: Settings) -> None:
    first, second = client.schedule(credit(1), at=SOON), client.schedule(credit(2), at=SOON)

    assert (client.cancel(first), client.cancel(first), client.cancel("unknown")) == (True, False, False)
    assert waiting(connection) == [second]
    assert settings.store == "store_default"


def test_what_is_on_its_lane_is_not_cancelled(
    client: Client, connection: Connection, client_of_redis: redis.Redis, settings: Settings
) -> None:
    key = client.schedule(credit(1), at=LONG_AGO)
    put = DueCommands(settings).put_on_lanes(connection, client_of_redis)

    assert (put, client.cancel(key), lane_lengths(client_of_redis, settings)) == (1, False, [1])


def test_the_same_command_again_moves_its_time(client: Client, connection: Connection) -> None:
    for at in (SOON, SOON + timedelta(hours=1), SOON + timedelta(hours=1)):
        client.schedule(credit(1), at=at)

    due = connection.execute("select due_at from due_commands").fetchall()
    assert due == [(SOON + timedelta(hours=1),)]


def test_another_command_under_the_key_is_refused(client: Client, connection: Connection) -> None:
    client.schedule(credit(1), at=SOON)
    other = Debit(account_id=ANN, amount=1, reference="due", idempotency_key=f"{ANN} 1")

    with pytest.raises(IdempotencyKeyMismatch):
        client.schedule(other, at=SOON + timedelta(hours=1))

    assert connection.execute("select due_at from due_commands").fetchall() == [(SOON,)]


def test_a_time_without_a_zone_and_a_foreign_store_are_refused(
    client: Client, make_client: Callable[[Settings], Client], settings: Settings
) -> None:
    with pytest.raises(InvalidCommand, match="at: must be a datetime with a time zone"):
        client.schedule(credit(1), at=datetime(2030, 1, 1))  # noqa: DTZ001  # that is the point
    with pytest.raises(InvalidCommand, match="store_id: must be left out"):
        client.schedule(credit(1).model_copy(update={"store_id": "store_other"}), at=SOON)
    with pytest.raises(InvalidCommand, match="there is no store store_missing"):
        make_client(settings.model_copy(update={"store": "store_missing"})).schedule(credit(1), at=SOON)


def test_an_account_can_be_opened_later(client: Client, connection: Connection) -> None:
    key = client.schedule(OpenAccount(customer_id="ann"), at=SOON)

    assert waiting(connection) == [key]


@pytest.mark.parametrize("slice_commands", [2, 1_000])
def test_a_full_lane_holds_back_its_own_commands_only(
    slice_commands: int,
    client: Client,
    connection: Connection,
    client_of_redis: redis.Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given lanes that take two commands, when one account has five due and another one, then the lanes hold two and
    one, and the rest follows, in order, when there is room."""
    monkeypatch.setattr(scheduled_commands, "SLICE_COMMANDS", slice_commands)
    for number in range(5):
        client.schedule(credit(number), at=LONG_AGO + timedelta(seconds=number))
    client.schedule(credit(9, BOB), at=LONG_AGO + timedelta(seconds=9))
    due = DueCommands(settings.model_copy(update={"lane_limit": 2}))

    first = due.put_on_lanes(connection, client_of_redis)
    lengths = sorted(lane_lengths(client_of_redis, settings))
    still = waiting(connection)
    for partition in range(8):
        client_of_redis.delete(Keys(settings.redis_prefix).lane(partition))
    second = due.put_on_lanes(connection, client_of_redis)

    assert (first, lengths, still) == (3, [1, 2], [f"{ANN} {number}" for number in (2, 3, 4)])
    assert (second, waiting(connection)) == (2, [f"{ANN} 4"])


def test_looking_costs_the_same_with_many_to_come(connection: Connection) -> None:
    """Given very many commands that are due some day, then the check of every second reads none of them."""
    connection.execute(
        "insert into due_commands (store_id, idempotency_key, account_id, command, due_at) "
        "select 1, n::text, gen_random_uuid(), '', now() + interval '1 day' + n * interval '1 s' "
        "from generate_series(1, 20000) as n"
    )
    connection.execute("analyze due_commands")

    def buffers(statement: str, values: dict[str, Any]) -> int:
        plan = connection.execute(f"explain (analyze, buffers, format json) {statement}".encode(), values).fetchone()
        assert plan is not None
        return int(plan[0][0]["Plan"]["Shared Hit Blocks"])

    slice_values = dict(zip(("due_at", "created_at", "store_id", "key"), scheduled_commands._BEFORE_ALL, strict=True))
    assert buffers(scheduled_commands.IS_ANY_DUE, {}) < 20
    assert buffers(scheduled_commands.READ_DUE, {**slice_values, "limit": 1_000}) < 20
