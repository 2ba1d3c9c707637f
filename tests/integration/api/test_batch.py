"""The batch endpoint: streamed both ways, one answer a line in order, and a bad line spoils none of its neighbours."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient

from creditlane import AsyncClient, Settings
from creditlane.audit.whole import verify
from creditlane.lanes.keys import Keys
from creditlane.lanes.routing import partition_of
from creditlane.producer.api import response_spool
from creditlane.producer.api.middleware import active_stores, fair_batches
from creditlane.producer.api.middleware.fair_batches import PartSize
from creditlane.producer.api.middleware.request_limits import Limits
from creditlane.producer.client.redis_exchange import ExchangeFailed
from creditlane.schemas.errors import OutcomeUnknown

from .duplex import Duplex
from .requests_of import ACCOUNTS, COMMANDS, DEADLINE_SECONDS, balance, code_of, open_account

#: More than any test has, in lines or bytes.
MANY = 10**9

Start = Callable[..., tuple[Any, str]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def debit(account: dict[str, Any], number: int, **fields: Any) -> dict[str, Any]:
    line = {
        "kind": "debit",
        "account_id": account["id"],
        "amount": "1",
        "reference": "r",
        "idempotency_key": f"{number}",
    }
    return {**line, **fields}


def body_of(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def answers_of(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.usefixtures("running_worker")
def test_every_line_gets_its_answer_in_order(api: TestClient, settings: Settings) -> None:
    account = open_account(api, initial_balance="100")
    other = open_account(api, name="other")
    move = {"account_id": account["id"], "side": "debit", "amount": "2"}
    lines = [
        debit(account, 1),
        debit(account, 2, amount=1),
        {"kind": "credit", "account_id": account["id"], "amount": "5", "reference": "r", "idempotency_key": "c"},
        "not an object",
        {
            "kind": "post",
            "reference": "r",
            "idempotency_key": "p",
            "entries": [move, {**move, "account_id": other["id"], "side": "credit"}],
        },
        debit(account, 3, amount="1000"),
        debit(account, 1),
        {"kind": "open_account", "customer_id": "c", "initial_balance": "7"},
    ]

    answers = answers_of(api.post(COMMANDS, content=body_of(lines)))

    assert [answer["line"] for answer in answers] == list(range(1, 9))
    refused = {answer["line"]: answer["error"]["param"] for answer in answers if answer["status"] == "refused"}
    assert refused == {2: "amount", 4: None}
    results = {}
    for answer in answers:
        if answer["status"] == "queued":
            results[answer["line"]] = api.get(f"{COMMANDS}/{answer['id']}", params={"wait": 30}).json()
    outcomes = [result["error"]["code"] if result["error"] else result["status"] for result in results.values()]
    assert outcomes == ["applied", "applied", "applied", "insufficient_balance", "applied", "applied"]
    assert results[1]["transaction"]["id"] == results[7]["transaction"]["id"]
    assert len(results[5]["transaction"]["entries"]) == 2
    assert results[8]["account"]["balance"] == "7"
    assert (balance(api, account), balance(api, other)) == ("102", "2")
    assert verify(settings.require_database_url()).discrepancies == 0


def test_a_blank_line_and_a_line_that_is_too_long_are_refused_alone(api: TestClient) -> None:
    account = {"id": "cca_" + "0" * 32}
    body = body_of([debit(account, 1)]) + b"\n" + b"x" * 300_000 + b"\n" + body_of([debit(account, 2)])[:-1]

    answers = answers_of(api.post(COMMANDS, content=body))

    codes = [answer["error"]["code"] if "error" in answer else answer["status"] for answer in answers]
    assert codes == ["queued", "validation_error", "too_large", "queued"]


def test_lines_beyond_the_limit_are_refused(make_api: Callable[[Settings], TestClient], settings: Settings) -> None:
    api = make_api(settings.model_copy(update={"api_batch_lines": 3}))

    answers = answers_of(api.post(COMMANDS, content=body_of([debit({"id": "cca_" + "0" * 32}, n) for n in range(5)])))

    assert [answer["status"] for answer in answers] == ["queued"] * 3 + ["refused"] * 2
    assert answers[4]["error"]["code"] == "too_large"


def test_a_full_lane_refuses_its_own_lines_only(make_api: Callable[[Settings], TestClient], settings: Settings) -> None:
    api = make_api(settings.model_copy(update={"lane_limit": 3, "wait_timeout_seconds": 0.1}))
    full, free = {"id": "cca_" + "0" * 32}, {"id": "cca_" + "0" * 31 + "1"}

    first = answers_of(api.post(COMMANDS, content=body_of([debit(full, n) for n in range(3)])))
    second = answers_of(api.post(COMMANDS, content=body_of([debit(full, 3), debit(free, 4), debit(full, 5)])))

    assert [answer["status"] for answer in first] == ["queued"] * 3
    assert [answer["status"] for answer in second] == ["refused", "queued", "refused"]
    assert second[0]["error"] == {**second[2]["error"], "type": "rate_limit_error", "code": "lane_full"}


def test_a_batch_that_waits_for_a_full_lane_keeps_none_of_its_store_waiting(
    make_api: Callable[[Settings], TestClient], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given another store that asks as well, and a batch whose lane is full, then another batch of the same store is
    answered meanwhile; and the first as soon as its lane has room."""
    monkeypatch.setattr(active_stores, "ACTIVE_SECONDS", 1_000.0)
    api = make_api(settings.model_copy(update={"lane_limit": 1, "wait_timeout_seconds": 10 * DEADLINE_SECONDS}))
    limits: Limits = api.app.state.limits  # type: ignore[attr-defined]
    limits.active_stores.note("store_other")
    has_turn = threading.Event()
    sender = api.app.state.session.sender  # type: ignore[attr-defined]
    deliver = sender.deliver

    async def noted(*arguments: Any) -> None:
        has_turn.set()
        await deliver(*arguments)

    monkeypatch.setattr(sender, "deliver", noted)
    full, free = {"id": "cca_" + "0" * 32}, {"id": "cca_" + "0" * 31 + "1"}
    lane = partition_of(full["id"], settings.partitions or 0)
    assert lane != partition_of(free["id"], settings.partitions or 0)

    def send(account: dict[str, Any], number: int) -> list[str]:
        answers = answers_of(api.post(COMMANDS, content=body_of([debit(account, number)])))
        return [answer["status"] for answer in answers]

    assert send(full, 1) == ["queued"]
    has_turn.clear()
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(send, full, 2)
        assert has_turn.wait(DEADLINE_SECONDS)
        meanwhile = threads.submit(send, free, 3)
        try:
            assert meanwhile.result(DEADLINE_SECONDS) == ["queued"]
            assert not waiting.done()
        finally:
            keys = Keys(settings.redis_prefix)
            with redis.Redis.from_url(settings.require_redis_url()) as server:
                server.delete(keys.lane(lane), keys.backlog(lane))
        assert waiting.result(DEADLINE_SECONDS) == ["queued"]


def test_an_empty_body_is_a_bad_request(api: TestClient) -> None:
    assert code_of(api.post(COMMANDS, content=b""), 400) == "validation_error"
    assert code_of(api.post(COMMANDS, content=b"{}\n", headers={"x-api-key": "cl_wrong"}), 401) == "unauthorized"


def test_without_redis_the_whole_request_is_unavailable(
    make_api: Callable[[Settings], TestClient], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api(settings)
    assert api.post(COMMANDS, content=body_of([{"kind": "x"}])).status_code == 200
    wire = api.app.state.session.wire  # type: ignore[attr-defined]

    async def unreachable(_calls: object, _deadline: float) -> None:
        raise ExchangeFailed(ConnectionRefusedError(), sent=False)

    monkeypatch.setattr(wire, "send", unreachable)
    answer = api.post(COMMANDS, content=body_of([debit({"id": "cca_" + "0" * 32}, 1)]))

    assert code_of(answer, 503) == "unavailable"
    assert answer.headers["retry-after"]


@pytest.mark.usefixtures("running_worker")
def test_lines_that_may_stand_on_a_lane_are_not_called_refused(
    make_api: Callable[[Settings], TestClient], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a part that is sent and of which no attempt is answered, when others were accepted before, then its lines
    are `unknown`, those after it, which were not sent, `refused`; and the lane has those of the part."""
    api = make_api(settings)
    account = open_account(api, initial_balance="100")
    monkeypatch.setattr(fair_batches, "ALONE", PartSize(2, MANY))
    wire = api.app.state.session.wire  # type: ignore[attr-defined]
    send, exchange, sent = wire.send, wire.exchange, []

    async def send_and_lose(calls: list[Any], deadline: float) -> Any:
        exchange_begun = await send(calls, deadline)
        if Keys(settings.redis_prefix).asking in calls[0]:
            return exchange_begun
        sent.append(len(calls))
        if len(sent) != 2:
            return exchange_begun
        await wire.receive(exchange_begun, deadline)
        raise ExchangeFailed(TimeoutError(), sent=True)

    async def exchange_and_lose(calls: list[Any], **options: Any) -> Any:
        if len(sent) != 2:
            return await exchange(calls, **options)
        raise OutcomeUnknown

    monkeypatch.setattr(wire, "send", send_and_lose)
    monkeypatch.setattr(wire, "exchange", exchange_and_lose)

    lines = [debit(account, number) for number in range(6)]
    answers = answers_of(api.post(COMMANDS, content=body_of(lines)))

    monkeypatch.undo()
    reported = [(answer["status"], answer.get("error", {}).get("code")) for answer in answers]
    assert reported == [("queued", None)] * 2 + [("unknown", "timeout")] * 2 + [("refused", "unavailable")] * 2
    again = answers_of(api.post(COMMANDS, content=body_of(lines[:4])))
    assert {api.get(f"{COMMANDS}/{answer['id']}?wait=10").status_code for answer in again} == {200}
    assert balance(api, account) == "96"


def test_parts_are_bounded_in_bytes(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given lines that are much in bytes and few in number, then no more of them go to Redis together than that."""
    monkeypatch.setattr(fair_batches, "ALONE", PartSize(MANY, 1_000))
    sizes: list[int] = []
    deliver = api.app.state.session.sender.deliver  # type: ignore[attr-defined]

    async def measured(enqueue: Any, *arguments: Any) -> None:
        sizes.append(sum(map(len, enqueue.chunk.encoded)))
        await deliver(enqueue, *arguments)

    monkeypatch.setattr(api.app.state.session.sender, "deliver", measured)  # type: ignore[attr-defined]
    lines = [debit({"id": "cca_" + "0" * 32}, number, metadata={"k": "v" * 400}) for number in range(20)]

    answers = answers_of(api.post(COMMANDS, content=body_of(lines)))

    assert {answer["status"] for answer in answers} == {"queued"}
    assert max(sizes) < 2_000
    assert len(sizes) >= 8


@pytest.fixture
def duplex(start_api: Start, api_key: str) -> Iterator[Duplex]:
    connection = Duplex(start_api()[1], api_key)
    yield connection
    connection.close()


def test_answers_come_while_the_request_is_still_being_sent(duplex: Duplex) -> None:
    account = {"id": "cca_" + "0" * 32}
    duplex.send(body_of([debit(account, 1)]))
    response = duplex.response()
    got = [json.loads(response.readline())]
    for number in range(2, 6):
        line = body_of([debit(account, number)])
        duplex.send(line[:20])
        duplex.send(line[20:])
        got.append(json.loads(response.readline()))
    duplex.finish()

    assert [(answer["line"], answer["status"]) for answer in got] == [(number, "queued") for number in range(1, 6)]
    assert response.read() == b""


def test_a_client_that_sends_everything_before_it_reads_is_answered(duplex: Duplex) -> None:
    account, count = {"id": "cca_" + "0" * 32}, 60_000
    lines = [debit(account, number) for number in range(count)]
    # Enough that neither sockets nor memory can hold the answers.
    assert count * 200 > 8 * response_spool.MAX_MEMORY_BYTES
    for start in range(0, count, 1_000):
        duplex.send(body_of(lines[start : start + 1_000]))
    duplex.finish()

    answers = [json.loads(line) for line in duplex.response().read().splitlines()]

    assert [answer["line"] for answer in answers] == list(range(1, count + 1))
    assert {answer["status"] for answer in answers} == {"queued"}


def test_a_client_that_leaves_has_sent_what_was_answered(
    start_api: Start, api_key: str, api: TestClient, start_worker: Callable[[], object]
) -> None:
    account = {"id": "cca_" + "0" * 32}
    duplex = Duplex(start_api()[1], api_key)
    duplex.send(body_of([debit(account, number) for number in range(3)]) + b'{"kind":"debit","acc')
    answer = json.loads(duplex.response().readline())
    duplex.close()
    start_worker()

    reported = api.get(f"{COMMANDS}/{answer['id']}", params={"wait": 30}).json()

    assert reported["error"]["code"] == "not_found"


async def test_lines_of_one_account_keep_their_order_through_many_parts(
    api: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch, start_worker: Callable[[], object]
) -> None:
    monkeypatch.setattr(fair_batches, "ALONE", PartSize(7, MANY))
    start_worker()
    account = open_account(api, initial_balance="1000")
    lines = [debit(account, number, reference=f"{number}") for number in range(100)]

    answers = answers_of(api.post(COMMANDS, content=iter([body_of(lines[n : n + 9]) for n in range(0, 100, 9)])))
    async with AsyncClient(settings) as client:
        await client.wait(answers[-1]["id"], DEADLINE_SECONDS)

    entries = api.get(f"{ACCOUNTS}/{account['id']}/entries", params={"limit": 100}).json()["data"]
    assert [entry["reference"] for entry in entries] == [f"{number}" for number in reversed(range(100))]
    assert threading.active_count() < 50
