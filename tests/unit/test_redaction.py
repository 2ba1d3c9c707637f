"""Passwords are found in any text, whole or in pieces, and nothing else is taken for one."""

import io

import pytest

from creditlane.lanes.log_stream import LogStream
from creditlane.schemas import redaction
from creditlane.schemas.errors import ConfigurationError, Unavailable
from creditlane.schemas.redaction import keep_environment_secret, keep_secret, redacted


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", ())
    monkeypatch.setattr(redaction, "_any_known", None)


@pytest.mark.parametrize(
    "text",
    [
        'missing "=" after "postgresql//u:s3cr3t@h/x"',
        "postgresql://u:s3cr3t@h/x is wrong",
        "postgres://u:s3cr3t@x@h/x",
        "postgresql+psycopg://u:s3cr3t/x@h/x",
        "redis://:s3cr3t@h/0 and rediss://u:p/s3cr3t@h/0",
        "unix://u:s3cr3t@/tmp/redis.sock",
        "host=h password=s3cr3t dbname=x",
        "host=h password = 'it\\'s s3cr3t' dbname=x",
        "postgresql://h/x?user=u&password=s3cr3t&sslmode=require",
    ],
)
def test_the_forms_of_passwords_are_known(text: str) -> None:
    assert "s3cr3t" not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "connection to server at 127.0.0.1, port 5432 failed",
        "https://hooks.example.com:8443/a?to=me@example.com",
        "redis://localhost:6379/0",
        "postgresql://user@localhost:5432/creditlane",
        "account cca_0123 of store_a: 5 entries",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://credit:s3cr3t%zz@h/x", 'invalid percent-encoded token: "s3cr3t%zz"'),
        ("postgresql://credit:s3cr3t/x@h/x", 'invalid port number: "s3cr3t"'),
        ("postgresql://credit:s3cr3t@y@h/x", 'could not translate host name "y@h"; s3cr3t'),
        ("redis://:s3cr3t#x@h/0", "Port could not be cast to integer value as 's3cr3t'"),
        ("redis://:s3cr3t%21@h/0", "wrong: s3cr3t!"),
        ('redis://:s3cr3t"q@h/0', 'wrong: "s3cr3t\\"q"'),
        ("host=h password=s3cr3t", "the word s3cr3t is wrong"),
    ],
)
def test_the_pieces_of_a_password_of_the_environment_are_known(url: str, message: str) -> None:
    keep_environment_secret({"CREDITLANE_DATABASE_URL": url, "PATH": "/usr/bin"})

    assert "s3cr3t" not in redacted(message)
    assert "s3cr3t" not in Unavailable(message).message
    assert "s3cr3t" not in str(ConfigurationError(message))


def test_keys_of_the_environment_are_known() -> None:
    keep_environment_secret({"CREDITLANE_API_KEY": "cl_0123_abcdef", "CREDITLANE_WEBHOOK_SECRET_KEYS": "key-1, key-2"})

    assert redacted("cl_0123_abcdef, key-1 and key-2") == "***, *** and ***"


def test_a_password_that_is_an_everyday_word_hides_only_that_word() -> None:
    keep_environment_secret({"CREDITLANE_DATABASE_URL": "postgresql://creditlane:creditlane@db/creditlane"})
    keep_secret("pass")

    assert redacted("creditlane passed with pass") == "creditlane passed with ***"


def test_a_log_stream_writes_no_password() -> None:
    memory = io.StringIO()
    LogStream(memory).write("redis://:s3cr3t@h/0 is away\n")

    assert memory.getvalue() == "redis://:***@h/0 is away\n"
