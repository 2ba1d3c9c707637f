"""Dry runs leave nothing, whatever is asked for, and say what the command itself would have said."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from creditlane import (
    AccountNameTaken,
    AccountNotFound,
    Client,
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    IdempotencyKeyMismatch,
    InsufficientBalance,
    OpenAccount,
    Post,
    Reverse,
    Settings,
    Ticket,
)
from creditlane.local.processes import wait_until

from .direct_store import DirectStore, codes

MakeClient = Callable[[Settings], Client]
ANN, BOB, EVE = ("cca_" + letter * 32 for letter in "abe")
#: How long what must come may take, in seconds; a worker has to start first.
DEADLINE_SECONDS = 30.0
#: What moves by itself: workers, their leases, and the mark by which the past is known to be settled.
LIVELY_TABLES = {"workers", "leases", "alembic_version"}


def debit(amount: int, key: str, account_id: str = ANN, **fields: Any) -> Debit:
    return Debit(account_id=account_id, amount=amount, reference="r", idempotency_key=key, **fields)


def opening(key: str, account_id: str, **fields: Any) -> OpenAccount:
    return OpenAccount(account_id=account_id, idempotency_key=key, customer_id="c", **fields)


def tables_of(url: str) -> dict[str, list[str]]:
    """Return every row of every table, as text, but of those that move by themselves."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = [
            name
            for (name,) in connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
            if name not in LIVELY_TABLES
        ]
        return {
            name: sorted(
                text
                for (text,) in connection.execute(
                    sql.SQL("select t::text from {} t").format(sql.Identifier(name))
                ).fetchall()
            )
            for name in names
        }


def dry(command: Command) -> Command:
    return command.model_copy(update={"dry_run": True})


@pytest.fixture
def stored(database_url: str) -> Iterator[DirectStore]:
    """Two accounts, an endpoint that wants everything, and what was moved."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret) "
            "select store_id, gen_random_uuid(), 1, 1, 'https://example.com/all', 'whsec_s' from stores"
        )
    with DirectStore(database_url) as store:
        store.apply(
            opening("a", ANN, name="a", initial_balance=100),
            opening("b", BOB, name="b"),
            debit(10, "known"),
        )
        yield store


@pytest.mark.parametrize("careful", [False, True], ids=["optimistic", "careful"])
def test_a_batch_of_dry_runs_writes_no_row_anywhere(
    stored: DirectStore, database_url: str, monkeypatch: pytest.MonkeyPatch, *, careful: bool
) -> None:
    """Given commands of each kind, when all are dry, then no table changes, and the answers are the commands' own."""
    undone = stored.apply(debit(30, "to undo"))[0].transaction_id
    assert undone is not None
    post = Post(
        reference="r",
        idempotency_key="post",
        entries=(
            {"account_id": ANN, "side": "debit", "amount": 5},
            {"account_id": BOB, "side": "credit", "amount": 5},
        ),
    )
    commands: list[Command] = [
        debit(50, "one", callback_url="https://example.com/x"),
        debit(500, "two", callback_url="https://example.com/x"),
        debit(500, "part", allow_partial=True),
        Credit(account_id=BOB, amount=7, reference="r", idempotency_key="three"),
        post,
        Reverse(account_id=ANN, transaction_id=undone),
        opening("new", EVE, name="new", initial_balance=3),
        opening("taken", EVE, name="A "),
        opening("exists", ANN, name="other"),
        Freeze(account_id=BOB, idempotency_key="freeze"),
        Close(account_id=BOB, idempotency_key="close"),
        debit(10, "known"),
        debit(11, "known"),
        debit(1, "nobody", EVE),
    ]
    before = tables_of(database_url)

    tried = stored.apply(*map(dry, commands), careful=careful)

    assert tables_of(database_url) == before
    assert all(result.dry_run for result in tried)
    for command, result in zip(commands, tried, strict=True):
        # Each instead of its dry run, and undone again, so that the next meets what this one met.
        (real,) = _answer_of(stored, command, monkeypatch)
        assert _said(result) == _said(real), command


def _answer_of(stored: DirectStore, command: Command, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the answer to a command that is rolled back at the last moment, as its commit fails."""
    answers: list[Any] = []
    store = stored.ledger_store
    decide = store._apply_parts

    def decide_and_fail(*arguments: Any, **options: Any) -> Any:
        answers.append(decide(*arguments, **options))
        raise psycopg.OperationalError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_apply_parts", decide_and_fail)
        with pytest.raises(psycopg.OperationalError, match="cut off"):
            stored.apply(command, careful=True)
    return [outcome for (outcome,) in answers]


def _said(answer: Any) -> Any:
    """Return what an answer says, but for the moment."""
    row = getattr(answer, "row", None)
    if row is not None or getattr(answer, "refusal", None) is not None:
        code = answer.refusal.code if answer.refusal else row.rejection
        return (code, None if row is None or code else (row.balance_after, row.amount), answer.replayed)
    code = answer.error.code if answer.error else None
    moved = None if code or answer.status != "applied" else (answer.balance, answer.amount)
    return (code, moved, answer.replayed)


def test_between_two_debits_of_an_optimistic_batch_it_changes_nothing(stored: DirectStore) -> None:
    """Given 90, when 80 is tried between debits of 50 and 40, then it is refused and both are applied."""
    results = stored.apply(debit(50, "first"), dry(debit(80, "tried")), debit(40, "second"))
    assert codes(results) == ["applied", "insufficient_balance", "applied"]
    assert results[-1].balance == 0
    assert codes(stored.apply(debit(1, "tried"))) == ["insufficient_balance"]


@pytest.mark.parametrize("first_is_dry", [True, False])
def test_with_the_command_itself_in_one_batch(stored: DirectStore, *, first_is_dry: bool) -> None:
    """Given a dry run and its command in a batch, then the one that comes first decides what the dry run says."""
    real, tried = debit(50, "k"), dry(debit(50, "k"))
    commands = (tried, real) if first_is_dry else (real, tried)
    results = stored.apply(*commands)
    of_dry, of_real = results if first_is_dry else results[::-1]
    assert (of_dry.replayed, of_real.replayed, of_real.balance) == (not first_is_dry, False, 40)
    assert (of_dry.transaction_id is None) == first_is_dry
    assert len({result.balance for result in results}) == 1


def test_a_key_that_is_there_is_looked_up_also_in_an_optimistic_batch(stored: DirectStore) -> None:
    replay, mismatch = stored.apply(dry(debit(10, "known")), dry(debit(12, "known")))
    assert (replay.replayed, replay.balance, replay.transaction_id is None) == (True, 90, False)
    assert codes([mismatch]) == ["idempotency_key_mismatch"]


def test_openings_and_their_dry_runs_in_one_batch(stored: DirectStore, database_url: str) -> None:
    """Given dry openings of one name before and after it is taken and freed, then each says what was so in its turn."""
    results = stored.apply(
        dry(opening("n1", EVE, name="new")),
        dry(opening("n2", EVE, name="a")),
        opening("n3", EVE, name="new", initial_balance=4),
        dry(opening("n4", "cca_" + "f" * 32, name="New")),
        dry(Close(account_id=EVE, idempotency_key="c1")),
        dry(opening("n5", "cca_" + "f" * 32, name="New")),
        Close(account_id=EVE, idempotency_key="c2"),
        dry(opening("n6", "cca_" + "f" * 32, name="New")),
    )
    assert codes(results) == [
        "applied",
        "account_name_taken",
        "applied",
        "account_name_taken",
        "applied",
        "account_name_taken",
        "applied",
        "applied",
    ]
    assert results[3].error is not None
    assert results[3].error.details == {"account_id": EVE}
    accounts = tables_of(database_url)["accounts"]
    assert len(accounts) == 3
    assert not any("f" * 8 in account for account in accounts)


# With clients and workers


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The test's settings, with the time that a worker's start takes on a busy machine."""
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


@pytest.mark.conformance
@pytest.mark.usefixtures("running_worker")
def test_every_method_of_a_client_has_one(client: Client) -> None:
    """Given any kind of client, when each method is tried dry, then it gives what it would give."""
    tried = client.open_account(customer_id="c", name="n", initial_balance=9, dry_run=True)
    assert (tried.balance, tried.status) == (9, "active")
    with pytest.raises(AccountNotFound):
        client.account(tried.id)
    account = client.open_account(customer_id="c", name="n", initial_balance=100)
    with pytest.raises(AccountNameTaken):
        client.open_account(customer_id="c", name="n", dry_run=True)
    moved = client.debit(account.id, 30, reference="r", idempotency_key="d")

    results = [
        client.credit(account.id, 5, reference="r", idempotency_key="k", dry_run=True),
        client.debit(account.id, 90, reference="r", idempotency_key="k", allow_partial=True, dry_run=True),
        client.post(
            [
                {"account_id": account.id, "side": "debit", "amount": 5},
                {"account_id": account.id, "side": "credit", "amount": 5},
            ],
            reference="r",
            idempotency_key="k",
            dry_run=True,
        ),
        client.reverse(account.id, moved.transaction_id or "", dry_run=True),
    ]
    assert [(result.balance, result.dry_run, result.transaction_id) for result in results] == [
        (75, True, None),
        (0, True, None),
        (65, True, None),
        (100, True, None),
    ]
    assert results[1].shortfall == 20
    assert [entry.balance_after for entry in results[2].entries or ()] == [65, 70]
    with pytest.raises(InsufficientBalance):
        client.debit(account.id, 71, reference="r", idempotency_key="k", dry_run=True)
    with pytest.raises(IdempotencyKeyMismatch):
        client.debit(account.id, 31, reference="r", idempotency_key="d", dry_run=True)
    replay = client.debit(account.id, 30, reference="r", idempotency_key="d", dry_run=True)
    assert (replay.replayed, replay.transaction_id, replay.balance) == (True, moved.transaction_id, 70)
    assert client.freeze(account.id, dry_run=True).status == "frozen"
    assert client.close_account(account.id, dry_run=True).status == "closed"
    assert client.account(account.id).status == "active"
    assert client.balance(account.id) == 70
    assert [entry.amount for entry in client.entries(account.id)] == [30, 100]


@pytest.mark.conformance
@pytest.mark.usefixtures("running_worker")
def test_a_debit_that_takes_what_is_there_says_what_is_missing(client: Client) -> None:
    account = client.open_account(customer_id="c", name="n", initial_balance=40)
    taken = client.debit(account.id, 100, reference="r", idempotency_key="d", allow_partial=True)
    assert (taken.amount, taken.shortfall, taken.balance) == (40, 60, 0)
    again = client.debit(account.id, 100, reference="r", idempotency_key="d", allow_partial=True)
    assert (again.replayed, again.shortfall) == (True, 60)
    assert client.transaction(taken.transaction_id or "").shortfall == 60
    with pytest.raises(IdempotencyKeyMismatch):
        client.debit(account.id, 40, reference="r", idempotency_key="d")
    with pytest.raises(InsufficientBalance):
        client.debit(account.id, 1, reference="r", idempotency_key="e", allow_partial=True)
    client.credit(account.id, 10, reference="r", idempotency_key="c")
    whole = client.debit(account.id, 10, reference="r", idempotency_key="f", allow_partial=True)
    assert (whole.amount, whole.shortfall) == (10, 0)


@pytest.mark.usefixtures("running_worker")
def test_with_two_workers_nothing_is_left_in_postgres_or_redis(
    client: Client, settings: Settings, start_worker: Callable[[], object], redis_url: str, database_url: str
) -> None:
    """Given accounts on every lane, when each is tried dry in bulk, then nothing but the results is there afterwards.

    They have an end, and each ticket gets its own.
    """
    start_worker()
    redis_client = redis.Redis.from_url(redis_url)
    accounts = [client.open_account(customer_id="c", name=f"n{n}", initial_balance=100).id for n in range(16)]
    prefix = settings.redis_prefix
    assert wait_until(lambda: all(client.pending(account) == 0 for account in accounts), seconds=DEADLINE_SECONDS)
    before, keys_before = tables_of(database_url), _keys(redis_client, prefix)
    commands = [
        debit(amount, f"{account}-{amount}", account, dry_run=True, callback_url="https://example.com/x")
        for account, amount in itertools.product(accounts, (1, 100, 101))
    ]

    tickets = list(client.enqueue_many(commands))
    results = {
        (result.account_id, result.idempotency_key): result
        for result in client.wait_many([str(ticket) for ticket in tickets], timeout=DEADLINE_SECONDS)
    }

    assert len(results) == len(commands)
    for command in commands:
        result = results[command.account_id, command.idempotency_key]
        assert result.dry_run
        assert result.balance == (100 if result.error else 100 - command.amount)
        assert (result.error is not None) == (command.amount == 101)
    assert wait_until(lambda: all(client.pending(account) == 0 for account in accounts), seconds=DEADLINE_SECONDS)
    assert tables_of(database_url) == before
    added = _keys(redis_client, prefix) - keys_before
    assert all("}:result::" in key for key in added)
    assert all(redis_client.ttl(key) > 0 for key in added)


@pytest.mark.usefixtures("running_worker")
def test_the_command_is_never_answered_with_its_dry_run(make_client: MakeClient, settings: Settings) -> None:
    """Given tickets of dry runs and of their command under one key, then each has its own result, also elsewhere."""
    client, other = make_client(settings), make_client(settings)
    account = client.open_account(customer_id="c", name="n", initial_balance=100).id
    tickets: list[Ticket] = []
    for command in (
        debit(30, "k", account, dry_run=True),
        debit(30, "k", account),
        debit(30, "k", account, dry_run=True),
    ):
        tickets.append(client.enqueue(command))
        client.wait(tickets[-1], timeout=DEADLINE_SECONDS)
    for order in ([0, 1, 2], [2, 1, 0]):
        found = {at: other.wait(str(tickets[at]), timeout=DEADLINE_SECONDS) for at in order}
        assert [(found[at].dry_run, found[at].replayed) for at in range(3)] == [
            (True, False),
            (False, False),
            (True, True),
        ]
        assert found[0].transaction_id is None
        assert found[1].transaction_id == found[2].transaction_id
    assert other.result(str(tickets[0])).dry_run


def _keys(redis_client: redis.Redis, prefix: str) -> set[str]:
    lively = {
        f"{prefix}:{name}" for name in ("held-turn", "others-at-work", "write-check", "asking", "wake:deliveries")
    }
    names = {key.decode() for key in redis_client.scan_iter(f"{prefix}:*")}
    return {name for name in names - lively if ":replies:" not in name and not name.endswith(":commands")}
