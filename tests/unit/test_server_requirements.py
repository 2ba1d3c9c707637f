"""What Postgres and Redis say of themselves is refused, warned of, or right."""

import pytest

from creditlane.producer.client.redis_exchange import refusal_meaning
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.server_requirements import check_postgres, check_redis, fields_of

#: What the embedded server answers, of what is checked.
GOOD = {
    "redis_version": "7.2.4",
    "server_mode": "standalone",
    "cluster_enabled": 0,
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
}


@pytest.mark.parametrize(
    ("encoding", "version", "message"),
    [
        ("SQL_ASCII", 180_006, "encoding is SQL_ASCII, and a ledger needs UTF8: create another one with `create data"),
        (None, 180_006, "encoding is None"),
        ("UTF8", 120_022, "Postgres is version 12, and a ledger needs 13 or later"),
    ],
)
def test_a_postgres_that_can_keep_no_ledger_is_refused(encoding: str | None, version: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_postgres(encoding, version)


@pytest.mark.parametrize("version", [130_000, 150_014, 180_006])
def test_a_postgres_that_can_is_taken(version: int) -> None:
    check_postgres("UTF8", version)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"redis_version": "6.0.16"}, "Redis is version 6.0.16, and Creditlane needs 6.2 or later"),
        ({"redis_version": "5.0.14"}, "needs 6.2 or later"),
        ({"cluster_enabled": 1}, "Redis runs in cluster mode.*take one without cluster mode"),
        ({"redis_mode": "cluster"}, "Redis runs in cluster mode"),
    ],
)
def test_a_redis_that_cannot_have_the_lanes_is_refused(facts: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_redis(GOOD | facts)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, []),
        ({"redis_version": "6.2.0"}, []),
        ({"redis_version": "10.0.1"}, []),
        ({"redis_version": "unknown", "maxmemory_policy": "allkeys-lru"}, []),
        ({"maxmemory": 64 * 1024 * 1024, "maxmemory_policy": "volatile-lru"}, []),
        (
            {"maxmemory": 500_000_000, "maxmemory_policy": "allkeys-lfu"},
            ["(maxmemory-policy allkeys-lfu); set maxmemory-policy to noeviction"],
        ),
        ({"maxmemory": 64 * 1024 * 1024 - 1}, ["set maxmemory to 64mb or more"]),
        ({"aof_enabled": 0}, ["(appendonly no); set appendonly to yes"]),
        (
            {"maxmemory": 12_582_912, "maxmemory_policy": "allkeys-random", "aof_enabled": "0"},
            ["set maxmemory-policy to noeviction", "may use 12 MB", "set appendonly to yes"],
        ),
    ],
)
def test_what_works_until_it_does_not_is_warned_of(facts: dict[str, object], message: list[str]) -> None:
    warnings = check_redis(GOOD | facts)

    assert len(warnings) == len(message)
    assert all(words in warning for words, warning in zip(message, warnings, strict=True))
    assert not any("\n" in warning for warning in warnings)


def test_what_is_not_reported_is_taken_for_right() -> None:
    assert check_redis({}) == []


def test_an_answer_as_it_is_sent_is_read() -> None:
    info = b"# Server\r\nredis_version:7.2.4\r\nexecutable:/a:b\r\n\r\n# Memory\r\nmaxmemory:0\r\n"
    assert fields_of(info) == {"redis_version": "7.2.4", "executable": "/a:b", "maxmemory": "0"}


@pytest.mark.parametrize(
    "answer",
    [
        "Keys in request don't hash to the same slot",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "MOVED 3999 10.0.0.7:6381",
        "3999 10.0.0.7:6381",
        "3999 fd00::7:6381",
    ],
)
def test_an_answer_of_a_cluster_is_reported_as_that(answer: str) -> None:
    assert refusal_meaning(f"Redis refuses: {answer}") == "runs in cluster mode; take one without"
