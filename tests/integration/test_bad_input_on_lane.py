"""Whatever somebody puts on a lane by hand: it ends in the dead letters with its reason, and the lane goes on."""

import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis

from creditlane.lanes.encoding import MAX_COMMAND_BYTES, encode_command
from creditlane.lanes.keys import ANNOUNCEMENT_FIELD, Keys
from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import Credit
from creditlane.schemas.journal import Announcement, decode_announcements
from creditlane.schemas.settings import Settings
from creditlane.worker.lanes.reader import MAX_ANSWER_BYTES
from creditlane.worker.process import Worker

from .direct_store import DirectStore, add_store
from .test_store_memory import opening

ANN = "cca_" + "a" * 32
PARTITION = partition_of(ANN, 8)
#: An account on another lane.
ELSEWHERE = next(name for name in (f"cca_{number:032x}" for number in range(8)) if partition_of(name, 8) != PARTITION)
#: How long what is awaited may take, in milliseconds.
DEADLINE_MS = 20_000


class Lane:
    """One lane with entries put on it by hand, and a worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = Keys(settings.redis_prefix)
        self._redis = redis.Redis.from_url(settings.require_redis_url())
        self._postgres = psycopg.connect(settings.require_database_url(), autocommit=True)
        self.producer_id = uuid.uuid4().hex
        self._sent = 0

    def put(self, fields: dict[Any, Any], *, announced: bool = True) -> int:
        """Put an entry on the lane, and return its number if its result is to be announced."""
        if announced:
            self._sent += 1
            fields = {**fields, b"r": f"{self.producer_id}/{self._sent}"}
        self._redis.xadd(self._keys.lane(PARTITION), fields)
        return self._sent

    def put_on_another(self, fields: dict[Any, Any]) -> None:
        """Put an entry on the lane beside it."""
        self._redis.xadd(self._keys.lane((PARTITION + 1) % 8), fields)

    def put_credit(self, key: str, **more: Any) -> int:
        command = Credit(account_id=ANN, idempotency_key=key, amount=1, reference="good")
        return self.put({b"c": encode_command(command, "store_default"), **more})

    def hear(self) -> dict[int, Announcement]:
        """Let a worker do all that is there, and return what it announced, by number."""
        worker = Worker(self._settings)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            return self._await_announcements()
        finally:
            worker.stop()
            thread.join()

    def letters(self) -> list[tuple[Any, ...]]:
        return self._postgres.execute(
            "select code, reason, payload, partition, store_id from dead_letters order by lane_entry"
        ).fetchall()

    def applied(self) -> list[str]:
        """Return the keys of the good credits, in the order in which they were applied."""
        rows = self._postgres.execute("select idempotency_key from journal where kind = 2 order by seq").fetchall()
        return [row[0] for row in rows]

    def left(self) -> int:
        return int(self._redis.xlen(self._keys.lane(PARTITION)))

    def reply_streams(self) -> list[str]:
        return [key.decode() for key in self._redis.scan_iter(match=f"{self._settings.redis_prefix}:replies:*")]

    def close(self) -> None:
        self._redis.close()
        self._postgres.close()

    def _await_announcements(self) -> dict[int, Announcement]:
        announced: dict[int, Announcement] = {}
        last = b"0"
        while len(announced) < self._sent:
            read: Any = self._redis.xread({self._keys.replies(self.producer_id): last}, block=DEADLINE_MS)
            assert read, f"only {sorted(announced)} of {self._sent} were announced"
            for _, fields in read[0][1]:
                announced.update((item.number, item) for item in decode_announcements(fields[ANNOUNCEMENT_FIELD]))
            last = read[0][1][-1][0]
        return announced


@pytest.fixture
def lane(settings: Settings) -> Iterator[Lane]:
    with DirectStore(settings.require_database_url()) as store:
        store.apply(opening())
    lane = Lane(settings)
    yield lane
    lane.close()


GOOD = {
    "v": 1,
    "kind": "credit",
    "store_id": "store_default",
    "account_id": ANN,
    "idempotency_key": "bad",
    "amount": "5",
    "reference": "r",
}


def changed(**fields: Any) -> bytes:
    """Return the good command with these fields instead, without those that are None."""
    return json.dumps({name: value for name, value in {**GOOD, **fields}.items() if value is not None}).encode()


BAD: dict[str, tuple[dict[bytes, bytes], str, str]] = {
    "no JSON": ({b"c": b"\xff\xfe\x00junk"}, "undecodable", "Invalid JSON"),
    "a pickle": ({b"c": b"\x80\x04\x95\x0c"}, "undecodable", "Invalid JSON"),
    "empty": ({b"c": b""}, "undecodable", "Invalid JSON"),
    "half a command": ({b"c": changed()[:40]}, "undecodable", "Invalid JSON"),
    "lone surrogate": ({b"c": changed(reference="\ud800")}, "undecodable", "Invalid JSON"),
    "deeply nested": ({b"c": b"[" * 10_000}, "undecodable", "Invalid JSON"),
    "unknown version": ({b"c": changed(v=2)}, "undecodable", "v: Input should be 1"),
    "no version": ({b"c": changed(v=None)}, "undecodable", "v, store_id and account_id must be given"),
    "unknown kind": ({b"c": changed(kind="transfer")}, "undecodable", "expected tags"),
    "kind with NUL": ({b"c": changed(kind="cre\0dit")}, "undecodable", "expected tags"),
    "unknown field": ({b"c": changed(note="x")}, "undecodable", "note: Extra inputs are not permitted"),
    "field name with NUL": ({b"c": changed(**{"no\0te": "x"})}, "undecodable", "Extra inputs are not permitted"),
    "NUL in a key": ({b"c": changed(idempotency_key="a\0b")}, "undecodable", "idempotency_key: must not contain NUL"),
    "no store": ({b"c": changed(store_id=None)}, "undecodable", "store_id"),
    "no account": ({b"c": changed(account_id=None)}, "undecodable", "account_id: Field required"),
    "amount of nothing": ({b"c": changed(amount="0")}, "undecodable", "amount: must be a whole number"),
    "amount too long": ({b"c": changed(amount="9" * 1_001)}, "undecodable", "amount: must be a whole number"),
    "floating amount": ({b"c": changed(amount=1.5)}, "undecodable", "amount: must be a whole number"),
    "another's key": ({b"c": changed(idempotency_key="reversal:x")}, "undecodable", "must not start with 'reversal:'"),
    "no field c": ({b"d": changed(), b"e": b"x"}, "undecodable", "the entry has no field c"),
    "too long": ({b"c": changed(reference="x" * MAX_COMMAND_BYTES)}, "undecodable", "more than the 262144"),
    "far too long": ({b"c": b"x" * 5_000_000}, "undecodable", "5000000 bytes are more than the 262144"),
    "unknown store": ({b"c": changed(store_id="store_nobody")}, "unknown_store", "there is no store 'store_nobody'"),
    "another's lane": ({b"c": changed(account_id=ELSEWHERE)}, "wrong_lane", "a lane that is not its account's"),
}


@pytest.mark.parametrize("name", ["no JSON", "no field c", "kind with NUL", "unknown store", "another's lane"])
def test_what_is_no_command_is_kept_with_its_reason_and_the_lane_goes_on(lane: Lane, name: str) -> None:
    """Given a bad entry between good ones, when a worker takes the lane, then the bad one is a dead letter with every
    byte and the reason, its producer gets it, and its neighbours apply as if it had not been there."""
    fields, code, reason = BAD[name]
    lane.put_credit("before")
    bad = lane.put(fields)
    lane.put_credit("after")

    announced = lane.hear()

    letter_code, letter_reason, payload, partition, _ = lane.letters()[0]
    assert len(lane.letters()) == 1
    assert (letter_code, partition) == (code, PARTITION)
    assert reason in letter_reason
    assert payload == fields[b"c"] if b"c" in fields else changed() in payload
    refusal = announced[bad].refusal
    assert refusal is not None
    assert (refusal.code, refusal.message) == ("dead_lettered", letter_reason)
    assert lane.applied() == ["before", "after"]
    assert [announced[number].replayed for number in (1, 3)] == [False, False]
    assert lane.left() == 0


def test_everything_that_is_no_command_at_once(lane: Lane) -> None:
    """Given every kind of bad entry on one lane, each between good ones, then every one is kept, and every good one
    applies, in order."""
    for number, (fields, _, _) in enumerate(BAD.values()):
        lane.put_credit(f"good {number}")
        lane.put(fields)

    announced = lane.hear()

    for name, letter, (fields, code, reason) in zip(BAD, lane.letters(), BAD.values(), strict=True):
        assert (letter[0], letter[3]) == (code, PARTITION), name
        assert reason in letter[1], name
        assert letter[2] == fields[b"c"] if b"c" in fields else changed() in letter[2], name
    assert lane.applied() == [f"good {number}" for number in range(len(BAD))]
    assert [item.replayed for item in announced.values()] == [False] * 2 * len(BAD)
    assert lane.left() == 0


MALFORMED_REPLIES = [b"", b"nobody", b"a:b/1", b"\xff/1", b"x" * 100 + b"/1", b"abc/" + b"9" * 30, b"/1"]


def test_a_malformed_reply_field_keeps_nothing_from_being_applied(lane: Lane) -> None:
    """Given good commands whose reply fields are malformed, then they are applied, nothing is announced, and no key of
    Redis is made from them."""
    for number, reply in enumerate(MALFORMED_REPLIES):
        command = Credit(account_id=ANN, idempotency_key=f"unheard {number}", amount=1, reference="good")
        lane.put({b"c": encode_command(command, "store_default"), b"r": reply}, announced=False)
    lane.put_credit("heard")

    lane.hear()

    assert lane.applied() == [*(f"unheard {number}" for number in range(len(MALFORMED_REPLIES))), "heard"]
    assert [name for name in lane.reply_streams() if lane.producer_id not in name] == []


def test_fields_that_nobody_knows_change_nothing(lane: Lane) -> None:
    """Given a good command with more fields on its entry, as a later release may add, then it is applied."""
    lane.put_credit("good", future=b"\xff", k2=b"1")

    lane.hear()

    assert lane.applied() == ["good"]
    assert lane.letters() == []


def test_a_store_that_is_made_later_is_found(lane: Lane, database_url: str) -> None:
    """Given a command of a store that was unknown a moment ago, when the store has been made, then it is applied."""
    lane.put({b"c": changed(store_id="store_late")})
    assert lane.hear()[1].refusal is not None
    add_store(database_url, "store_late")
    lane.put({b"c": changed(store_id="store_late", idempotency_key="now")})

    row = lane.hear()[2].row

    assert row is not None
    assert row.rejection == "account_not_found"


def test_a_command_the_size_of_its_longest_fields_is_accepted(lane: Lane) -> None:
    command = Credit(account_id=ANN, idempotency_key="\x01" * 255, amount=10**1_000 - 1, reference="\U0001f600" * 255)
    encoded = json.dumps({**json.loads(encode_command(command, "store_default"))}).encode()
    lane.put({b"c": encoded})

    row = lane.hear()[1].row

    assert row is not None
    assert (row.amount, row.reference) == (command.amount, command.reference)


def test_an_entry_that_is_too_long_to_be_read_stops_no_other_lane(lane: Lane) -> None:
    """Given an entry that is longer than any answer that a worker takes, then other lanes go on."""
    lane.put_on_another({b"c": b"x" * (MAX_ANSWER_BYTES + 1)})
    lane.put_credit("one")
    lane.put_credit("two")

    lane.hear()

    assert lane.applied() == ["one", "two"]
    assert lane.letters() == []
