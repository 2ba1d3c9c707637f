"""What is announced to a producer stays there until it reads it, whatever the sizes of the batches."""

from collections.abc import Iterator
from typing import cast
from unittest.mock import patch

import msgspec
import pytest
import redis

from creditlane import Debit
from creditlane.lanes.encoding import LaneCommand, PlainCommand
from creditlane.lanes.keys import ANNOUNCEMENT_FIELD, VERSION_FIELD, Keys
from creditlane.schemas.journal import ANNOUNCEMENT_VERSION, JournalRow, decode_announcements
from creditlane.worker.lanes.announcer import (
    MAX_MESSAGE_BYTES,
    MAX_RESULTS_PER_MESSAGE,
    MAX_UNREAD_BYTES,
    MAX_UNREAD_MESSAGES,
    Announcer,
)
from creditlane.worker.lanes.entries import Batch, LaneEntry
from creditlane.worker.ledger.state import Outcome
from tests import release_0_1_0

ACCOUNT = f"cca_{7:032x}"
PRODUCER = "p1"


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Redis]:
    """The connection of a worker's stage, as far as an announcer needs one."""
    with redis.Redis.from_url(redis_url, protocol=2) as opened:
        yield opened


@pytest.fixture
def keys(redis_prefix: str) -> Keys:
    return Keys(redis_prefix)


def batch_of(numbers: range, content: str | None = None) -> tuple[Batch, list[Outcome]]:
    entries, outcomes = [], []
    for number in numbers:
        key = f"key {number}"
        command = PlainCommand("debit", "store_default", ACCOUNT, key, 1, "r")
        entries.append(LaneEntry(3, b"%d-0" % number, b"", command, None, PRODUCER, number, keep=False))
        outcomes.append(Outcome(JournalRow(1, ACCOUNT, number, 3, -1, 1, 5, 0, key, "r", None, 0, None, content)))
    return Batch(entries, {3: 1}), outcomes


def numbers_announced(connection: redis.Redis, keys: Keys) -> list[int]:
    entries = connection.xrange(keys.replies(PRODUCER))
    return [
        announcement.number
        for _, fields in entries
        for announcement in decode_announcements(fields[ANNOUNCEMENT_FIELD])
    ]


def test_what_is_announced_and_what_is_kept_say_their_version(connection: redis.Redis, keys: Keys) -> None:
    """Given a producer of release 0.1.0, and one that polls, then both read what a worker of this one announces."""
    batch, outcomes = batch_of(range(1, 3))
    Announcer(connection, keys, result_ttl_seconds=60, keep_all_results=True).announce(batch, outcomes)
    for key, numbers in ((keys.replies(PRODUCER), [1, 2]), (keys.result(3, "store_default", "key 2"), [0])):
        ((_, fields),) = connection.xrange(key)
        assert fields[VERSION_FIELD] == b"%d" % ANNOUNCEMENT_VERSION
        read = release_0_1_0.announcements_of([part for pair in fields.items() for part in pair])
        assert [item.number for item in read] == numbers
        assert read[-1].row is not None
        assert read[-1].row.idempotency_key == "key 2"


def test_a_dry_run_takes_little_room_and_not_for_long(connection: redis.Redis, keys: Keys) -> None:
    """Given results of dry runs, which stand nowhere else, then each is kept for a minute, whatever the setting says; a
    long one only where the command asked for it."""
    command = Debit(account_id=ACCOUNT, store_id="store_default", idempotency_key="k", amount=1, reference="r")
    dry_run = cast("LaneCommand", command.model_copy(update={"dry_run": True}))
    entries, outcomes = [], []
    for number, (keep, length) in enumerate([(False, 1), (False, 5_000), (True, 5_000)], 1):
        entries.append(LaneEntry(3, b"%d-0" % number, b"", dry_run, None, PRODUCER, number, keep=keep))
        row = JournalRow(1, ACCOUNT, number, 3, -1, 1, 5, 0, "k", "r", None, 0, None, "m" * length)
        outcomes.append(Outcome(row, dry_run=True))
    Announcer(connection, keys, result_ttl_seconds=3_600).announce(Batch(entries, {3: 1}), outcomes)

    kept = [keys.dry_run_result(3, "store_default", f"{number}-0") for number in (1, 2, 3)]
    assert [connection.exists(key) for key in kept] == [1, 0, 1]
    assert all(0 < connection.ttl(kept[number]) <= 60 for number in (0, 2))


def test_a_large_batch_pushes_out_none_of_the_small_ones_before_it(connection: redis.Redis, keys: Keys) -> None:
    announcer = Announcer(connection, keys, result_ttl_seconds=60)
    for number in range(1, 601):
        announcer.announce(*batch_of(range(number, number + 1)))
    announcer.announce(*batch_of(range(601, 3_601)))
    assert numbers_announced(connection, keys) == list(range(1, 3_601))


def test_a_message_holds_no_more_results_than_its_bound(connection: redis.Redis, keys: Keys) -> None:
    Announcer(connection, keys, result_ttl_seconds=60).announce(*batch_of(range(1, 2 * MAX_RESULTS_PER_MESSAGE + 2)))
    entries = connection.xrange(keys.replies(PRODUCER))
    assert [len(decode_announcements(fields[ANNOUNCEMENT_FIELD])) for _, fields in entries] == [
        MAX_RESULTS_PER_MESSAGE,
        MAX_RESULTS_PER_MESSAGE,
        1,
    ]


def test_a_message_of_long_results_is_no_longer_than_its_bound(connection: redis.Redis, keys: Keys) -> None:
    Announcer(connection, keys, result_ttl_seconds=60).announce(*batch_of(range(1, 21), content="m" * 20_000))
    entries = connection.xrange(keys.replies(PRODUCER))
    assert all(len(fields[ANNOUNCEMENT_FIELD]) <= MAX_MESSAGE_BYTES for _, fields in entries)
    assert numbers_announced(connection, keys) == list(range(1, 21))


def test_a_producer_that_reads_nothing_costs_redis_no_more_for_long_results(
    connection: redis.Redis, keys: Keys
) -> None:
    """Given long results, then as many are kept unread as have the bytes that are allowed; the latest of them."""
    length = MAX_UNREAD_BYTES // 50
    announcer = Announcer(connection, keys, result_ttl_seconds=60)
    for number in range(1, 61):
        announcer.announce(*batch_of(range(number, number + 1), content="m" * length))
    assert connection.xlen(keys.replies(PRODUCER)) <= 50 < MAX_UNREAD_MESSAGES
    assert numbers_announced(connection, keys)[-1] == 60


def test_who_delivers_is_woken_once_there_are_outbox_rows(connection: redis.Redis, keys: Keys) -> None:
    announcer = Announcer(connection, keys, result_ttl_seconds=60)
    announcer.announce(*batch_of(range(1, 2)))
    assert connection.exists(keys.wake_deliveries) == 0
    for number in range(2, 5):
        announcer.announce(*batch_of(range(number, number + 1)), has_outbox_rows=True)
    # However many batches had outbox rows while nobody was there, one element says so.
    assert connection.lrange(keys.wake_deliveries, 0, -1) == [b"1"]


def test_a_producer_whose_key_is_something_else_holds_up_nobody(connection: redis.Redis, keys: Keys) -> None:
    connection.set(keys.replies("spoilt"), "not a stream")
    batch, outcomes = batch_of(range(1, 3))
    spoilt = msgspec.structs.replace(batch.entries[0], producer_id="spoilt")

    Announcer(connection, keys, result_ttl_seconds=60).announce(Batch([spoilt, batch.entries[1]], {3: 1}), outcomes)

    assert numbers_announced(connection, keys) == [2]


def test_what_redis_refuses_otherwise_is_announced_again(connection: redis.Redis, keys: Keys) -> None:
    announcer = Announcer(connection, keys, result_ttl_seconds=60)
    with (
        patch.object(
            redis.client.Pipeline, "execute", return_value=[redis.ResponseError("MISCONF Redis is configured to")]
        ),
        pytest.raises(redis.ResponseError, match="MISCONF"),
    ):
        announcer.announce(*batch_of(range(1, 2)))


def test_what_redis_has_no_memory_for_is_reported(connection: redis.Redis, keys: Keys) -> None:
    """Given a Redis that is full, then the caller learns of it and frees memory, rather than to try for ever."""
    refusal = redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
    announcer = Announcer(connection, keys, result_ttl_seconds=60)
    with patch.object(redis.client.Pipeline, "execute", return_value=[refusal]):
        assert not announcer.announce(*batch_of(range(1, 2)))
    assert announcer.announce(*batch_of(range(1, 2)))


def test_unread_results_make_room_and_what_comes_later_is_found_behind_them(
    connection: redis.Redis, keys: Keys
) -> None:
    announcer = Announcer(connection, keys, result_ttl_seconds=60)
    batch, outcomes = batch_of(range(1, 120))
    announcer.announce(batch, outcomes)
    read = connection.xrange(keys.replies("p1"))[-1][0]

    announcer.drop_unread(batch)

    assert connection.xlen(keys.replies("p1")) == 0
    announcer.announce(batch, outcomes)
    assert connection.xrange(keys.replies("p1"), min=b"(" + read)
