"""A key that is revoked stops at once, also on streams that are open, and on every API process."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.api.routes import commands
from creditlane.producer.operations.api_keys import key_id_of, revoke_key

from .duplex import Duplex
from .requests_of import ACCOUNTS, COMMANDS, code_of

OpenStream = Callable[[], tuple[Duplex, "Answers"]]
ACCOUNT = "cca_" + "0" * 32


class Answers:
    """The lines of an answer as they come, after a first one."""

    def __init__(self, stream: Duplex) -> None:
        stream.send(line_of(1))
        self._response = stream.response()
        assert self.next()["status"] == "queued"

    def next(self) -> dict[str, Any]:
        return json.loads(self._response.readline())

    def rest(self) -> bytes:
        return self._response.read()


def line_of(number: int) -> bytes:
    line = {"kind": "debit", "account_id": ACCOUNT, "amount": "1", "reference": "r", "idempotency_key": f"{number}"}
    return json.dumps(line).encode() + b"\n"


@pytest.fixture
def open_stream(start_api: Callable[..., tuple[Any, str]], api_key: str) -> Iterator[OpenStream]:
    """Opens a stream on an API process of its own, and sends its first line."""
    streams: list[Duplex] = []

    def open_one() -> tuple[Duplex, Answers]:
        streams.append(Duplex(start_api()[1], api_key))
        return streams[-1], Answers(streams[-1])

    yield open_one
    for stream in streams:
        stream.close()


@pytest.fixture
def revoke(database_url: str, api_key: str) -> Callable[[], None]:
    """Revokes the test's key."""

    def revoke() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            revoke_key(connection, key_id_of(api_key) or "")

    return revoke


@pytest.fixture
def lines_on_lanes(settings: Settings) -> Iterator[Callable[[], int]]:
    """Counts the commands that stand on the lanes; no worker takes any."""
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        yield lambda: sum(
            client.xlen(key) for key in client.scan_iter(match=f"{settings.redis_prefix}:*:commands", count=1_000)
        )


def test_no_line_after_the_revocation_is_accepted_by_any_process(
    open_stream: OpenStream, revoke: Callable[[], None], lines_on_lanes: Callable[[], int]
) -> None:
    """Given open streams on two API processes, when the key is revoked, then the next line is the first refused."""
    streams = [open_stream() for _ in range(2)]
    assert lines_on_lanes() == 2

    revoke()
    for stream, _ in streams:
        # Where the silence was noticed before, the stream is closed already.
        try:
            stream.send(line_of(2) + line_of(3))
        except OSError:
            continue

    for _, answers in streams:
        refused = answers.next()
        assert (refused["line"], refused["status"], refused["error"]["code"]) == (2, "refused", "unauthorized")
        assert all(json.loads(line)["status"] == "refused" for line in answers.rest().splitlines())
    assert lines_on_lanes() == 2


def test_a_silent_stream_ends_by_itself(open_stream: OpenStream, revoke: Callable[[], None]) -> None:
    """Given a stream on which nothing is sent, when the key is revoked, then its answer says so and ends."""
    _, answers = open_stream()

    revoke()
    refused = answers.next()

    assert (refused["line"], refused["status"], refused["error"]["code"]) == (2, "refused", "unauthorized")
    assert answers.rest() == b""


def test_a_stream_without_a_line_yet_is_answered_as_a_request_without_a_key(
    start_api: Callable[..., tuple[Any, str]], api_key: str, revoke: Callable[[], None]
) -> None:
    stream = Duplex(start_api()[1], api_key)

    revoke()
    response = stream.response()

    assert response.status == 401
    assert json.loads(response.read())["error"]["code"] == "unauthorized"
    stream.close()


def test_lines_wait_for_nothing_else_than_the_key(open_stream: OpenStream) -> None:
    stream, answers = open_stream()
    for number in range(2, 40):
        stream.send(line_of(number))
        assert answers.next()["status"] == "queued"
    stream.finish()

    assert answers.rest() == b""


def test_a_long_wait_for_a_result_shows_nothing_after_the_revocation(
    api: TestClient, revoke: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a wait that began with a key that worked, when it is over, then the key is checked again."""
    opened = api.post(ACCOUNTS, json={"customer_id": "c"}, headers={"prefer": "respond-async"}).json()["id"]

    async def wait(*_arguments: object) -> None:
        revoke()

    monkeypatch.setattr(commands, "_wait", wait)

    assert code_of(api.get(f"{COMMANDS}/{opened}", params={"wait": 5}), 401) == "unauthorized"
