"""URLs of Postgres and Redis: what drivers take is taken, and what is not written rightly is refused without a word of
the password, by every command and before anything is connected to.
"""

from functools import partial
from pathlib import Path

import psycopg
import pytest
from pydantic import ValidationError

from creditlane import Settings
from creditlane.cli.main import main
from creditlane.producer.client._async.redis_connection import AsyncRedisWire
from creditlane.producer.client._sync.redis_connection import RedisWire
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.postgres_urls import readable_postgres_url
from creditlane.schemas.redis_urls import check_redis_url
from creditlane.schemas.settings import load_settings
from creditlane.worker.connections import connect_redis

#: Long enough to be looked for, and its pieces, too.
SECRET = "s3cr3tpw"

POSTGRES = [
    "postgresql://credit@127.0.0.1/credits",
    "postgres://credit@127.0.0.1:5432/credits",
    "postgresql://credit:p%40%3A%2F%23%25%20%26@127.0.0.1/credits",
    "postgresql://credit:pass#word?x:y@127.0.0.1/credits",
    "postgresql://credit@127.0.0.1:1,[::1]:2/credits?target_session_attrs=read-write",
    "postgresql:///credits?host=127.0.0.1,127.0.0.2&port=1,2&user=credit@tenant",
    "postgresql://credit@%2Ftmp%2Fsocket:5432/credits",
    "postgresql://creditlane@:5432/creditlane?host=/tmp/a/postgres",
    "host=127.0.0.1 port=5432 user=credit dbname=credits password='it\\'s @ # /'",
    "host=/tmp/a,/tmp/b dbname=credits",
    "service=ledger",
    "",
]

NOT_POSTGRES = [
    f"postgresql//credit:{SECRET}@h/credits",
    f"postgresql:credit:{SECRET}@h/credits",
    f"postgresql+psycopg://credit:{SECRET}@h/credits",
    f"postgresql://credit:{SECRET}%zz@h/credits",
    f"postgresql://credit:{SECRET}/x@h:5432/credits",
    f"postgresql://credit:{SECRET}@x@h/credits",
    f"postgresql://credit:12345/{SECRET}@h/credits",
    f"postgresql://credit:{SECRET}@h:port/credits",
    f"postgresql://credit:{SECRET}@h:1,{SECRET}/credits?{SECRET}",
    f"postgresql://credit:{SECRET}@h/credits?sslmode",
    f"postgresql://credit:{SECRET}@[::1/credits",
    f"host=h password={SECRET} dbname",
    f"host=h password={SECRET} word dbname=credits",
    f"host=h password='{SECRET} dbname=credits",
    f"host=h port={SECRET}",
    f"dbname=postgresql://credit:{SECRET}@h/credits",
    f"credit:{SECRET}@h",
]

REDIS = [
    "redis://localhost",
    "redis://127.0.0.1:6379/0",
    "redis://:6379",
    "rediss://user:p%40%2F%23@redis.example.com:6380/2?ssl_cert_reqs=none",
    "redis://:pass@word@h/0",
    "redis://[::1]:6379/0",
    "redis://h/?db=3",
    "unix:///tmp/a/redis.sock?db=0",
    "unix://user:pw@/tmp/redis.sock",
]

NOT_REDIS = [
    f"redis//:{SECRET}@h/0",
    f"http://:{SECRET}@h/0",
    f":{SECRET}@h",
    f"redis://:{SECRET}/x@h:6379/0",
    f"redis://:12345/{SECRET}@h:6379/0",
    f"redis://user:12345?{SECRET}@h:6379/0",
    f"redis://:{SECRET}#x@h:6379/0",
    f"redis://:{SECRET}?x@h:6379/0",
    f"redis://:{SECRET}@h:port/0",
    f"redis://:{SECRET}@h:99999/0",
    f"redis://:{SECRET}[x@h]:6379/0",
    f"redis://:{SECRET}@h:6379/zero",
    f"redis://:{SECRET}@h:6379/0?db={SECRET}",
    f"unix://:12345/{SECRET}@/run/redis.sock",
    f"unix://{SECRET}/run/redis.sock",
]

#: Where nobody listens.
GOOD = {"CREDITLANE_DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "CREDITLANE_REDIS_URL": "redis://127.0.0.1:1/0"}

#: Every command reads them by the same code, so some of each kind do.
WRONG_SETTINGS = [
    *(("CREDITLANE_DATABASE_URL", url) for url in NOT_POSTGRES[::5]),
    *(("CREDITLANE_REDIS_URL", url) for url in NOT_REDIS[::5]),
]

COMMANDS = [
    "up",
    "demo",
    "worker",
    "worker --processes 2",
    "api --port 0",
    "migrate",
    "status",
    "status --json",
    "verify",
    "stores list",
    "keys list",
    "dead list",
    "webhooks list",
    "jobs work --queue jobs",
    "jobs work --queue deliveries --processes 2",
    "jobs list",
    "jobs run verify",
    "jobs alive --queue jobs",
    "jobs list --json",
]


@pytest.mark.parametrize("url", POSTGRES)
def test_what_libpq_takes_is_taken(url: str) -> None:
    assert {name: value for name, value in readable_postgres_url(url).items() if value is not None} == {
        name: value for name, value in psycopg.conninfo.conninfo_to_dict(url).items() if value is not None
    }


@pytest.mark.parametrize("url", REDIS)
def test_what_the_driver_of_redis_takes_is_taken(url: str) -> None:
    connect_redis(url).close()


@pytest.mark.parametrize(("url", "keepalive"), [("redis://h:7/1", True), ("unix:///tmp/r.sock", None)])
def test_every_connection_to_redis_has_the_same_options(url: str, keepalive: bool | None) -> None:
    with connect_redis(url) as client:
        made = [client.connection_pool.connection_kwargs, RedisWire(url)._maker.connection_kwargs]
    made.append(AsyncRedisWire(url)._maker.connection_kwargs)

    options = [(each["protocol"], each["decode_responses"], each.get("socket_keepalive")) for each in made]
    assert options == [(2, False, keepalive)] * 3


def texts_of(error: BaseException) -> str:
    """Everything that a traceback of the error says, however it is shown."""
    texts: list[str] = []
    each: BaseException | None = error
    while each is not None:
        texts.append(repr(each))
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return " ".join(texts)


@pytest.mark.parametrize("url", NOT_POSTGRES)
def test_a_url_of_postgres_that_is_none_is_not_repeated(url: str) -> None:
    settings = Settings(database_url=url, redis_url="redis://localhost:6379/0")

    assert SECRET not in repr(settings)
    for read in (settings.require_database_url, lambda: readable_postgres_url(url)):
        with pytest.raises(ConfigurationError, match="CREDITLANE_DATABASE_URL must be like") as caught:
            read()
        assert SECRET not in texts_of(caught.value)


@pytest.mark.parametrize("url", NOT_REDIS)
def test_a_url_of_redis_that_is_none_is_not_repeated(url: str) -> None:
    settings = Settings(redis_url=url)

    assert SECRET not in repr(settings)
    for read in (
        settings.require_redis_url,
        *(partial(make, url) for make in (check_redis_url, connect_redis, RedisWire)),
    ):
        with pytest.raises(ConfigurationError, match="CREDITLANE_REDIS_URL") as caught:
            read()
        assert SECRET not in texts_of(caught.value)


def test_an_option_that_no_connection_takes_is_not_repeated() -> None:
    for make in (connect_redis, RedisWire, AsyncRedisWire):
        with pytest.raises(ConfigurationError, match="option") as caught:
            make(f"redis://:{SECRET}@h/0?{SECRET}=1")
        assert SECRET not in texts_of(caught.value)


def test_settings_that_are_wrong_repeat_nothing() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(database_url=[f"postgresql://u:{SECRET}@h/x"], partitions=0)  # type: ignore[arg-type]

    assert SECRET not in texts_of(caught.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [*(("DATABASE", url) for url in NOT_POSTGRES), *(("REDIS", url) for url in NOT_REDIS)],
)
def test_settings_are_refused_when_they_are_read(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CREDITLANE_{name}_URL", url)

    with pytest.raises(ConfigurationError, match=f"CREDITLANE_{name}_URL") as caught:
        load_settings()
    assert SECRET not in texts_of(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_repeats_a_url(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In one line, which names the variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["creditlane", *command.split()])
    for name, url in WRONG_SETTINGS:
        for each, value in {**GOOD, name: url}.items():
            monkeypatch.setenv(each, value)

        with pytest.raises(SystemExit) as ended:
            main()

        out, err = capfd.readouterr()
        assert (ended.value.code, err.count("\n")) == (1, 1), (url, out, err)
        assert SECRET not in out + err, (url, out, err)
        assert name in err, (url, out, err)
