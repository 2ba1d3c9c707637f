"""The balance at a moment stays what it was once shown, also near the present, and shows no part of a transaction."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.ledger import watermark
from creditlane.schemas.commands import Credit, OpenAccount
from creditlane.worker.store import transaction

from ..direct_store import DirectStore, codes
from .requests_of import ACCOUNTS, code_of, open_account, transfer

ANN = "cca_" + "a" * 32
BALANCE_OF_ANN = f"{ACCOUNTS}/{ANN}/balance"
DEADLINE_SECONDS = 60.0


@pytest.fixture
def api(make_api: Callable[[Settings], TestClient], settings: Settings) -> TestClient:
    # Longer than a worker takes to start.
    return make_api(settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS}))


@pytest.fixture
def ann(database_url: str) -> Iterator[DirectStore]:
    """A store in which ann has 10."""
    with DirectStore(database_url) as store:
        store.apply(OpenAccount(account_id=ANN, customer_id="c", initial_balance=10, idempotency_key="open"))
        yield store


class SlowBatch:
    """A credit of 1 whose batch has taken its clock, and is not committed before it may be."""

    def __init__(self, ann: DirectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self._may_commit, self._is_writing = threading.Event(), threading.Event()
        decide = transaction.decide_all

        def decide_slowly(*arguments: Any) -> Any:
            self._is_writing.set()
            assert self._may_commit.wait(DEADLINE_SECONDS)
            return decide(*arguments)

        monkeypatch.setattr(transaction, "decide_all", decide_slowly)
        self._results: list[str] = []
        self._thread = threading.Thread(target=self._apply, args=[ann])

    def begin(self) -> None:
        self._thread.start()
        assert self._is_writing.wait(DEADLINE_SECONDS)

    def commit(self) -> None:
        self._may_commit.set()
        self._thread.join(DEADLINE_SECONDS)
        assert self._results == ["applied"]

    def _apply(self, ann: DirectStore) -> None:
        self._results = codes(ann.apply(Credit(account_id=ANN, amount=1, reference="r", idempotency_key="slow")))


@pytest.fixture
def slow_batch(ann: DirectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowBatch]:
    batch = SlowBatch(ann, monkeypatch)
    batch.begin()
    yield batch
    batch.commit()


def shown_at(api: TestClient, at: datetime | str, path: str = BALANCE_OF_ANN) -> tuple[str, datetime]:
    """Return the balance of a moment, and of which one it is."""
    answer = api.get(path, params={"at": at if isinstance(at, str) else at.isoformat()})
    assert answer.status_code == 200, answer.text
    return answer.json()["balance"], datetime.fromisoformat(answer.json()["as_of"])


def after(moment: datetime, database_url: str) -> datetime:
    """Return a moment of Postgres's clock that is later."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        while True:
            (now,) = connection.execute("select clock_timestamp()").fetchone() or (moment,)
            if now > moment + timedelta(milliseconds=5):
                return now.astimezone(UTC)


def test_what_was_shown_stays_while_a_batch_is_under_way(
    api: TestClient, slow_batch: SlowBatch, database_url: str
) -> None:
    """Given a batch between its clock and its commit, then the moments that are shown are those before it."""
    now = after(datetime.now(UTC), database_url)
    before = [shown_at(api, now), shown_at(api, now - timedelta(milliseconds=50)), shown_at(api, now)]

    slow_batch.commit()

    assert [shown_at(api, as_of) for _, as_of in before] == before
    assert all(as_of < now and balance in {"0", "10"} for balance, as_of in before)
    # What was asked for is answered once it cannot change.
    assert shown_at(api, now)[0] == "11"
    assert now - shown_at(api, now)[1] < timedelta(milliseconds=1)


def test_a_batch_of_a_role_that_cannot_be_seen_into_is_waited_for(
    api: TestClient, slow_batch: SlowBatch, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no sight of when the batch began, and nothing known from before, then nothing is shown until it is over."""
    monkeypatch.setattr(
        watermark, "READ_WRITERS", watermark.READ_WRITERS.replace("session.xact_start", "null::timestamptz")
    )
    monkeypatch.setattr(watermark, "MAX_WAIT_SECONDS", 0.2)
    now = after(datetime.now(UTC), database_url)

    answer = api.get(BALANCE_OF_ANN, params={"at": now.isoformat()})
    assert code_of(answer, 503) == "unavailable"

    slow_batch.commit()
    assert shown_at(api, now)[0] == "11"


def test_a_moment_in_the_future_is_the_present_one(api: TestClient, ann: DirectStore) -> None:
    """Given any credit that was answered, then it is in the current balance, which does not change afterwards."""
    seen = []
    for number in range(2, 12):
        ann.apply(Credit(account_id=ANN, amount=1, reference="r", idempotency_key=f"key {number}"))
        balance, as_of = shown_at(api, "9999-12-31T23:59:59.999999Z")
        assert balance == str(9 + number)
        assert as_of <= datetime.now(UTC)
        seen.append((balance, as_of))

    assert [shown_at(api, as_of) for _, as_of in seen] == seen


@pytest.mark.usefixtures("ann")
def test_the_future_of_an_account_that_stands_there_is_its_current_balance(api: TestClient, database_url: str) -> None:
    """Given an entry from while the clock was an hour ahead, then every moment in the future has it, and now not."""
    with psycopg.connect(database_url) as connection:
        ((ahead,),) = connection.execute(
            "insert into journal (store_id, account_id, seq, kind, side, amount, balance_after, idempotency_key, "
            "created_at) values (1, %s, 2, 2, 1, 5, 15, 'k', now() + interval '1 hour') returning created_at",
            [ANN[4:]],
        ).fetchall()
    now = datetime.now(UTC)

    assert api.get(BALANCE_OF_ANN).json()["balance"] == "15"
    for at in (ahead + timedelta(days=1), ahead, now + timedelta(minutes=10)):
        balance, as_of = shown_at(api, at)
        assert (balance, as_of) == ("15", watermark.whole(ahead))
    balance, as_of = shown_at(api, now)
    assert (balance, as_of < ahead) == ("10", True)


@pytest.mark.usefixtures("ann")
def test_a_moment_of_long_ago_is_shown_as_it_was_asked_for(api: TestClient) -> None:
    assert shown_at(api, "2020-01-01T00:00:00.1239Z") == ("0", datetime(2020, 1, 1, 0, 0, 0, 123_000, UTC))


@pytest.mark.usefixtures("ann")
def test_a_clock_that_goes_back_is_not_believed(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a server that was an hour ahead for a while, then what was complete then says nothing of now."""
    ahead = watermark.READ_WRITERS.replace("statement_timestamp()", "statement_timestamp() + interval '1 hour'")
    monkeypatch.setattr(watermark, "REMEMBERED_SECONDS", 0.0)
    with monkeypatch.context() as wrong:
        wrong.setattr(watermark, "READ_WRITERS", ahead)
        shown_at(api, datetime.now(UTC))

    assert shown_at(api, datetime.now(UTC) + timedelta(minutes=30))[1] <= datetime.now(UTC)


@pytest.mark.usefixtures("running_worker")
def test_a_closed_set_adds_up_at_every_moment(api: TestClient, start_worker: Callable[[], object]) -> None:
    """Given two workers and transfers to and fro, then all accounts together have the same at every moment near now."""
    start_worker()
    accounts = [open_account(api, name=f"account {number}", initial_balance="100") for number in range(6)]
    paths = [f"{ACCOUNTS}/{account['id']}/balance" for account in accounts]
    is_over = threading.Event()

    def transfer_all() -> None:
        for number in range(90):
            source, target = accounts[number % 6], accounts[(number + 1 + number % 5) % 6]
            api.post("/v1/customer-credits/transactions", json=transfer(source, target, "1", f"key {number}"))
        is_over.set()

    mover = threading.Thread(target=transfer_all)
    mover.start()
    seen: dict[tuple[str, datetime], str] = {}
    ends = time.monotonic() + DEADLINE_SECONDS
    tries = 0
    while not is_over.is_set() and time.monotonic() < ends:
        at = datetime.now(UTC) - timedelta(milliseconds=(0, 20, 50)[tries % 3])
        first = shown_at(api, at, paths[0])
        # The others of the moment that the first one could be shown of.
        balances = [first, *(shown_at(api, first[1], path) for path in paths[1:])]
        assert sum(int(balance) for balance, _ in balances) == 600, balances
        for path, (balance, as_of) in zip(paths, balances, strict=True):
            assert seen.setdefault((path, as_of), balance) == balance
        tries += 1
    mover.join()
    assert tries > 3
    assert all(shown_at(api, as_of, path) == (balance, as_of) for (path, as_of), balance in seen.items())
