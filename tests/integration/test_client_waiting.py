"""Who waits for a result gets it, its own, once, from wherever it is; and is refused at the deadline if it is nowhere.

No worker runs here: the tests announce by hand, so that each way to a result is tried alone.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis

from creditlane import Client, Debit, InvalidCommand, OutcomeUnknown, Result, Settings, Ticket
from creditlane.lanes.encoding import decode_command, encode_command
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.local.servers import EmbeddedRedis
from creditlane.schemas.journal import Announcement, JournalRow, Refusal, encode_announcements
from creditlane.schemas.kinds import Kind

ACCOUNT = "cca_" + "0" * 31 + "1"
#: How long a test waits for what must come, in seconds.
DEADLINE_SECONDS = 30.0
MakeClient = Callable[[Settings], Client]


class Announcer:
    """Announces results by hand, as a worker does."""

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        self.connection = redis.Redis.from_url(url or settings.require_redis_url(), protocol=2)
        self.keys = Keys(settings.redis_prefix)
        self.partitions = settings.partitions or 0

    def announce(self, ticket: Ticket, *, amount: int = 1, balance: int = 0, replayed: bool = False) -> None:
        row = row_of(ticket, amount=amount, balance=balance)
        self.send(ticket, Announcement(ticket.number, row, replayed=replayed))

    def send(self, ticket: Ticket, announcement: Announcement) -> None:
        self.connection.xadd(self.keys.replies(ticket.producer_id), {"a": encode_announcements([announcement])})

    def keep(self, ticket: Ticket, announcement: Announcement) -> None:
        key = self.keys.result(self.partition(ticket), ticket.store_id, ticket.idempotency_key)
        self.connection.xadd(key, {"a": encode_announcements([announcement])}, maxlen=1, approximate=False)

    def lane(self, ticket: Ticket) -> str:
        return self.keys.lane(self.partition(ticket))

    def partition(self, ticket: Ticket) -> int:
        return partition_of(ticket.account_id, self.partitions)


@pytest.fixture
def announcer(settings: Settings) -> Iterator[Announcer]:
    made = Announcer(settings)
    yield made
    made.connection.close()


def row_of(ticket: Ticket, *, amount: int = 1, balance: int = 0) -> JournalRow:
    key = ticket.idempotency_key
    return JournalRow(1, ticket.account_id, 1, Kind.DEBIT, -1, amount, balance, 0, key, "r", None, 1, None, None)


def debit(key: str, amount: int = 1) -> Debit:
    return Debit(account_id=ACCOUNT, amount=amount, reference="r", idempotency_key=key)


def in_background(call: Callable[[], Result]) -> Any:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(call)
    executor.shutdown(wait=False)
    return future


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.01)


def waits_blocked(connection: "redis.Redis") -> int:
    blocked: Any = connection.info("clients")
    return int(blocked["blocked_clients"])


def test_an_announcement_made_before_anyone_waits_is_not_missed(client: Client, announcer: Announcer) -> None:
    ticket = client.enqueue(debit("key_1"))
    announcer.announce(ticket, balance=41)

    result = client.wait(ticket, timeout=DEADLINE_SECONDS)

    assert (result.status, result.balance, result.replayed) == ("applied", 41, False)
    assert client.wait(ticket, timeout=DEADLINE_SECONDS) == result


def test_two_requests_in_flight_under_one_key_each_get_their_own_answer(client: Client, announcer: Announcer) -> None:
    first, again, other = (client.enqueue(debit("key_1", amount)) for amount in (1, 1, 2))
    announcer.announce(first)
    announcer.announce(again, replayed=True)
    announcer.send(other, Announcement(other.number, None, refusal=Refusal("idempotency_key_mismatch", "used before")))

    results = [client.wait(ticket, timeout=DEADLINE_SECONDS) for ticket in (other, again, first)]

    assert [result.status for result in results] == ["rejected", "applied", "applied"]
    assert [result.replayed for result in results] == [False, True, False]


def test_without_a_result_the_deadline_is_kept_and_the_error_has_the_ticket(client: Client) -> None:
    ticket = client.enqueue(debit("key_1"))
    foreign = str(ticket)
    started = time.monotonic()

    with pytest.raises(OutcomeUnknown, match="may still apply") as own:
        client.wait(ticket, timeout=0.2)
    with pytest.raises(OutcomeUnknown, match="may still apply") as others:
        client.wait(foreign, timeout=0.2)
    with pytest.raises(OutcomeUnknown, match="1 of 1 commands") as many:
        list(client.wait_many([ticket], timeout=0.2))

    assert time.monotonic() - started < 5
    assert own.value.ticket == many.value.ticket == ticket
    assert others.value.ticket == Ticket.parse(foreign)


def test_a_debit_that_is_not_decided_in_time_gives_the_ticket_to_ask_with(client: Client, announcer: Announcer) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        client.debit(ACCOUNT, 1, reference="r", idempotency_key="key_1", timeout=0.2)

    ticket = caught.value.ticket
    assert isinstance(ticket, Ticket)
    announcer.announce(ticket, balance=7)
    assert client.wait(ticket, timeout=DEADLINE_SECONDS).balance == 7


def test_another_process_is_woken_by_the_poll_key(
    make_client: MakeClient, settings: Settings, announcer: Announcer
) -> None:
    ticket = make_client(settings).enqueue(debit("key_1"))
    waiting = in_background(lambda: make_client(settings).wait(str(ticket), timeout=DEADLINE_SECONDS))
    until(lambda: waits_blocked(announcer.connection) > 0)

    announcer.keep(ticket, Announcement(0, row_of(ticket, balance=5), replayed=True))

    result = waiting.result(DEADLINE_SECONDS)
    assert (result.balance, result.replayed) == (5, True)
    assert make_client(settings).result(str(ticket)) == result


def test_a_poll_key_with_the_announcement_of_another_request_is_not_given_out(
    make_client: MakeClient, settings: Settings, announcer: Announcer
) -> None:
    ticket = make_client(settings).enqueue(debit("key_1"))
    announcer.keep(ticket, Announcement(0, row_of(ticket, amount=99, balance=5)))
    other = make_client(settings)

    assert other.result(str(ticket)).status == "queued"
    with pytest.raises(OutcomeUnknown):
        other.wait(str(ticket), timeout=0.2)


def test_each_of_many_gets_its_result_once_as_it_comes(client: Client, announcer: Announcer) -> None:
    tickets = client.enqueue_many([debit(f"key_{number}") for number in range(30)])
    for ticket in reversed(tickets):
        announcer.announce(ticket)
        announcer.announce(ticket, replayed=True)

    results = list(client.wait_many(tickets, timeout=DEADLINE_SECONDS))

    assert [result.idempotency_key for result in results] == [f"key_{number}" for number in reversed(range(30))]


def test_two_who_wait_for_the_same_many_both_get_all(client: Client, announcer: Announcer) -> None:
    tickets = client.enqueue_many([debit(f"key_{number}") for number in range(10)])
    first = client.wait_many(tickets, timeout=DEADLINE_SECONDS)
    second = client.wait_many(list(tickets), timeout=DEADLINE_SECONDS)
    announcer.announce(tickets[0])
    heard = [next(first)]
    for ticket in tickets[1:]:
        announcer.announce(ticket)
    announcer.announce(tickets[0], replayed=True)

    heard += list(first)

    assert {result.idempotency_key for result in heard} == {f"key_{number}" for number in range(10)}
    announcer.announce(tickets[0])
    assert next(second).status == "applied"


def test_a_lane_that_has_lost_its_commands_is_reported_and_not_waited_for(client: Client, announcer: Announcer) -> None:
    ticket = client.enqueue(debit("key_1"))
    announcer.connection.delete(announcer.lane(ticket))

    with pytest.raises(OutcomeUnknown, match="neither on its lane nor in the ledger"):
        client.result(ticket)
    with pytest.raises(OutcomeUnknown, match="neither on its lane nor in the ledger"):
        client.wait(str(ticket), timeout=DEADLINE_SECONDS)


def test_a_dead_letter_is_reported_with_its_reason_until_it_is_replayed(client: Client, settings: Settings) -> None:
    command = debit("key_1")
    ticket = client.enqueue(command)
    with psycopg.connect(settings.require_database_url(), autocommit=True) as ledger:
        ledger.execute(
            "insert into dead_letters"
            " (store_id, dead_letter_id, partition, lane_entry, payload, idempotency_key, code, reason)"
            " select store_id, %s, 0, %s, %s, 'key_1', 'internal_error', 'too odd' from stores where public_id = %s",
            (uuid4(), ticket.lane_entry, encode_command(command, settings.store), settings.store),
        )
        results = [client.result(ticket), client.wait(str(ticket)), *client.wait_many([str(ticket)])]
        ledger.execute("update dead_letters set replayed_at = now()")
        replayed = client.result(ticket)

    assert {result.status for result in results} == {"dead_lettered"}
    assert {result.error.code for result in results if result.error} == {"dead_lettered"}
    assert all(result.error and "too odd" in result.error.message for result in results)
    assert replayed.status == "queued"


@pytest.mark.conformance
def test_a_ticket_of_another_store_is_refused(make_client: MakeClient, settings: Settings) -> None:
    ticket = make_client(settings).enqueue(debit("key_1"))
    other = make_client(settings.model_copy(update={"store": "store_other"}))

    for ask in (other.result, other.wait, lambda text: other.wait_many([text])):
        with pytest.raises(InvalidCommand, match="another store"):
            ask(str(ticket))


@pytest.mark.conformance
@pytest.mark.parametrize("text", ["", "nonsense", "cmd_", "cmd_AAAA", "cmd_" + "A" * 4_000])
def test_what_is_no_ticket_is_refused(client: Client, text: str) -> None:
    with pytest.raises(InvalidCommand, match="ticket") as caught:
        client.result(text)

    assert caught.value.field == "ticket"


def test_the_listener_survives_a_redis_that_is_killed_and_restarted(
    make_client: MakeClient, settings: Settings, own_redis: Callable[[], EmbeddedRedis]
) -> None:
    server = own_redis()
    client = make_client(settings.model_copy(update={"redis_url": server.url}))
    announcer = Announcer(settings, server.url)
    first, second = client.enqueue(debit("key_1")), client.enqueue(debit("key_2"))
    announcer.announce(first)
    assert client.wait(first, timeout=DEADLINE_SECONDS).status == "applied"
    waiting = in_background(lambda: client.wait(second, timeout=DEADLINE_SECONDS))
    until(lambda: waits_blocked(announcer.connection) > 0)

    announcer.connection.close()
    server.kill()
    restarted = Announcer(settings, server.start())
    restarted.announce(second, balance=3)

    assert waiting.result(DEADLINE_SECONDS).balance == 3
    third = client.enqueue(debit("key_3"))
    lane: Any = restarted.connection.xrange(restarted.lane(third))
    assert [decode_command(fields[b"c"]).idempotency_key for _entry, fields in lane] == ["key_1", "key_2", "key_3"]
    restarted.connection.close()


def accepted(announcer: Announcer) -> Ticket:
    """Return a ticket of the one command that stands on a lane, as far as announcing it takes one."""
    for partition in range(announcer.partitions):
        lane: Any = announcer.connection.xrange(announcer.keys.lane(partition))
        for entry, fields in lane:
            command = decode_command(fields[b"c"])
            producer_id, _, number = fields[b"r"].decode().partition("/")
            names = (command.store_id, command.account_id, command.idempotency_key, entry.decode(), "")
            return Ticket(*names, False, producer_id, int(number))
    raise LookupError


def applied(ticket: Ticket, kind: Kind, **fields: Any) -> Announcement:
    values: dict[str, Any] = {
        **dict.fromkeys(("amount", "reference", "reversal_of", "rejection", "content")),
        "store_id": 1,
        "account_id": ticket.account_id,
        "seq": -1,
        "kind": kind,
        "side": 0,
        "balance_after": 0,
        "overdraft_limit": 0,
        "idempotency_key": ticket.idempotency_key,
        "created_at_us": 1,
    }
    return Announcement(ticket.number, JournalRow(**values | fields), replayed=bool(fields.pop("replayed", False)))


def decided_without_postgres(
    make_client: MakeClient, settings: Settings, announcer: Announcer, call: Callable[[Client], Any], kind: Kind
) -> Any:
    """Return the outcome of a call whose command is announced as applied while Postgres cannot be read."""
    # Redis has to know the number of partitions, which stands in Postgres
    make_client(settings).enqueue_many([])
    nowhere = settings.model_copy(update={"database_url": "postgresql://u@/db?host=/nowhere"})
    waiting = in_background(lambda: call(make_client(nowhere)))
    until(lambda: any(announcer.connection.exists(announcer.keys.lane(n)) for n in range(announcer.partitions)))
    ticket = accepted(announcer)
    announcer.send(ticket, applied(ticket, kind, balance_after=7))
    return waiting.result(DEADLINE_SECONDS)


def test_an_account_that_is_opened_is_returned_from_the_announcement_where_postgres_is_away(
    make_client: MakeClient, settings: Settings, announcer: Announcer
) -> None:
    account = decided_without_postgres(
        make_client,
        settings,
        announcer,
        lambda client: client.open_account(
            customer_id="c", name="n", initial_balance=7, overdraft_limit=3, metadata={"a": "b"}, timeout=2
        ),
        Kind.OPEN_ACCOUNT,
    )

    assert (account.customer_id, account.name, account.status, account.metadata) == ("c", "n", "active", {"a": "b"})
    assert (account.balance, account.available, account.overdraft_limit) == (7, 10, 3)


@pytest.mark.parametrize(("method", "kind"), [("freeze", Kind.FREEZE), ("close_account", Kind.CLOSE)])
def test_what_is_applied_and_cannot_be_read_back_is_not_said_to_be_unavailable(
    make_client: MakeClient, settings: Settings, announcer: Announcer, method: str, kind: Kind
) -> None:
    with pytest.raises(OutcomeUnknown, match="is applied") as caught:
        decided_without_postgres(
            make_client, settings, announcer, lambda client: getattr(client, method)(ACCOUNT, timeout=2), kind
        )

    assert isinstance(caught.value.ticket, Ticket)
    assert caught.value.ticket.account_id == ACCOUNT


def test_closing_removes_the_reply_stream(make_client: MakeClient, settings: Settings, announcer: Announcer) -> None:
    client = make_client(settings)
    ticket = client.enqueue(debit("key_1"))
    announcer.announce(ticket)
    client.wait(ticket, timeout=DEADLINE_SECONDS)

    client.close()

    assert not announcer.connection.exists(announcer.keys.replies(ticket.producer_id))
