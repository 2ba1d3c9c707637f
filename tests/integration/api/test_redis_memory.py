"""Over HTTP: what a store sends and nobody decides does not fill Redis, which all stores share."""

import json
from collections.abc import Callable, Iterator

import pytest
import redis
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.lanes.keys import Keys
from creditlane.local.processes import wait_until
from creditlane.local.redis_server import EmbeddedRedis
from creditlane.producer.api import redis_memory

from ...redis_users import redis_url_of
from ..direct_store import add_store

COMMANDS = "/v1/customer-credits/commands"
DEADLINE_SECONDS = 30.0
#: What Redis may hold beside what it holds when it is empty, and about what one store may have of it, in bytes.
ROOM = 12_000_000
LEAST, MOST = ROOM // 3, ROOM * 9 // 10
FULL = "The account's lane is full"
METADATA = {f"note {number}": "\N{OCTOPUS}" * 500 for number in range(50)}


@pytest.fixture
def url(own_redis: Callable[[], EmbeddedRedis]) -> str:
    """A Redis of the test's own, as who may do anything there."""
    return own_redis().url


@pytest.fixture
def server(url: str) -> Iterator[redis.Redis]:
    """It has little room."""
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + ROOM)
        yield client


@pytest.fixture
def send(
    make_api: Callable[[Settings], TestClient],
    make_key: Callable[..., str],
    settings: Settings,
    url: str,
    server: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, int], str]:
    """Sends a fat credit of a store, and returns what became of it."""
    assert server
    # So that what is found does not depend on how quick this machine is.
    monkeypatch.setattr(redis_memory, "READ_INTERVAL_SECONDS", 0.0)
    add_store(str(settings.database_url), "store_few")
    keys = {store: make_key(store) for store in ("store_default", "store_few")}
    api = make_api(
        settings.model_copy(
            update={"redis_url": redis_url_of("producer", url, settings.redis_prefix), "wait_timeout_seconds": 0.5}
        )
    )

    def send(store: str, number: int) -> str:
        line = {
            "kind": "credit",
            "account_id": f"cca_{number % 8:032x}",
            "amount": "1",
            "reference": "fat",
            "idempotency_key": str(number),
            "metadata": METADATA,
        }
        headers = {"x-api-key": keys[store], "content-type": "application/x-ndjson"}
        answer = api.post(COMMANDS, content=json.dumps(line, ensure_ascii=False).encode(), headers=headers)
        reported = json.loads(answer.text.splitlines()[0])
        return str(reported["error"]["message"] if "error" in reported else reported["status"])

    return send


def test_one_store_leaves_another_room_in_redis(
    send: Callable[[str, int], str], server: redis.Redis, settings: Settings
) -> None:
    """Given lanes that nobody works off, whose bounds together are far more than Redis may hold, when a store sends for
    ever, then it is refused before Redis is full, and another store is not; once it is worked off there is room."""
    numbers = iter(range(1_000))
    while (reported := send("store_default", next(numbers))) == "queued":
        pass

    assert reported.startswith(FULL)
    assert LEAST < lanes_bytes(server, settings) < MOST
    assert [send("store_few", next(numbers)) for _ in range(3)] == ["queued"] * 3
    assert send("store_default", next(numbers)).startswith(FULL)

    for partition in range(settings.partitions or 0):
        server.delete(Keys(settings.redis_prefix).lane(partition), Keys(settings.redis_prefix).backlog(partition))
    assert wait_until(lambda: send("store_default", next(numbers)) == "queued", seconds=DEADLINE_SECONDS)


def lanes_bytes(server: redis.Redis, settings: Settings) -> int:
    lanes = (Keys(settings.redis_prefix).lane(partition) for partition in range(settings.partitions or 0))
    return sum(len(fields[b"c"]) for lane in lanes for _, fields in server.xrange(lane))
