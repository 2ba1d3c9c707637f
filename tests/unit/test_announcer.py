"""What a producer is told stays there until it reads it, whatever the sizes of the batches."""

from unittest.mock import patch

import fakeredis
import msgspec
import pytest
import redis

from creditlane.schemas.encoding import Movement
from creditlane.schemas.journal import JournalRow, decode_announcements
from creditlane.schemas.keys import ANNOUNCEMENT_FIELD, Keys
from creditlane.worker.announcer import (
    MAX_MESSAGE_BYTES,
    MAX_RESULTS_PER_MESSAGE,
    MAX_UNREAD_BYTES,
    MAX_UNREAD_MESSAGES,
    Announcer,
)
from creditlane.worker.book import Verdict
from creditlane.worker.requests import Batch, Request

ACCOUNT = f"cca_{7:032x}"
PRODUCER = "p1"
KEYS = Keys("test")


def batch_of(numbers: range, content: str | None = None) -> tuple[Batch, list[Verdict]]:
    requests, verdicts = [], []
    for number in numbers:
        key = f"key {number}"
        command = Movement("debit", "store_default", ACCOUNT, key, 1, "r")
        requests.append(Request(3, b"%d-0" % number, b"", command, None, PRODUCER, number, keep=False))
        verdicts.append(Verdict(JournalRow(1, ACCOUNT, number, 3, -1, 1, 5, 0, key, "r", None, 0, None, content)))
    return Batch(requests, {3: 1}), verdicts


def numbers_announced(client: fakeredis.FakeRedis) -> list[int]:
    entries = client.xrange(KEYS.replies(PRODUCER))
    return [news.number for _, fields in entries for news in decode_announcements(fields[ANNOUNCEMENT_FIELD])]


def test_a_large_batch_pushes_out_none_of_the_small_ones_before_it() -> None:
    with fakeredis.FakeRedis() as client:
        announcer = Announcer(client, KEYS, result_ttl_seconds=60)
        for number in range(1, 601):
            announcer.announce(*batch_of(range(number, number + 1)))
        announcer.announce(*batch_of(range(601, 3_601)))
        assert numbers_announced(client) == list(range(1, 3_601))


def test_a_message_holds_no_more_results_than_its_bound() -> None:
    with fakeredis.FakeRedis() as client:
        Announcer(client, KEYS, result_ttl_seconds=60).announce(*batch_of(range(1, 2 * MAX_RESULTS_PER_MESSAGE + 2)))
        entries = client.xrange(KEYS.replies(PRODUCER))
        assert [len(decode_announcements(fields[ANNOUNCEMENT_FIELD])) for _, fields in entries] == [
            MAX_RESULTS_PER_MESSAGE,
            MAX_RESULTS_PER_MESSAGE,
            1,
        ]


def test_a_message_of_long_results_is_no_longer_than_its_bound() -> None:
    with fakeredis.FakeRedis() as client:
        Announcer(client, KEYS, result_ttl_seconds=60).announce(*batch_of(range(1, 21), content="m" * 20_000))
        entries = client.xrange(KEYS.replies(PRODUCER))
        assert all(len(fields[ANNOUNCEMENT_FIELD]) <= MAX_MESSAGE_BYTES for _, fields in entries)
        assert numbers_announced(client) == list(range(1, 21))


def test_a_producer_that_reads_nothing_costs_redis_no_more_for_long_results() -> None:
    """Given long results, then as many are kept unread as have the bytes that are allowed; the latest of them."""
    length = MAX_UNREAD_BYTES // 50
    with fakeredis.FakeRedis() as client:
        announcer = Announcer(client, KEYS, result_ttl_seconds=60)
        for number in range(1, 61):
            announcer.announce(*batch_of(range(number, number + 1), content="m" * length))
        assert client.xlen(KEYS.replies(PRODUCER)) <= 50 < MAX_UNREAD_MESSAGES
        assert numbers_announced(client)[-1] == 60


def test_who_delivers_news_is_woken_once_there_are_some() -> None:
    with fakeredis.FakeRedis() as client:
        announcer = Announcer(client, KEYS, result_ttl_seconds=60)
        announcer.announce(*batch_of(range(1, 2)))
        assert client.exists(KEYS.wake_deliveries) == 0
        for number in range(2, 5):
            announcer.announce(*batch_of(range(number, number + 1)), has_news=True)
        # However many batches had news while nobody was there, one element tells of them.
        assert client.lrange(KEYS.wake_deliveries, 0, -1) == [b"1"]


def test_a_producer_whose_key_is_something_else_holds_up_nobody() -> None:
    with fakeredis.FakeRedis() as client:
        client.set(KEYS.replies("spoilt"), "not a stream")
        batch, verdicts = batch_of(range(1, 3))
        spoilt = msgspec.structs.replace(batch.requests[0], producer_id="spoilt")

        Announcer(client, KEYS, result_ttl_seconds=60).announce(Batch([spoilt, batch.requests[1]], {3: 1}), verdicts)

        assert numbers_announced(client) == [2]


def test_what_redis_refuses_otherwise_is_announced_again() -> None:
    with fakeredis.FakeRedis() as client:
        announcer = Announcer(client, KEYS, result_ttl_seconds=60)
        with (
            patch.object(
                redis.client.Pipeline, "execute", return_value=[redis.ResponseError("MISCONF Redis is configured to")]
            ),
            pytest.raises(redis.ResponseError, match="MISCONF"),
        ):
            announcer.announce(*batch_of(range(1, 2)))


def test_what_redis_has_no_memory_for_is_told() -> None:
    """Given a Redis that is full, then the caller learns of it and frees memory, rather than to try for ever."""
    refusal = redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
    with fakeredis.FakeRedis() as client:
        announcer = Announcer(client, KEYS, result_ttl_seconds=60)
        with patch.object(redis.client.Pipeline, "execute", return_value=[refusal]):
            assert not announcer.announce(*batch_of(range(1, 2)))
        assert announcer.announce(*batch_of(range(1, 2)))


def test_unread_results_make_room_and_what_comes_later_is_found_behind_them() -> None:
    with fakeredis.FakeRedis() as client:
        announcer = Announcer(client, KEYS, result_ttl_seconds=60)
        batch, verdicts = batch_of(range(1, 120))
        announcer.announce(batch, verdicts)
        read = client.xrange(KEYS.replies("p1"))[-1][0]

        announcer.drop_unread(batch)

        assert client.xlen(KEYS.replies("p1")) == 0
        announcer.announce(batch, verdicts)
        assert client.xrange(KEYS.replies("p1"), min=b"(" + read)
