"""The users of Redis can do what their part does, on the keys of their installation, and nothing else."""

import fnmatch
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError
from typer.testing import CliRunner

from creditlane.cli.app import app
from creditlane.cli.redis_users import variable_of
from creditlane.lanes.keys import Keys
from creditlane.lanes.redis.users import REDIS_USERS, RedisUser, as_user, rules, user_name
from creditlane.local import redis_server
from creditlane.local.redis_server import EmbeddedRedis
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.installation import MAX_PARTITIONS

from ..redis_users import redis_url_of

Connect = Callable[[RedisUser], redis.Redis]

LANE, FENCE, RESULT = "P:{p1}:commands", "P:{p1}:fence", "P:{p1}:result:store_default:key"
#: Poll keys of idempotency keys that end as the names of other keys do.
ODD_RESULTS = [f"P:{{p1}}:result:store_default:{{p1}}:{name}" for name in ("commands", "backlog", "fence")]
#: Sent as each user; "P" stands for the prefix of the installation.
REFUSED_TO_ALL = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("CONFIG", "GET", "*"),
    ("ACL", "SETUSER", "default", "on"),
    ("ACL", "LIST"),
    ("SHUTDOWN", "NOSAVE"),
    ("MONITOR",),
    ("CLIENT", "KILL", "ID", "1"),
    ("CLIENT", "LIST"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("BGREWRITEAOF",),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("MODULE", "LIST"),
    ("PUBLISH", "rq:pubsub:anyone", "{}"),
    ("SUBSCRIBE", "rq:pubsub:anyone"),
    ("DEL", LANE),
    ("UNLINK", LANE),
    ("RENAME", LANE, "P:other"),
    ("SET", LANE, "text"),
    ("GET", "somebody-elses"),
    ("GET", "other:installation"),
    ("XRANGE", "other:{p1}:commands", "-", "+"),
    ("EVAL", "return redis.call('FLUSHALL')", "1", LANE),
    ("EVAL", "return redis.call('DEL', KEYS[1])", "1", LANE),
    ("EVAL", "return redis.call('GET', 'somebody-elses')", "1", LANE),
    ("EVAL", "return redis.call('GET', KEYS[1])", "1", "somebody-elses"),
    ("HSET", "rq:job:other-jobs-1", "data", "{}"),
    ("RPUSH", "rq:queue:other-jobs", "x"),
    ("RPUSH", "rq:queue:P-jobs-deliveries", "x"),
]
REFUSED: dict[RedisUser, list[tuple[str, ...]]] = {
    "producer": [
        ("XTRIM", LANE, "MAXLEN", "0"),
        ("XDEL", LANE, "1-0"),
        ("GET", FENCE),
        ("SET", FENCE, "9"),
        ("DEL", RESULT),
        *(("XADD", key, "*", "a", "forged") for key in [RESULT, *ODD_RESULTS]),
        *(("HDEL", key, "field") for key in [RESULT, *ODD_RESULTS]),
        ("HSET", "rq:job:P-verify-1-0", "data", "{}"),
        ("RPUSH", "rq:queue:P-jobs", "P-verify-1-0"),
        ("SMEMBERS", "rq:workers"),
        ("HSET", "P:refused-jobs", "jobs", "0"),
    ],
    "worker": [
        ("XADD", LANE, "*", "c", "{}"),
        ("EVAL", "return redis.call('XADD', KEYS[1], '*', 'c', '{}')", "1", LANE),
        ("XREAD", "STREAMS", "P:replies:somebody", "0"),
        *(("XREAD", "STREAMS", key, "0") for key in [RESULT, *ODD_RESULTS]),
        *(("SET", key, "9") for key in [RESULT, *ODD_RESULTS]),
        ("BLPOP", "P:wake:deliveries", "1"),
        ("HSET", "rq:job:P-verify-1-0", "data", "{}"),
        ("RPUSH", "rq:queue:P-deliveries", "P-round-1"),
    ],
    "jobs": [
        ("XRANGE", LANE, "-", "+"),
        ("XTRIM", LANE, "MAXLEN", "0"),
        ("SET", FENCE, "9"),
        ("XADD", "P:replies:somebody", "*", "a", "forged"),
        *(("XADD", key, "*", "a", "forged") for key in [RESULT, *ODD_RESULTS]),
        ("SET", "P:installation", "{}"),
        ("HGETALL", "rq:job:other-verify-1-0"),
    ],
    "operator": [
        ("XTRIM", LANE, "MAXLEN", "0"),
        ("SET", FENCE, "9"),
        *(("XADD", key, "*", "a", "forged") for key in [RESULT, *ODD_RESULTS]),
        ("HSET", "P:refused-jobs", "jobs", "0"),
    ],
}


@pytest.fixture
def connect(own_redis: Callable[[], EmbeddedRedis], own_prefix: str) -> Iterator[Connect]:
    """Connects as a user of this test's installation."""
    server, made = own_redis(), list[redis.Redis]()
    with redis.Redis.from_url(server.url) as client:
        client.set("somebody-elses", "secret")
        client.xadd(f"{own_prefix}:{{p1}}:commands", {"c": "{}"}, id="1-0")

    def connected(user: RedisUser) -> redis.Redis:
        made.append(redis.Redis.from_url(redis_url_of(user, server.url, own_prefix), protocol=2, socket_timeout=20))
        return made[-1]

    yield connected
    for client in made:
        client.close()
    with redis.Redis.from_url(server.url) as client:
        # Whatever was tried, it has changed nothing.
        assert client.get("somebody-elses") == b"secret"
        assert client.xrange(f"{own_prefix}:{{p1}}:commands") == [(b"1-0", {b"c": b"{}"})]
        assert client.dbsize() == 2


@pytest.mark.parametrize("user", REDIS_USERS)
def test_what_a_part_does_not_do_is_refused_to_its_user(user: RedisUser, connect: Connect, own_prefix: str) -> None:
    client = connect(user)
    for words in [*REFUSED_TO_ALL, *REFUSED[user]]:
        named = [word.replace("P:", f"{own_prefix}:").replace("P-", f"{own_prefix}-") for word in words]
        with pytest.raises(redis.ResponseError) as caught:
            client.execute_command(*named)  # type: ignore[no-untyped-call]
        # A script says whose call inside was refused.
        refused = isinstance(caught.value, NoPermissionError) or "ACL failure in script" in str(caught.value)
        assert refused, f"{user}: {words}: {caught.value}"


def test_a_user_needs_its_password(connect: Connect) -> None:
    kwargs = connect("worker").connection_pool.connection_kwargs
    stranger = redis.Redis(unix_socket_path=kwargs["path"], username=kwargs["username"], password="guessed")
    with stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_the_rules_name_the_keys_that_there_are() -> None:
    """Given the names of an installation, then a pattern of the rules is for each of them."""
    keys = Keys("a.b-c")
    names = [
        keys.installation,
        *(keys.lane(partition) for partition in (0, 17, 255, MAX_PARTITIONS - 1)),
        keys.backlog(8),
        keys.fence(3),
        keys.result(5, "store_default", "any key: * at all"),
        keys.replies("producer"),
        keys.wake_deliveries,
        keys.refused_jobs,
        keys.write_check,
    ]
    words = " ".join(rules(user, keys.prefix) for user in REDIS_USERS).replace(")", "").split()
    patterns = {word.partition("~")[2] for word in words if "~" in word}
    unmatched = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    assert unmatched == []
    assert all(pattern.startswith(("a.b-c:", "rq:")) for pattern in patterns)


def run(*arguments: str, **environment: str) -> tuple[str, BaseException | None]:
    result = CliRunner().invoke(app, ["redis-users", *arguments], env=environment)
    return result.stdout, result.exception


def test_the_command_makes_passwords_once_and_prints_none(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    given = f"{variable_of('worker')}={'given by hand ' * 2}"
    file.write_text(f"# kept\nOTHER=1\n{given}")
    file.chmod(0o600)

    first, _ = run("--passwords-file", str(file))
    second, _ = run("--passwords-file", str(file))

    lines = file.read_text().splitlines()
    assert lines[:3] == ["# kept", "OTHER=1", given]
    assert [line.partition("=")[0] for line in lines[3:]] == [
        variable_of(user) for user in REDIS_USERS if user != "worker"
    ]
    made = [line.partition("=")[2] for line in lines[2:]]
    assert len(set(made)) == 4
    assert not any(password.strip() in first for password in made)
    assert first == second
    assert [line.split()[1] for line in first.splitlines()] == [user_name(user, "creditlane") for user in REDIS_USERS]


def test_a_file_that_the_command_makes_is_nobody_elses_to_read(tmp_path: Path) -> None:
    run("--passwords-file", str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["readable by others", "another user's"])
def test_no_password_is_written_where_others_may_read_it(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("OTHER=1\n")
    file.chmod(0o644 if damage == "readable by others" else 0o600)
    if damage == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    output, error = run("--passwords-file", str(file))

    assert (output, isinstance(error, ConfigurationError)) == ("", True)
    assert "only you may read" in str(error)
    assert file.read_text() == "OTHER=1\n"


def test_passwords_that_are_all_there_are_read_from_any_file(tmp_path: Path) -> None:
    file = tmp_path / "shared"
    file.write_text("".join(f"{variable_of(user)}={user * 4}\n" for user in REDIS_USERS))
    file.chmod(0o644)

    output, error = run("--passwords-file", str(file))

    assert (len(output.splitlines()), error) == (len(REDIS_USERS), None)


def test_a_password_that_is_missing_or_short_is_named_and_not_shown() -> None:
    output, error = run(**{variable_of("producer"): "p" * 16})
    assert (output, isinstance(error, ConfigurationError)) == ("", True)
    assert f"{variable_of('worker')} is not set" in str(error)

    output, error = run(**{variable_of(user): "short" for user in REDIS_USERS})
    assert output == ""
    assert "fewer than 16 characters" in str(error)
    assert "short" not in str(error)


def test_a_server_takes_what_the_command_prints(own_redis: Callable[[], EmbeddedRedis]) -> None:
    """Given the commands for a server that runs, and the prefix of another installation."""
    passwords = {user: f"{user} " * 8 for user in REDIS_USERS}
    output, _ = run(
        "--setuser",
        CREDITLANE_REDIS_PREFIX="another.one",
        **{variable_of(user): password for user, password in passwords.items()},
    )
    server = own_redis()
    with redis.Redis.from_url(server.url) as client:
        for line in output.splitlines():
            assert client.execute_command(*shlex.split(line)) in {True, b"OK"}  # type: ignore[no-untyped-call]

    for user, password in passwords.items():
        url = as_user(server.url, user_name(user, "another.one"), password)
        with redis.Redis.from_url(url, protocol=2) as client:
            assert client.ping() is True
            assert user == "jobs" or client.set("another.one:write-check", "1", px=1) is True


def test_the_users_are_there_again_when_the_server_starts_again(
    own_redis: Callable[[], EmbeddedRedis], own_prefix: str
) -> None:
    server = own_redis()
    server.kill()
    url = redis_url_of("producer", server.start(), own_prefix)
    with redis.Redis.from_url(url, protocol=2) as client:
        assert client.ping() is True
    assert (server.data_dir / "users.acl").stat().st_mode & 0o777 == 0o600


def test_a_server_that_is_too_old_for_the_rules_runs_without_users(
    own_redis: Callable[[], EmbeddedRedis], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = redis_server.find_program
    monkeypatch.setattr(
        redis_server, "find_program", lambda *arguments: find(*arguments)._replace(family="Redis", version=(6, 2))
    )
    server = own_redis()
    assert not server.has_users
    assert not (server.data_dir / "users.acl").exists()
    # Taken over by who believes that it has none: a rule that the server does not know.
    again = EmbeddedRedis(server.data_dir, acl=["user one on nopass +no-such-command"])
    again.start()
    assert not again.has_users


def test_a_server_that_somebody_else_started_gets_the_users(own_redis: Callable[[], EmbeddedRedis]) -> None:
    first = own_redis()
    acl = ["user later on #" + "0" * 64 + " +ping", "user another on nopass +ping"]
    EmbeddedRedis(first.data_dir, acl=acl).start()
    with redis.Redis.from_url(as_user(first.url, "another", "any"), protocol=2) as client:
        assert client.ping() is True
