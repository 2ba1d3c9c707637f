"""What a client accepts stands on its lane, in order and whole; what it cannot take it refuses, and changes nothing.

No worker runs here, so the lanes show what was put on them.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import psycopg
import pytest
import redis

from creditlane import (
    Client,
    Command,
    ConfigurationError,
    Debit,
    Freeze,
    InvalidCommand,
    LaneFull,
    OpenAccount,
    OutcomeUnknown,
    Settings,
    Unavailable,
)
from creditlane.lanes.encoding import decode_command
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.producer.client import chunks
from creditlane.schemas.errors import NotMigrated, PartitionMismatch
from creditlane.schemas.identifiers import derive_account_id

ACCOUNTS = ["cca_" + f"{number:032x}" for number in range(10)]
MakeClient = Callable[[Settings], Client]


@pytest.fixture
def lanes(settings: Settings) -> Iterator["redis.Redis"]:
    """A connection to read the lanes with."""
    with redis.Redis.from_url(settings.require_redis_url(), protocol=2) as connection:
        yield connection


def lane_of(settings: Settings, account_id: str) -> str:
    return Keys(settings.redis_prefix).lane(partition_of(account_id, settings.partitions or 0))


def on_lane(lanes: "redis.Redis", settings: Settings, account_id: str) -> list[dict[bytes, bytes]]:
    entries: Any = lanes.xrange(lane_of(settings, account_id))
    return [fields for _entry, fields in entries if account_id.encode() in fields[b"c"]]


def keys_on_lane(lanes: "redis.Redis", settings: Settings, account_id: str) -> list[str]:
    return [decode_command(fields[b"c"]).idempotency_key for fields in on_lane(lanes, settings, account_id)]


def debit(number: int, account_id: str = ACCOUNTS[0], **fields: Any) -> Debit:
    values = {"account_id": account_id, "amount": 1, "reference": "r", "idempotency_key": f"key_{number}"}
    return Debit(**values | fields)


def test_an_enqueued_command_stands_on_its_lane_with_where_to_announce_and_that_its_result_is_kept(
    client: Client, settings: Settings, lanes: "redis.Redis"
) -> None:
    ticket = client.enqueue(debit(1))

    (entry,) = on_lane(lanes, settings, ACCOUNTS[0])
    command = decode_command(entry[b"c"])
    assert (command.store_id, command.account_id, command.idempotency_key) == (settings.store, ACCOUNTS[0], "key_1")
    assert entry[b"r"] == f"{ticket.producer_id}/{ticket.number}".encode()
    assert entry[b"k"] == b"1"
    assert client.result(ticket).status == "queued"


def test_an_account_to_open_gets_the_id_that_its_key_gives(
    client: Client, settings: Settings, lanes: "redis.Redis"
) -> None:
    ticket = client.enqueue(OpenAccount(customer_id="c", idempotency_key="open_1"))

    assert ticket.account_id == derive_account_id(settings.store, "open_1")
    assert keys_on_lane(lanes, settings, ticket.account_id) == ["open_1"]


def test_a_bulk_keeps_the_order_of_every_account_over_many_chunks(
    client: Client, settings: Settings, lanes: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_COMMANDS", 7)
    commands = [debit(number, ACCOUNTS[number % 10]) for number in range(100)]
    progress: list[int] = []

    tickets = client.enqueue_many(commands, on_progress=progress.append)

    for position, account_id in enumerate(ACCOUNTS):
        assert keys_on_lane(lanes, settings, account_id) == [f"key_{number}" for number in range(position, 100, 10)]
    assert [ticket.idempotency_key for ticket in tickets] == [f"key_{number}" for number in range(100)]
    assert progress == [*range(7, 100, 7), 100]
    for ticket in tickets:
        ((_entry, fields),) = lanes.xrange(lane_of(settings, ticket.account_id), ticket.lane_entry, ticket.lane_entry)  # type: ignore[misc, union-attr]
        assert decode_command(fields[b"c"]).idempotency_key == ticket.idempotency_key
        assert fields[b"r"] == f"{ticket.producer_id}/{ticket.number}".encode()
        assert b"k" not in fields


def test_a_bulk_is_sent_whether_or_not_its_tickets_are_read(
    client: Client, settings: Settings, lanes: "redis.Redis"
) -> None:
    client.enqueue_many((debit(number) for number in range(20)), keep_results=True)

    entries = on_lane(lanes, settings, ACCOUNTS[0])
    assert len(entries) == 20
    assert {fields[b"k"] for fields in entries} == {b"1"}


@pytest.mark.conformance
def test_an_empty_bulk_is_no_error(client: Client) -> None:
    assert list(client.enqueue_many([])) == []


def test_a_full_lane_accepts_nothing_of_a_command(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    client = make_client(settings.model_copy(update={"lane_limit": 2}))
    client.enqueue_many([debit(1), debit(2)])

    with pytest.raises(LaneFull) as caught:
        client.enqueue(debit(3))

    assert (caught.value.partition, caught.value.accepted) == (partition_of(ACCOUNTS[0], settings.partitions or 0), 0)
    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == ["key_1", "key_2"]


def test_a_lane_without_room_for_all_of_a_call_accepts_none_of_it(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    client = make_client(settings.model_copy(update={"lane_limit": 5}))
    client.enqueue_many([debit(1), debit(2)])

    with pytest.raises(LaneFull) as caught:
        client.enqueue_many([debit(number) for number in (3, 4, 5, 6)], timeout=0.05)

    assert caught.value.accepted == 0
    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == ["key_1", "key_2"]


def test_a_bulk_that_meets_a_full_lane_says_how_much_was_accepted(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    client = make_client(settings.model_copy(update={"lane_limit": 5}))

    with pytest.raises(LaneFull) as caught:
        client.enqueue_many([debit(number) for number in range(8)], timeout=0.05)

    assert caught.value.accepted == 5
    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == [f"key_{number}" for number in range(5)]


def test_a_bulk_waits_for_room_on_a_full_lane(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(settings.model_copy(update={"lane_limit": 5}))
    taken: list[str] = []

    def take_off_while_waiting(*_limits: float) -> Iterator[float]:
        while True:
            taken.extend(keys_on_lane(lanes, settings, ACCOUNTS[0]))
            lanes.xtrim(lane_of(settings, ACCOUNTS[0]), maxlen=0, approximate=False)
            yield 0.0

    for kind in ("_async", "_sync"):
        monkeypatch.setattr(f"creditlane.producer.client.{kind}.sender.growing_pauses", take_off_while_waiting)
    tickets = client.enqueue_many([debit(number) for number in range(23)])

    assert len(tickets) == 23
    assert len(taken) == 20
    assert taken + keys_on_lane(lanes, settings, ACCOUNTS[0]) == [f"key_{number}" for number in range(23)]


def commands_with_a_bad_one() -> Iterator[Command]:
    for number in range(25):
        yield debit(number, store_id="store_other" if number == 20 else None)


def test_everything_before_a_bad_command_is_accepted_and_nothing_after_it(
    client: Client, settings: Settings, lanes: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_COMMANDS", 8)

    with pytest.raises(InvalidCommand, match=r"command 20: .*the 20 before it were accepted") as caught:
        client.enqueue_many(commands_with_a_bad_one())

    assert caught.value.field == "store_id"
    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == [f"key_{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": 1.5}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"reference": ""}, "reference"),
        ({"reference": "a\0b"}, "reference"),
        ({"idempotency_key": "\ud800"}, "idempotency_key"),
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"account_id": "cca_1"}, "account_id"),
    ],
)
def test_bad_input_to_a_convenience_method_names_its_field_and_sends_nothing(
    client: Client, settings: Settings, lanes: "redis.Redis", fields: dict[str, Any], field: str
) -> None:
    values = {"account_id": ACCOUNTS[0], "amount": 1, "reference": "r", "idempotency_key": "key_1"} | fields

    for method in (client.credit, client.debit):
        with pytest.raises(InvalidCommand, match=field) as caught:
            method(**values)
        assert caught.value.field == field

    assert not list(lanes.scan_iter(match=f"{settings.redis_prefix}:*:commands"))


def test_a_script_that_redis_has_forgotten_is_loaded_again(
    client: Client, settings: Settings, lanes: "redis.Redis"
) -> None:
    client.enqueue(debit(1))
    lanes.script_flush()

    client.enqueue(debit(2))
    lanes.script_flush()
    client.enqueue_many([debit(3), debit(4)])

    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == ["key_1", "key_2", "key_3", "key_4"]


def test_pending_counts_the_accounts_own_commands_only(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    mine = make_client(settings)
    other = make_client(settings.model_copy(update={"store": "store_other"}))
    mine.enqueue_many([debit(number, reference=ACCOUNTS[1]) for number in range(1_500)])
    mine.enqueue(Freeze(account_id=ACCOUNTS[1], idempotency_key="freeze"))
    other.enqueue(debit(1))
    lanes.xadd(lane_of(settings, ACCOUNTS[0]), {"c": f"no json {ACCOUNTS[0]}"})

    assert (mine.pending(ACCOUNTS[0]), mine.pending(ACCOUNTS[1]), mine.pending(ACCOUNTS[2])) == (1_500, 1, 0)
    assert other.pending(ACCOUNTS[0]) == 1


def test_the_number_of_partitions_is_taken_from_postgres_and_written_to_redis(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    client = make_client(settings.model_copy(update={"partitions": None}))
    client.enqueue(debit(1))

    mirror: Any = lanes.get(Keys(settings.redis_prefix).installation)
    assert msgspec.json.decode(mirror) == {"partitions": settings.partitions}
    without_postgres = make_client(settings.model_copy(update={"database_url": None}))
    without_postgres.enqueue(debit(2))
    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == ["key_1", "key_2"]


@pytest.mark.parametrize("broken", ["", "[]", '{"partitions":0}', '{"partitions":-8}', '{"partitions":4096}', None])
def test_a_broken_number_of_partitions_in_redis_is_none(
    broken: str | None, make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    """Given what no installation has, or a list instead, then Postgres is asked."""
    key = Keys(settings.redis_prefix).installation
    if broken is None:
        lanes.lpush(key, "of another type")
    else:
        lanes.set(key, broken)

    make_client(settings.model_copy(update={"partitions": None})).enqueue(debit(1))

    assert keys_on_lane(lanes, settings, ACCOUNTS[0]) == ["key_1"]


def test_a_client_with_another_number_of_partitions_sends_nothing(
    make_client: MakeClient, settings: Settings, lanes: "redis.Redis"
) -> None:
    client = make_client(settings.model_copy(update={"partitions": 9}))

    for _ in range(2):
        with pytest.raises(PartitionMismatch, match="CREDITLANE_PARTITIONS is 9"):
            client.enqueue(debit(1))

    assert not list(lanes.scan_iter(match=f"{settings.redis_prefix}:*:commands"))


def test_a_database_without_a_ledger_is_named_as_such(
    make_client: MakeClient, settings: Settings, empty_database_url: str
) -> None:
    client = make_client(settings.model_copy(update={"database_url": empty_database_url}))

    with pytest.raises(NotMigrated, match="creditlane migrate"):
        client.enqueue(debit(1))


def test_a_client_without_a_database_url_says_what_to_set(make_client: MakeClient, settings: Settings) -> None:
    client = make_client(settings.model_copy(update={"database_url": None}))

    with pytest.raises(ConfigurationError, match="CREDITLANE_DATABASE_URL is not set"):
        client.balance(ACCOUNTS[0])


def test_a_redis_that_cannot_be_reached_is_unavailable(make_client: MakeClient, settings: Settings) -> None:
    client = make_client(settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"}))

    with pytest.raises(Unavailable, match="Redis cannot be reached"):
        client.enqueue(debit(1))


def test_a_postgres_that_cannot_be_reached_is_unavailable(
    make_client: MakeClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creditlane.producer.ledger.read_limits.READ_SECONDS", 0.2)
    client = make_client(settings.model_copy(update={"database_url": "postgresql://u:hunter2@/db?host=/nowhere"}))

    with pytest.raises(Unavailable, match="Postgres cannot be reached") as caught:
        client.balance(ACCOUNTS[0])

    assert "hunter2" not in str(caught.value)


class DeafRedis:
    """Greets like a Redis, answers GET with an installation, and hangs up on every command that changes something."""

    def __init__(self) -> None:
        self.scripts_seen = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._server.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        while request := connection.recv(65_536):
            if b"EVALSHA" in request:
                self.scripts_seen += 1
                return
            answer = b'$16\r\n{"partitions":8}\r\n' if b"GET" in request else b"+OK\r\n"
            connection.sendall(answer * request.count(b"*"))


@pytest.fixture
def deaf_redis() -> Iterator[DeafRedis]:
    server = DeafRedis()
    yield server
    server.close()


def test_a_command_that_was_sent_and_never_answered_has_an_unknown_outcome(
    make_client: MakeClient, settings: Settings, deaf_redis: DeafRedis
) -> None:
    client = make_client(settings.model_copy(update={"redis_url": deaf_redis.url}))

    with pytest.raises(OutcomeUnknown, match="send it again as it was") as single:
        client.enqueue(debit(1))
    attempts = deaf_redis.scripts_seen
    with pytest.raises(OutcomeUnknown, match="0 commands of this call were accepted before"):
        client.enqueue_many([debit(2)])

    assert single.value.ticket is None
    assert 1 < attempts < 10


def test_a_reader_recovers_from_a_connection_that_postgres_has_cut(client: Client, settings: Settings) -> None:
    ticket = client.enqueue(debit(1))
    assert client.result(ticket).status == "queued"

    with psycopg.connect(settings.require_database_url(), autocommit=True) as other:
        cut = other.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'creditlane-client' and datname = current_database()"
        ).fetchall()

    assert cut
    assert client.result(ticket).status == "queued"
