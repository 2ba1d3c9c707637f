"""A call ends when it said it would, whatever Redis does: stopped, silent, a replica, full; and then says what is so.

No worker runs here: nothing is decided, so every call that waits for a result waits until its deadline.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from creditlane import Client, ConfigurationError, CreditlaneError, Debit, OutcomeUnknown, Settings, Ticket, Unavailable
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.local.servers import EmbeddedRedis
from creditlane.producer.client._sync.redis_connection import RedisWire

from ..tcp_link import TcpLink, redis_address

ACCOUNT = "cca_" + "0" * 31 + "1"
#: The timeout of the calls here, in seconds.
TIMEOUT_SECONDS = 1.0
#: How long such a call may take on a busy machine, in seconds; a deadline of its own at Redis would be five and more.
DEADLINE_SECONDS = 3.0
#: How often a call is tried whose end a slow machine can change.
TRIES = 4
MakeClient = Callable[[Settings], Client]


def debit(key: str) -> Debit:
    return Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key=key)


def outcome_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the call returns or raises, and how long it took."""
    started = time.monotonic()
    try:
        outcome = call()
    except CreditlaneError as error:
        outcome = error
    return outcome, time.monotonic() - started


def together(*calls: Callable[[], Any]) -> list[tuple[Any, float]]:
    """Return the outcomes of calls that are made at the same time."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome_of, calls))


def warm(client: Client, prefix: str = "warm") -> list[Ticket]:
    """Let the client make several connections to Redis, and return the tickets of what it sent."""
    outcomes = together(*(lambda key=f"{prefix}{number}": client.enqueue(debit(key)) for number in range(8)))
    return [ticket for ticket, _seconds in outcomes]


@pytest.fixture
def short_waiting(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": TIMEOUT_SECONDS})


@pytest.fixture
def server(own_redis: Callable[[], EmbeddedRedis]) -> EmbeddedRedis:
    return own_redis()


@pytest.fixture
def link(server: EmbeddedRedis) -> Iterator[TcpLink]:
    with TcpLink(redis_address(server.url)) as link:
        yield link


@pytest.fixture
def far(short_waiting: Settings, link: TcpLink, server: EmbeddedRedis) -> Settings:
    """Settings that reach the Redis over the link, for calls that may take a second attempt."""
    return short_waiting.model_copy(update={"redis_url": link.redis_url(server.url), "wait_timeout_seconds": 6.0})


def test_every_call_ends_by_its_deadline_while_redis_is_stopped(
    make_client: MakeClient, short_waiting: Settings, server: EmbeddedRedis
) -> None:
    client = make_client(short_waiting.model_copy(update={"redis_url": server.url}))
    with redis.Redis.from_url(server.url) as connection:
        # So that no connection is free again before each call has its own.
        connection.client_pause(500)
    ticket, *_ = warm(client)
    assert server.pid is not None

    os.kill(server.pid, signal.SIGSTOP)
    try:
        sent = together(
            lambda: client.debit(ACCOUNT, 1, reference="r", idempotency_key="d", timeout=TIMEOUT_SECONDS),
            lambda: client.open_account(customer_id="c", timeout=TIMEOUT_SECONDS),
            lambda: client.freeze(ACCOUNT, timeout=TIMEOUT_SECONDS),
            lambda: client.enqueue(debit("e")),
            lambda: client.enqueue_many([debit("m")], timeout=TIMEOUT_SECONDS),
        )
        asked = together(
            lambda: client.wait(ticket, timeout=TIMEOUT_SECONDS),
            lambda: client.wait(str(ticket), timeout=TIMEOUT_SECONDS),
            lambda: client.balance(ACCOUNT, after=ticket, timeout=TIMEOUT_SECONDS),
            lambda: list(client.wait_many([ticket], timeout=TIMEOUT_SECONDS)),
        )
        read = together(lambda: client.result(ticket), lambda: client.pending(ACCOUNT))
        _, close_seconds = outcome_of(make_client(short_waiting.model_copy(update={"redis_url": server.url})).close)
    finally:
        os.kill(server.pid, signal.SIGCONT)

    # Written and not answered: it may have been accepted. Asked and not answered: the command is accepted.
    assert [(type(error), error.ticket) for error, _seconds in sent] == [(OutcomeUnknown, None)] * len(sent)
    assert [type(error) for error, _seconds in asked] == [OutcomeUnknown] * len(asked)
    assert [type(error) for error, _seconds in read] == [Unavailable] * len(read)
    assert max(close_seconds, *(seconds for _, seconds in sent + asked + read)) < DEADLINE_SECONDS
    assert client.result(ticket).status == "queued"


def test_closing_does_not_wait_for_a_redis_that_is_stopped(
    make_client: MakeClient, short_waiting: Settings, server: EmbeddedRedis
) -> None:
    client = make_client(short_waiting.model_copy(update={"redis_url": server.url}))
    # The listener is at work, and its read lasts.
    outcome_of(lambda: client.wait(client.enqueue(debit("k")), timeout=0.1))
    assert server.pid is not None

    os.kill(server.pid, signal.SIGSTOP)
    try:
        _, seconds = outcome_of(client.close)
    finally:
        os.kill(server.pid, signal.SIGCONT)

    assert seconds < DEADLINE_SECONDS + 1


def test_what_was_never_sent_is_unavailable_by_the_deadline(make_client: MakeClient, short_waiting: Settings) -> None:
    # A server that takes connections, as the kernel does for a process that is stopped, and never says a word
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = make_client(
            short_waiting.model_copy(update={"redis_url": f"redis://127.0.0.1:{mute.getsockname()[1]}/0"})
        )
        error, seconds = outcome_of(
            lambda: client.debit(ACCOUNT, 1, reference="r", idempotency_key="d", timeout=TIMEOUT_SECONDS)
        )

    assert isinstance(error, Unavailable)
    assert seconds < DEADLINE_SECONDS


class DrippingRedis:
    """Answers the first requests of each connection at once, and the one after them without an end, byte by byte."""

    def __init__(self, answered: int) -> None:
        self._answered = answered
        self._is_over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        self._is_over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._drip, args=(connection,)))
            self._threads[-1].start()

    def _drip(self, connection: socket.socket) -> None:
        left = self._answered
        with connection, contextlib.suppress(OSError):
            while left > 0:
                requests = connection.recv(65_536).count(b"*")
                connection.sendall(b"+OK\r\n" * min(requests, left))
                left -= requests
            connection.sendall(b"+")
            # Not for ever, so that a client that waits for the end fails and does not hang.
            for _ in range(100):
                if self._is_over.wait(0.1):
                    return
                connection.sendall(b"x")


@pytest.mark.parametrize("answered", [0, 1, 2], ids=["greeting", "greeting further on", "answer"])
def test_a_redis_that_answers_byte_by_byte_is_waited_for_until_the_deadline(answered: int) -> None:
    dripping = DrippingRedis(answered)
    wire = RedisWire(dripping.url)
    try:
        started = time.monotonic()
        error, seconds = outcome_of(lambda: wire.exchange([("PING",)], deadline=started + TIMEOUT_SECONDS))
    finally:
        wire.close()
        dripping.close()

    assert isinstance(error, Unavailable)
    assert seconds < DEADLINE_SECONDS


def test_connections_that_fell_silent_leave_time_for_fresh_ones(
    make_client: MakeClient, far: Settings, link: TcpLink
) -> None:
    client = make_client(far)
    warm(client)

    link.silence_open()
    after = warm(client, "after")

    assert all(isinstance(ticket, Ticket) for ticket in after)
    assert client.result(after[0]).status == "queued"


def test_a_demoted_redis_loses_its_connections_at_the_first_refusal(
    make_client: MakeClient,
    far: Settings,
    server: EmbeddedRedis,
    own_redis: Callable[[], EmbeddedRedis],
    link: TcpLink,
) -> None:
    client, other = make_client(far), make_client(far)
    warm(client)
    other.enqueue(debit("other"))
    promoted = own_redis()

    # When the server becomes a replica and its name leads to another
    with redis.Redis.from_url(server.url) as connection:
        connection.replicaof("127.0.0.1", 1)
    link.lead_to(redis_address(promoted.url))
    outcomes = together(
        *(lambda key=f"after{number}": client.enqueue(debit(key)) for number in range(8)),
        lambda: len(other.enqueue_many([debit(f"bulk{number}") for number in range(100)])),
    )

    assert [type(outcome) for outcome, _seconds in outcomes] == [Ticket] * 8 + [int]
    with redis.Redis.from_url(promoted.url) as connection:
        lane: Any = connection.xlen(Keys(far.redis_prefix).lane(partition_of(ACCOUNT, far.partitions or 0)))
    assert lane == 108


def test_a_full_redis_refuses_and_is_used_again_when_there_is_room(
    make_client: MakeClient, settings: Settings, server: EmbeddedRedis
) -> None:
    # A refusal comes at once: the time is for a machine that stands still.
    client = make_client(settings.model_copy(update={"redis_url": server.url, "wait_timeout_seconds": 30.0}))
    warm(client)

    with redis.Redis.from_url(server.url) as connection:
        connection.config_set("maxmemory", "1")
        refused = together(*(lambda number=number: client.enqueue(debit(f"f{number}")) for number in range(40)))
        connection.config_set("maxmemory", "0")

    assert {type(error) for error, _seconds in refused} == {Unavailable}
    assert client.result(client.enqueue(debit("room"))).status == "queued"


def test_options_in_a_url_that_are_for_a_pool_of_the_library_change_nothing(
    make_client: MakeClient, short_waiting: Settings
) -> None:
    url = f"{short_waiting.redis_url}{'&' if '?' in str(short_waiting.redis_url) else '?'}timeout=5&max_connections=7"
    client = make_client(short_waiting.model_copy(update={"redis_url": url}))

    assert client.result(client.enqueue(debit("k"))).status == "queued"


@pytest.mark.parametrize("option", ["hunter2=1", "ssl_cert_reqs=hunter2", "socket_timeout=hunter2"])
def test_an_option_in_a_url_that_there_is_not_is_reported_as_a_wrong_setting(
    make_client: MakeClient, short_waiting: Settings, option: str
) -> None:
    client = make_client(short_waiting.model_copy(update={"redis_url": f"rediss://localhost:1/0?{option}"}))

    with pytest.raises(ConfigurationError, match="CREDITLANE_REDIS_URL") as caught:
        client.enqueue(debit("k"))

    assert "hunter2" not in str(caught.value)


class FaltererRedis:
    """Greets like a Redis, hangs up on the first command that changes something, and answers the others as given."""

    def __init__(self, answer: bytes, *, silent: int) -> None:
        self._answer_of_script = answer
        self._silent = silent
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._server.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        while request := connection.recv(65_536):
            answer = b'$16\r\n{"partitions":8}\r\n' if b"GET" in request else b"+OK\r\n"
            if b"EVALSHA" in request:
                self._silent -= 1
                if self._silent >= 0:
                    return
                answer = self._answer_of_script
            connection.sendall(answer * (1 if b"EVALSHA" in request else request.count(b"*")))


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "unavailable"),
        (b"-READONLY You can't write against a read only replica.\r\n", "unavailable"),
        (b"-ERR Error running script: @user_script:9: -READONLY You can't write.\r\n", "unavailable"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "unavailable"),
        (b"$8\r\ncommands\r\n", "lane_full"),
    ],
    ids=["full", "replica", "replica before version 7", "loading", "lane full"],
)
def test_a_refusal_says_that_nothing_was_accepted_only_if_no_attempt_before_went_unanswered(
    make_client: MakeClient, short_waiting: Settings, answer: bytes, refusal: str, silent: int
) -> None:
    def ask() -> tuple[str, float]:
        falterer = FaltererRedis(answer, silent=silent)
        try:
            client = make_client(short_waiting.model_copy(update={"redis_url": falterer.url}))
            error, seconds = outcome_of(lambda: client.enqueue(debit("k")))
            client.close()
        finally:
            falterer.close()
        return error.code, seconds

    expected = "timeout" if silent else refusal
    # On a machine that stands still for a moment the last attempt goes unanswered for real, but not time and again.
    outcomes = [ask()]
    while outcomes[-1][0] != expected and len(outcomes) < TRIES:
        outcomes.append(ask())

    assert outcomes[-1][0] == expected
    assert outcomes[-1][1] < DEADLINE_SECONDS
