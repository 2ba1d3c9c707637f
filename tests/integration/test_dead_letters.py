"""What cannot be decided goes to the dead letters with its reason, its producer gets it, and the lane goes on."""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
import redis

from creditlane.lanes.encoding import MAX_COMMAND_BYTES, encode_command
from creditlane.lanes.keys import COMMAND_FIELD, REPLY_FIELD, Keys
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Command, Credit, OpenAccount
from creditlane.schemas.settings import Settings

from ..faults.history import History
from ..faults.producing import Producer
from ..faults.worker_processes import Failpoint, StartWorker, start_worker
from .outbox_reading import read_outbox

__all__ = ["start_worker"]

POISON = """
create function refuse_poison() returns trigger language plpgsql as $$
begin
    if new.reference = 'poison' then raise exception 'poison is refused'; end if;
    return new;
end $$;
create trigger poison before insert on journal for each row execute function refuse_poison()
"""


class DeadLetter(NamedTuple):
    store_id: int
    partition: int
    lane_entry: str
    payload: bytes
    idempotency_key: str | None
    code: str
    reason: str


@pytest.fixture
def producer(settings: Settings) -> Producer:
    """A producer with one account that is not open yet, so that everything it sends is on one lane."""
    return Producer(settings, accounts=1)


@pytest.fixture
def client(settings: Settings) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        yield client


@pytest.fixture
def poison(settings: Settings) -> None:
    """A database that refuses rows of the reference "poison"."""
    with psycopg.connect(settings.require_database_url()) as connection:
        connection.execute(POISON)


def dead_letters(settings: Settings) -> list[DeadLetter]:
    statement = """
        select store_id, partition, lane_entry, payload, idempotency_key, code, reason from dead_letters
        order by partition, length(lane_entry), lane_entry
    """
    with psycopg.connect(settings.require_database_url()) as connection:
        return [DeadLetter(*record) for record in connection.execute(statement)]


def credit(producer: Producer, key: str, reference: str = "fine") -> Credit:
    return Credit(account_id=producer.accounts[0], amount=1, reference=reference, idempotency_key=key)


def refusals(settings: Settings, producer_id: str, number: int) -> list[tuple[str, str]]:
    return [
        (announcement.refusal.code, announcement.refusal.message)
        for announcement in History(settings).announcements(producer_id)[number]
        if announcement.refusal is not None
    ]


@pytest.mark.usefixtures("poison")
def test_a_command_that_the_database_refuses_is_dead_lettered_and_its_neighbours_apply_in_order(
    settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    # Given one bad command among many on one account, all of them in one batch
    producer.open_accounts()
    producer.write(40)
    producer.send([credit(producer, "the bad one", "poison")])
    producer.write(40)
    # When they are applied
    worker = start_worker(settings)
    # Then all the others have their effect and result as if it had not been there
    bad = 42
    History(settings).check(producer, dead=[bad])
    assert not worker.has_ended
    # And the bad one has its reason, here and for its producer
    [letter] = dead_letters(settings)
    assert letter.idempotency_key == "the bad one"
    assert letter.payload == encode_command(producer.accepted[bad - 1], settings.store)
    assert (letter.store_id, letter.code, letter.reason) == (1, "dead_lettered", "P0001: poison is refused")
    assert refusals(settings, producer.id, bad) == [("dead_lettered", "P0001: poison is refused")]


@pytest.mark.usefixtures("poison")
def test_several_bad_commands_in_one_batch_are_found_each_by_itself(
    settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    producer.open_accounts()
    bad_ones = []
    for number in range(4):
        producer.write(7)
        producer.send([credit(producer, f"bad {number}", "poison")])
        bad_ones.append(len(producer.accepted))
    producer.write(7)
    start_worker(settings)
    History(settings).check(producer, dead=bad_ones)
    assert [letter.idempotency_key for letter in dead_letters(settings)] == [f"bad {number}" for number in range(4)]


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("step", ["commit", "announce"])
def test_a_bad_command_that_is_delivered_again_is_one_dead_letter(
    step: str, settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"lease_seconds": 0.5})
    producer.open_accounts()
    producer.send([credit(producer, "the bad one", "poison")])
    producer.write(10)
    # When a worker dies after it has dead-lettered the bad one, and the next finds it on the lane again
    first = start_worker(settings, Failpoint("kill", step))
    assert first.wait_for_exit() == -signal.SIGKILL
    assert len(dead_letters(settings)) == 1
    start_worker(settings)
    # Then
    History(settings).check(producer, dead=[2])
    assert len(dead_letters(settings)) == 1
    assert set(refusals(settings, producer.id, 2)) == {("dead_lettered", "P0001: poison is refused")}


def version_2(command: Command) -> bytes:
    return encode_command(command, "store_default").replace(b'"v":1', b'"v":2')


#: What somebody put on a lane by hand: the fields of the entry, what it is dead-lettered as, and a word of the reason.
BY_HAND: dict[str, tuple[dict[bytes, bytes], str, str]] = {
    "bytes that are no text": ({COMMAND_FIELD: b"\xff\xfe\x00"}, "undecodable", ""),
    "no JSON": ({COMMAND_FIELD: b"hello"}, "undecodable", ""),
    "nothing": ({COMMAND_FIELD: b""}, "undecodable", ""),
    "JSON of something else": ({COMMAND_FIELD: b"[1, 2, 3]"}, "undecodable", ""),
    "a huge command": ({COMMAND_FIELD: b" " * (MAX_COMMAND_BYTES + 1)}, "undecodable", str(MAX_COMMAND_BYTES)),
    "an unknown kind": ({COMMAND_FIELD: b'{"v":1,"kind":"mint"}'}, "undecodable", "kind"),
    "no command at all": ({b"x": b"y"}, "undecodable", "no field c"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_no_command_is_dead_lettered_as_it_stood(
    name: str, settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    fields, code, reason = BY_HAND[name]
    put(settings, producer, client, fields, start_worker)
    [letter] = dead_letters(settings)
    assert (letter.store_id, letter.idempotency_key, letter.code) == (0, None, code)
    assert letter.payload == fields.get(COMMAND_FIELD, b"x y r byhand/1")
    assert letter.reason
    assert reason in letter.reason
    assert refusals(settings, "byhand", 1) == [("dead_lettered", letter.reason)]


def test_a_command_of_an_unknown_version_is_dead_lettered_and_names_the_version(
    settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    payload = version_2(credit(producer, "from the future"))
    put(settings, producer, client, {COMMAND_FIELD: payload}, start_worker)
    [letter] = dead_letters(settings)
    assert (letter.code, letter.payload) == ("undecodable", payload)
    assert "v: " in letter.reason


def test_a_command_of_an_unknown_store_is_dead_lettered_and_names_the_store(
    settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    payload = encode_command(credit(producer, "a stranger"), "store_nobodys")
    put(settings, producer, client, {COMMAND_FIELD: payload}, start_worker)
    [letter] = dead_letters(settings)
    assert (letter.code, letter.payload, letter.idempotency_key) == ("unknown_store", payload, "a stranger")
    assert "'store_nobodys'" in letter.reason


def test_an_unreadable_address_for_the_answer_is_nobodys(
    settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    """The command itself is good: it applies, and no key of that name is made."""
    command = credit(producer, "whom to answer")
    fields = {COMMAND_FIELD: encode_command(command, settings.store), REPLY_FIELD: b"../evil:{p1}/1"}
    producer.open_accounts()
    client.xadd(lane_of(settings, producer), fields)  # type: ignore[arg-type]
    start_worker(settings)
    History(settings).wait_until_settled()
    effects = History(settings).effects()[producer.accounts[0]]
    assert [effect.idempotency_key for effect in effects] == [producer.accepted[0].idempotency_key, "whom to answer"]
    assert list(client.scan_iter(f"{settings.redis_prefix}*evil*")) == []


def test_a_lane_of_nothing_but_rubbish_is_emptied(
    settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    for number in range(50):
        client.xadd(lane_of(settings, producer), {COMMAND_FIELD: b"rubbish %d" % number})
    worker = start_worker(settings)
    History(settings).wait_until_settled()
    assert [letter.payload for letter in dead_letters(settings)] == [b"rubbish %d" % number for number in range(50)]
    assert not worker.has_ended


def test_an_account_can_be_opened_after_a_bad_command_of_its_own(
    settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    client.xadd(lane_of(settings, producer), {COMMAND_FIELD: b"\xff"})
    assert isinstance(opening(producer), OpenAccount)
    start_worker(settings)
    History(settings).check(producer)
    assert len(dead_letters(settings)) == 1


def opening(producer: Producer) -> Command:
    producer.open_accounts()
    return producer.accepted[0]


def lane_of(settings: Settings, producer: Producer) -> str:
    return Keys(settings.redis_prefix).lane(partition_of(producer.accounts[0], producer.partitions))


def put(
    settings: Settings,
    producer: Producer,
    client: "redis.Redis",
    fields: dict[bytes, bytes],
    start_worker: StartWorker,
) -> None:
    """Put the entry on a lane among good commands, let a worker loose on it, and check that the others are fine."""
    producer.open_accounts()
    producer.write(10)
    entry: dict[Any, Any] = {**fields, REPLY_FIELD: b"byhand/1"}
    client.xadd(lane_of(settings, producer), entry)
    producer.write(10)
    worker = start_worker(settings)
    History(settings).check(producer)
    assert not worker.has_ended


@pytest.mark.usefixtures("poison")
def test_a_dead_letter_is_called_back_and_what_is_of_no_store_is_not(
    settings: Settings, producer: Producer, client: "redis.Redis", start_worker: StartWorker
) -> None:
    url = "https://example.com/"
    bad = credit(producer, "the bad one", "poison").model_copy(update={"callback_url": url})
    producer.open_accounts()
    producer.send([bad])
    stranger = {COMMAND_FIELD: encode_command(bad, "store_nobodys")}
    client.xadd(lane_of(settings, producer), stranger)  # type: ignore[arg-type]
    start_worker(settings)
    History(settings).check(producer, dead=[2])
    # Then the outbox has its reason, and whoever delivers is woken
    [row] = read_outbox(settings.require_database_url())
    assert (row.store, row.positions) == (settings.store, [])
    assert row.callbacks is not None
    [callback] = row.callbacks
    refusal = callback.pop("refusal")
    unentered = {"account_id": bad.account_id, "seq": None, "sequence": None}
    assert callback == {"url": url, "idempotency_key": "the bad one", **unentered}
    assert (refusal["code"], refusal["message"]) == ("dead_lettered", "P0001: poison is refused")
    assert len(dead_letters(settings)) == 2
    assert client.lrange(Keys(settings.redis_prefix).wake_deliveries, 0, -1) == [b"1"]
