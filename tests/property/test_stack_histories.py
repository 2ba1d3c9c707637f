"""Histories over real lanes, through a real worker, into a real Postgres: the answers are still the naive ledger's."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from creditlane.lanes.encoding import encode_command
from creditlane.lanes.keys import ANNOUNCEMENT_FIELD, COMMAND_FIELD, REPLY_FIELD, Keys
from creditlane.lanes.routing import partition_of
from creditlane.schemas.journal import Announcement, decode_announcements
from creditlane.schemas.settings import Settings
from creditlane.worker.process import Worker

from .histories import ACCOUNTS, LONG, Sent, answer_of, cut, histories
from .naive_ledger import NaiveLedger

EXAMPLES = 600 if LONG else 60
pytestmark = pytest.mark.timeout(3_600 if LONG else 300)
PARTITIONS = 8
#: How long all answers of one history may take, in milliseconds.
DEADLINE_MS = 20_000
#: The accounts of each lane. Names and keys are a lane's own here: between two lanes there is no order to rely on.
LANES = {"one": ACCOUNTS[:2], "two": ACCOUNTS[2:]}


class Stack:
    """Lanes with a worker on them, and a producer that hears every answer."""

    def __init__(self, configuration: Settings) -> None:
        self._redis = redis.Redis.from_url(configuration.require_redis_url())
        self._postgres = psycopg.connect(configuration.require_database_url(), autocommit=True)
        self._keys = Keys(configuration.redis_prefix)
        self._worker = Worker(configuration)
        self._thread = threading.Thread(target=self._worker.run)
        self._thread.start()
        self.stores: list[str] = []

    def begin(self) -> None:
        """Make two new stores: to the ledger, nothing in them has ever happened."""
        self.stores = [f"store_{uuid.uuid4().hex}" for _ in range(2)]
        for name in self.stores:
            self._postgres.execute("insert into stores (public_id, name) values (%s, '')", [name])

    def send(self, history: list[Sent], parts: list[list[Sent]]) -> list[Announcement]:
        """Put the history on its lanes in these parts, one after the other, and return what is announced for each."""
        producer_id = uuid.uuid4().hex
        number = 0
        for part in parts:
            pipeline = self._redis.pipeline(transaction=False)
            for store, command in part:
                number += 1
                fields: dict[Any, Any] = {
                    COMMAND_FIELD: encode_command(command, self.stores[store]),
                    REPLY_FIELD: f"{producer_id}/{number}",
                }
                pipeline.xadd(self._keys.lane(partition_of(str(command.account_id), PARTITIONS)), fields)
            pipeline.execute()
        return self._hear(producer_id, len(history))

    def entries(self, store: str, account_id: str) -> list[tuple[Any, ...]]:
        """Return the entries of an account, as (what it moved, balance after it)."""
        return self._postgres.execute(
            "select side * amount, balance_after from journal join stores using (store_id) "
            "where public_id = %s and account_id = %s and seq > 0 order by seq",
            [store, account_id[4:]],
        ).fetchall()

    def stop(self) -> None:
        self._worker.stop()
        self._thread.join()
        self._redis.close()
        self._postgres.close()

    def _hear(self, producer_id: str, count: int) -> list[Announcement]:
        announced: dict[int, Announcement] = {}
        last = b"0"
        while len(announced) < count:
            read: Any = self._redis.xread({self._keys.replies(producer_id): last}, block=DEADLINE_MS)
            assert read, f"{count - len(announced)} answers are missing"
            for _, fields in read[0][1]:
                announced.update((item.number, item) for item in decode_announcements(fields[ANNOUNCEMENT_FIELD]))
            last = read[0][1][-1][0]
        return [announced[number] for number in sorted(announced)]


@pytest.fixture(scope="module")
def stack(database_server: Any, template_database: str, redis_url: str) -> Iterator[Stack]:
    name = f"creditlane_stack_{uuid.uuid4().hex}"
    prefix = f"test-{uuid.uuid4().hex}"
    # An earlier test of this process may have set up logs on a stream that is closed by now.
    structlog.reset_defaults()
    stack = Stack(
        Settings(
            redis_url=redis_url,
            database_url=database_server.create_database(name, template=template_database),
            redis_prefix=prefix,
            # Less than a history: what was sent at once is decided in several batches.
            batch_limit=16,
        )
    )
    yield stack
    stack.stop()
    database_server.drop_database(name)
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1_000):
            client.delete(key)


@st.composite
def two_lanes(draw: st.DrawFn) -> list[list[Sent]]:
    """Return the histories of two lanes, woven into one and cut into what is sent at once."""
    waiting = [draw(histories(accounts, label, max_size=25)) for label, accounts in LANES.items()]
    woven: list[Sent] = []
    while any(waiting):
        lane = draw(st.sampled_from([lane for lane in waiting if lane]))
        woven.append(lane.pop(0))
    return cut(draw, woven)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=two_lanes())
def test_the_stack_answers_as_the_naive_ledger(stack: Stack, parts: list[list[Sent]]) -> None:
    """Given two lanes and a worker that reads them as it likes, when a history is sent, then every command is answered
    once, as the rules say, and the entries stand in the order of acceptance."""
    naive = NaiveLedger()
    history = [sent for part in parts for sent in part]
    stack.begin()

    announced = stack.send(history, parts)

    assert [answer_of(item, sent.command) for item, sent in zip(announced, history, strict=True)] == [
        naive.submit(stack.stores[sent.store], sent.command.model_dump()) for sent in history
    ]
    for store in stack.stores:
        for account_id in ACCOUNTS:
            moved = [entry["amount"] for entry in naive.entries(store, account_id)]
            assert stack.entries(store, account_id) == [
                (amount, sum(moved[: number + 1])) for number, amount in enumerate(moved)
            ]
